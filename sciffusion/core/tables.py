"""DDPM's T-step tables as schedules: exact at t = i/T, smooth between.

log-SNR is interpolated by PCHIP (Fritsch & Carlson 1980), which keeps it falling and its derivative
continuous. Before the first entry sigma goes to 0 at t = 0, and where the terminal SNR is zero
alpha goes to 0 at t = 1, each along the parabola that continues the value and the slope.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.schedules import Schedule, Times


def _pchip_slopes(y: Float[Tensor, " k"], h: float) -> Float[Tensor, " k"]:
    """Fritsch-Carlson slopes of a monotone table on a uniform grid of spacing h."""
    d = y.diff() / h
    inner = torch.where(d[1:] * d[:-1] > 0, 2 * d[1:] * d[:-1] / (d[1:] + d[:-1]), 0.0)

    def end(a: Tensor, b: Tensor) -> Tensor:
        slope = 1.5 * a - 0.5 * b
        return torch.where(
            slope * a <= 0, 0.0, torch.where(slope.abs() > 3 * a.abs(), 3 * a, slope)
        )

    return torch.cat([end(d[0], d[1])[None], inner, end(d[-1], d[-2])[None]])


class _Tail:
    """Amplitude a(w) = a1 w (1 + c (1 - w)) on [0, 1]: value a1 and slope s a1 at w = 1."""

    def __init__(self, a1: Tensor, s: Tensor) -> None:
        self.a1, self.c = float(a1), float((1 - s).clamp(-0.95, 0.95))

    def value(self, w: Times) -> Times:
        return self.a1 * w * (1 + self.c * (1 - w))

    def slope(self, w: Times) -> Times:
        return self.a1 * (1 + self.c * (1 - 2 * w))

    def inverse(self, a: Times) -> Times:
        b = 1 + self.c
        return 2 * (a / self.a1) / (b + (b * b - 4 * self.c * (a / self.a1)).clamp_min(0).sqrt())


class Table(Schedule):
    """A variance-preserving table of cumulative products.

    Args:
        alphas_cumprod: (T,) alpha^2 at t = 1/T, ..., 1; strictly falling in (0, 1), the last may be
            zero (zero terminal SNR).

    Raises:
        ValueError: it is none of that; the message names the entry.
    """

    def __init__(self, alphas_cumprod: Float[Tensor, " steps"]) -> None:
        ab = torch.as_tensor(alphas_cumprod, dtype=torch.float64).cpu()
        if ab.ndim != 1 or len(ab) < 4:
            raise ValueError(
                f"a schedule table needs at least 4 entries, not shape {tuple(ab.shape)}"
            )
        bad = ~((ab > 0) & (ab < 1))
        bad[-1] = not 0 <= float(ab[-1]) < 1
        bad[1:] |= ab[1:] >= ab[:-1]
        if bad.any():
            i = int(bad.nonzero()[0])
            raise ValueError(
                f"alphas_cumprod[{i}] = {float(ab[i]):.6g}: the table must fall strictly from "
                "under 1 and stay positive (only the last entry may be 0)"
            )
        self.alphas_cumprod = ab
        self.steps = len(ab)
        zero_end = float(ab[-1]) == 0
        inner = ab[:-1] if zero_end else ab
        self._y = inner.log() - (-inner).log1p()
        self._m = _pchip_slopes(self._y, 1 / self.steps)
        first, last = self._m[0] / self.steps, self._m[-1] / self.steps
        self._start = _Tail((1 - ab[0]).sqrt(), -0.5 * first * ab[0])
        self._end = _Tail(inner[-1].sqrt(), -0.5 * last * (1 - inner[-1])) if zero_end else None

    @property
    def betas(self) -> Float[Tensor, " steps"]:
        """(T,) float64: beta_i = 1 - alphas_cumprod_i / alphas_cumprod_(i-1)."""
        previous = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        return 1 - self.alphas_cumprod / previous

    def _spline(self, t: Times) -> tuple[Times, Times]:
        """log-SNR and its derivative between the first and the last finite entry."""
        y, m = self._y.to(t.device), self._m.to(t.device)
        position = (t * self.steps - 1).clamp(0, len(y) - 1)
        k = position.long().clamp(max=len(y) - 2)
        u, h = position - k, 1 / self.steps
        y0, y1, m0, m1 = y[k], y[k + 1], m[k] * h, m[k + 1] * h
        a, b = 2 * (y0 - y1) + m0 + m1, 3 * (y1 - y0) - 2 * m0 - m1
        return y0 + u * (m0 + u * (b + u * a)), (m0 + u * (2 * b + 3 * u * a)) / h

    def _regions(self, t: Times) -> tuple[Tensor, Tensor, Times, Times]:
        start, end = t * self.steps < 1, (1 - t) * self.steps < 1
        if self._end is None:
            end = torch.zeros_like(end)
        return start, end, (t * self.steps).clamp(0, 1), ((1 - t) * self.steps).clamp(0, 1)

    def _amplitudes(self, t: Times) -> tuple[Times, Times, Times, Times]:
        """alpha, sigma and their derivatives."""
        y, dy = self._spline(t)
        alpha, sigma = torch.sigmoid(y).sqrt(), torch.sigmoid(-y).sqrt()
        d_alpha, d_sigma = 0.5 * dy * alpha * sigma**2, -0.5 * dy * sigma * alpha**2
        start, end, w0, w1 = self._regions(t)
        s, ds = self._start.value(w0), self._start.slope(w0) * self.steps
        a = (1 - s * s).sqrt()
        parts = [
            torch.where(start, new, old)
            for new, old in ((a, alpha), (s, sigma), (-s * ds / a, d_alpha), (ds, d_sigma))
        ]
        if self._end is not None:
            a, da = self._end.value(w1), -self._end.slope(w1) * self.steps
            s = (1 - a * a).sqrt()
            parts = [
                torch.where(end, new, old)
                for new, old in zip((a, s, da, -a * da / s), parts, strict=True)
            ]
        return parts[0], parts[1], parts[2], parts[3]

    def alpha(self, t: Times) -> Times:
        return self._amplitudes(t)[0]

    def sigma(self, t: Times) -> Times:
        return self._amplitudes(t)[1]

    def d_alpha(self, t: Times) -> Times:
        return self._amplitudes(t)[2]

    def d_sigma(self, t: Times) -> Times:
        return self._amplitudes(t)[3]

    def t_of_log_snr(self, log_snr: Times) -> Times:
        y = self._y.to(log_snr.device)
        # Between two entries: the piece by binary search, then the place in it by bisection.
        k = torch.searchsorted(-y, -log_snr.contiguous()).clamp(1, len(y) - 1)
        low, high = k.double() / self.steps, (k + 1).double() / self.steps
        for _ in range(48):
            middle = 0.5 * (low + high)
            above = self._spline(middle)[0] > log_snr
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        t = 0.5 * (low + high)
        sigma, alpha = torch.sigmoid(-log_snr).sqrt(), torch.sigmoid(log_snr).sqrt()
        t = torch.where(log_snr > y[0], self._start.inverse(sigma) / self.steps, t)
        if self._end is None:
            return torch.where(log_snr <= y[-1], 1.0, t)
        return torch.where(log_snr < y[-1], 1 - self._end.inverse(alpha) / self.steps, t)


def from_betas(betas: Float[Tensor, " steps"]) -> Table:
    """The table of given betas.

    Raises:
        ValueError: a beta outside (0, 1), with its index; only the last may be 1.
    """
    b = torch.as_tensor(betas, dtype=torch.float64)
    bad = ~((b > 0) & (b < 1))
    if bad[:-1].any() or not 0 < float(b[-1]) <= 1:
        i = int(bad.nonzero()[0])
        raise ValueError(
            f"beta_{i + 1} of {len(b)} is {float(b[i]):.4g}: every beta must lie in (0, 1)"
        )
    return Table((1 - b).cumprod(0))


def _from_alpha_bar(alpha_bar: Float[Tensor, " steps_and_one"]) -> Table:
    """Betas of alpha_bar at 0, 1/T, ..., 1, clipped at 0.999, and the product taken again."""
    return from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp_max(0.999))


def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Table:
    """beta linear in the step (Ho et al. 2020); both ends scaled by 1000/T for other T.

    Raises:
        ValueError: T so small (<= 20) that a scaled beta reaches 1.
    """
    scale = 1000 / steps
    if scale * beta_end >= 1:
        raise ValueError(
            f"linear schedule with {steps} steps ends with beta = {scale * beta_end:.3g} >= 1; "
            f"use more than {int(1000 * beta_end)} steps or the cosine schedule"
        )
    return from_betas(
        torch.linspace(scale * beta_start, scale * beta_end, steps, dtype=torch.float64)
    )


def scaled_linear(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Table:
    """beta linear in its square root (Stable Diffusion), scaled by 1000/T for other T."""
    scale = 1000 / steps
    if scale * beta_end >= 1:
        raise ValueError(f"scaled_linear with {steps} steps: its last beta would reach 1")
    roots = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64)
    return from_betas(scale * roots**2)


def cosine(steps: int = 1000, s: float = 0.008) -> Table:
    """alpha_bar = cos^2((t + s)/(1 + s) pi/2), betas clipped at 0.999 (Nichol & Dhariwal 2021)."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return _from_alpha_bar(torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2)


def sigmoid(steps: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Table:
    """alpha_bar falls as a logistic curve from `start` to `end` (Jabri et al. 2022, alg. 1)."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    curve = torch.sigmoid(-(t * (end - start) + start) / tau)
    return _from_alpha_bar((curve - curve[-1]) / (curve[0] - curve[-1]))


def zero_terminal_snr(table: Table) -> Table:
    """alpha shifted and scaled to end at 0 and keep its start (Lin et al. 2024, alg. 1)."""
    root = table.alphas_cumprod.sqrt()
    shifted = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return Table(shifted**2)
