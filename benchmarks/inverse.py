"""Inverse problems and editing: python benchmarks/inverse.py [--quick] [--steps N]

Two parts, written to benchmarks/results/inverse.json and .md:
- the analytic mixture, whose posterior under a linear measurement is known: how far the mean, the
  covariance and the modes' shares of samples are from it, for each solver, alone and as the twist
  of particles;
- digits, masked, shrunk and blurred: PSNR of the mean of 16 posterior samples against the obvious
  baseline (interpolation; the data's mean in the hole), and the Fréchet distance of single samples
  against the baseline's pictures, both to the test images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import bar, markdown, write_result
from training import trained

from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.editing import Replacement, resampled
from sciffusion.core.inverse import SOLVERS, Measured
from sciffusion.core.operators import Mask, Matrix, Operator, blur, shrink
from sciffusion.core.samplers import DDPM, Twisted
from sciffusion.core.schedules import VP
from sciffusion.core.times import Karras
from sciffusion.domains.image.data import to_model, to_uint8
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.domains.image.features import load_extractor
from sciffusion.io.config import compose
from sciffusion.metrics.frechet import frechet_distance

SAMPLES = 16
PARTICLES = 256


def world() -> tuple[GaussianMixture, GaussianMixture, Matrix, torch.Tensor, float]:
    """(prior, posterior, A, y, std) in five dimensions."""
    generator = torch.Generator().manual_seed(0)
    means = 2 * torch.randn(4, 5, generator=generator)
    root = 0.5 * torch.randn(4, 5, 5, generator=generator)
    covs = root @ root.mT + 0.05 * torch.eye(5)
    prior = GaussianMixture(means, covs, VP(), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    a = torch.randn(2, 5, generator=generator).double()
    y = a @ means[2:].double().mean(0)
    std, parts = 0.5, []
    for mean, cov in zip(prior.means, prior.covs, strict=True):
        s = a @ cov @ a.T + std**2 * torch.eye(2)
        gain, off = cov @ a.T @ torch.linalg.inv(s), y - a @ mean
        evidence = -0.5 * (off @ torch.linalg.solve(s, off) + torch.logdet(s))
        parts.append((mean + gain @ off, cov - gain @ a @ cov, evidence))
    m, c, e = (torch.stack(p) for p in zip(*parts, strict=True))
    weights = (prior.log_weights + e).softmax(0)
    return prior, GaussianMixture(m, c, VP(), weights), Matrix(a.float()), y[None].float(), std


def apart(x: torch.Tensor, exact: GaussianMixture) -> dict[str, float]:
    """How far the mean, the covariance and the modes' shares (total variation) are off."""
    x, weights = x.double(), exact.log_weights.exp()
    mean = weights @ exact.means
    off = exact.means - mean
    cov = (weights[:, None, None] * (exact.covs + off[:, :, None] * off[:, None])).sum(0)
    sure = exact.draw(100_000, seed=1)

    def shares(v: torch.Tensor) -> torch.Tensor:
        return torch.cdist(v, exact.means).argmin(1).bincount(minlength=len(weights)) / len(v)

    spread = float(cov.trace())
    return {
        "mean": float((x.mean(0) - mean).norm()) / spread**0.5,
        "covariance": float((x.T.cov() - cov).norm() / cov.norm()),
        "modes": 0.5 * float((shares(x) - shares(sure)).abs().sum()),
    }


def mixture(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a solver."""
    prior, exact, operator, y, std = world()
    scale = float(prior.draw(20_000).std(0).mean())
    n, steps = (1024, 50) if options.quick else (4 * 4096, 200)
    rows = [{"solver": "exact draws", **apart(exact.draw(n, seed=2), exact), "calls": 0}]
    for name, solver in SOLVERS.items():
        led = solver(prior, operator, y, std, sigma_data=scale)
        particles = n if options.quick else 4096
        for sampler, how in (
            (DDPM(steps), name),
            (Twisted(steps, particles=PARTICLES), f"{name}, {PARTICLES} particles"),
            (Twisted(steps, particles=particles), f"{name}, {particles} particles"),
        ):
            out = sampler(led, (5,), n=n, seed=options.seed)
            rows.append({"solver": how, **apart(out.x, exact), "calls": out.nfe})
    return rows


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    """Decibel, pixels from -1 to 1."""
    return float(10 * torch.log10(4 / (x.clamp(-1, 1) - truth).square().mean((1, 2, 3))).mean())


def problems(
    size: int, mean: torch.Tensor
) -> dict[str, tuple[Operator, Callable[[torch.Tensor], torch.Tensor]]]:
    """(A, the obvious answer to y) of each."""
    hole = torch.ones(1, 1, size, size, dtype=torch.bool)
    hole[..., size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = False

    def larger(y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(y, size=(size, size), mode="bicubic")

    return {
        "hole in the middle": (Mask(hole), lambda y: torch.where(hole, y, mean)),
        "half the width and height": (shrink(size, 2), larger),
        "blur of 1 pixel": (blur(size, 1.0), lambda y: y),
    }


def digits(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(a row a problem and solver, what the training was)."""
    config = compose("train", ["domain=image"])
    domain = ImageDomain(config["data"])
    with bar() as progress:
        denoiser, about = trained(domain, config, progress, steps=options.steps)
    train, test = domain.data
    generator = np.random.default_rng(options.seed)
    chosen = generator.permutation(len(test.x))[: 20 if options.quick else 300]

    def tensor(x: np.ndarray) -> torch.Tensor:
        return to_model(torch.from_numpy(x).permute(0, 3, 1, 2))

    truth = tensor(test.x[chosen])
    extractor = features(domain)
    real = extractor(test.x)
    rows, std = [], 0.05
    sampler = DDPM(20 if options.quick else 100, Karras())
    noise = torch.Generator().manual_seed(options.seed)
    for name, (operator, obvious) in problems(truth.shape[-1], tensor(train.x).mean(0)).items():
        y = operator(truth)
        y = y + std * torch.randn(y.shape, generator=noise)
        y = operator(y) if isinstance(operator, Mask) else y
        baseline = obvious(y)
        rows.append(row(name, "baseline", baseline, baseline, truth, real, extractor))
        for solver in (*SOLVERS, *(["replace"] if isinstance(operator, Mask) else [])):
            x = posterior(solver, denoiser, operator, y, std, sampler, options)
            rows.append(row(name, solver, x.mean(1), x[:, 0], truth, real, extractor))
    return rows, about


def posterior(
    solver: str,
    denoiser: Denoiser,
    operator: Operator,
    y: torch.Tensor,
    std: float,
    sampler: DDPM,
    options: argparse.Namespace,
) -> torch.Tensor:
    """(N, 16, C, H, W) samples, without telling the network the class."""
    many = y.repeat_interleave(SAMPLES, 0)
    parts = []
    data = getattr(denoiser, "parameterization", None)
    spread = float(getattr(data, "sigma_data", 1.0))
    size = operator.known.shape[-1] if isinstance(operator, Mask) else operator.rows.shape[1]
    for start in range(0, len(many), 480):
        own, times = many[start : start + 480], None
        if solver == "replace":
            led: Denoiser = Replacement(denoiser, own, operator.known)  # type: ignore[attr-defined]
            times = resampled(sampler.grid(sampler.steps, denoiser.schedule), 5, 10)
        else:
            kind: type[Measured] = SOLVERS[solver]
            led = kind(denoiser, operator, own, std, sigma_data=spread)
        index = torch.arange(start, start + len(own))
        nothing = torch.zeros(len(own), dtype=torch.long)
        cond = Cond(condition={"label": nothing}, keep=nothing > 0)
        out = sampler(led, (1, size, size), cond, options.seed, index=index, times=times)
        parts.append(out.x)
    return torch.cat(parts).unflatten(0, (-1, SAMPLES))


def features(domain: ImageDomain) -> Callable[[Any], np.ndarray]:
    """Pictures to the features that Fréchet distances are measured in."""
    extract = load_extractor("classifier", domain.data.train)

    def found(x: Any) -> np.ndarray:
        pixels = x if isinstance(x, np.ndarray) else to_uint8(x.clamp(-1, 1)).numpy()
        return extract(pixels).values

    return found


def row(
    problem: str,
    solver: str,
    mean: torch.Tensor,
    single: torch.Tensor,
    truth: torch.Tensor,
    real: np.ndarray,
    extractor: Callable[[Any], np.ndarray],
) -> dict[str, Any]:
    """Figures of one way with one problem."""
    return {
        "problem": problem,
        "solver": solver,
        "psnr": psnr(mean, truth),
        "frechet": float(frechet_distance(extractor(single), real)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a minute, and figures of no meaning")
    parser.add_argument("--steps", type=int, help="of training; 3000, with --quick 100")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.steps = options.steps or (100 if options.quick else 3000)
    exact = mixture(options)
    pictures, about = digits(options)
    text = "\n\n".join([
        "# Inverse problems",
        "Analytic mixture of four Gaussians in five dimensions, two noisy measurements: how far "
        "samples are from the exact posterior (mean over its spread, covariance relative, total "
        "variation of the modes' shares).",
        markdown(list(exact[0]), [list(r.values()) for r in exact]),
        f"Digits after {options.steps} steps: mean of {SAMPLES} posterior samples (PSNR, dB) and "
        "single samples (Fréchet distance to the test images). The baseline is one picture.",
        markdown(list(pictures[0]), [list(r.values()) for r in pictures]),
    ])  # fmt: skip
    name = "inverse_quick" if options.quick else "inverse"
    body = {"mixture": exact, "digits": pictures, "training": about}
    path = write_result(name, vars(options), body, text)
    print(text, f"\n\nwrote {path}")


if __name__ == "__main__":
    main()
