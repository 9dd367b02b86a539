"""Random numbers: Philox as published, normal, independent, and owned by samples, not batches."""

import math

import pytest
import torch

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.rng import Rng, philox
from sciffusion.core.samplers import (
    DDIM,
    DDPM,
    Churn,
    DormandPrince,
    DPMSolverPP,
    Euler,
    Heun,
    PredictorCorrector,
    SDEDPMSolverPP,
)
from sciffusion.core.schedules import EDM, VP
from sciffusion.core.spaces import Euclidean, Harmonic, ZeroCoM

SAMPLERS = {
    "ddpm": lambda: DDPM(6),
    "ddim": lambda: DDIM(6, eta=0.7),
    "ddim 0": lambda: DDIM(6),
    "euler": lambda: Euler(6),
    "heun": lambda: Heun(6),
    "dpmpp": lambda: DPMSolverPP(6, order=3),
    "sde dpmpp": lambda: SDEDPMSolverPP(6),
    "churn": lambda: Churn(6),
    "corrector": lambda: PredictorCorrector(6, corrections=2),
    "dopri": lambda: DormandPrince(),
}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_known_answers(word, expected):
    """Random123's kat_vectors for philox4x32-10."""
    counter = tuple(torch.tensor([word]) for _ in range(4))
    assert [int(w) for w in philox(counter, (word, word))] == list(expected)


def test_philox_known_answer_of_pi():
    counter = tuple(torch.tensor([w]) for w in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344))
    words = philox(counter, (0xA4093822, 0x299F31D0))
    assert [int(w) for w in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_moments_and_tail(dtype):
    z = Rng(5, torch.arange(1000)).normal("x", (401,), dtype=dtype).double().flatten()
    n = len(z)
    assert z.isfinite().all()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        error = (math.prod(range(1, 2 * power, 2)) / n) ** 0.5
        assert abs(float((z**power).mean()) - moment) < 5 * error
    for cut in (1.0, 2.0, 3.0, 4.0):
        p = math.erfc(cut / 2**0.5)
        assert abs(float((z.abs() > cut).double().mean()) - p) < 5 * (p / n) ** 0.5


def test_streams_are_independent():
    """No correlation between seeds, samples, steps, purposes or neighbouring numbers."""
    base = Rng(0, torch.arange(100))
    first = base.normal("a", (500,))
    others = {
        "seed": Rng(1, torch.arange(100)).normal("a", (500,)),
        "high seed": Rng(1 << 32, torch.arange(100)).normal("a", (500,)),
        "sample": Rng(0, torch.arange(100) + 100).normal("a", (500,)),
        "step": base.at(1).normal("a", (500,)),
        "purpose": base.normal("b", (500,)),
        "neighbour": first.roll(1, 1),
        "next sample": first.roll(1, 0),
    }
    for name, other in others.items():
        for f in (lambda v: v, lambda v: v**2 - 1, torch.sign):
            a, b = f(first), f(other)
            correlation = float((a * b).mean() / (a.std() * b.std()))
            assert abs(correlation) < 5 / first.numel() ** 0.5, name


def test_uniform_and_shared():
    rng = Rng(9, torch.arange(20_000))
    u = rng.uniform("t").sort().values
    assert float(u[0]) > 0
    assert float(u[-1]) < 1
    gap = (u - (torch.arange(20_000) + 0.5) / 20_000).abs().max()
    assert float(gap) < 2 / 20_000**0.5  # Kolmogorov-Smirnov, p = 7e-4
    assert rng.uniform("t", shared=True).shape == (1,)
    alone = Rng(9, torch.tensor([77])).uniform("t", shared=True)
    assert torch.equal(alone, rng.uniform("t", shared=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (5, 3), (3, 8, 8), (257,)])
def test_a_sample_has_its_own_numbers(shape, dtype):
    """Bit for bit, alone and in batches of several sizes and orders."""
    alone = Rng(3, torch.tensor([17]), step=4).normal("step", shape, dtype=dtype)[0]
    for index in (torch.arange(64), torch.arange(14, 21), torch.tensor([99, 17, 0])):
        batch = Rng(3, index, step=4).normal("step", shape, dtype=dtype)
        assert torch.equal(batch[int((index == 17).nonzero())], alone)


def chain(n, padded):
    """Laplacian of a path of n points, zero on padding."""
    lap = torch.zeros(padded, padded)
    i = torch.arange(n - 1)
    lap[i, i + 1] = lap[i + 1, i] = -1
    return lap - torch.diag(lap.sum(1))


def points(counts, padded):
    mask = torch.arange(padded)[None] < torch.tensor(counts)[:, None]
    return Cond({"mask": mask, "laplacian": torch.stack([chain(n, padded) for n in counts])})


class Recorder:
    """Keeps the white noise that a sampler draws, sample by sample."""

    def __init__(self, monkeypatch):
        self.draws = []
        plain = Rng.normal

        def normal(rng, purpose, shape, mask=None, dtype=torch.float32):
            z = plain(rng, purpose, shape, mask, dtype)
            self.draws.append((purpose, rng.step, z))
            return z

        monkeypatch.setattr(Rng, "normal", normal)


def pull(x, t, cond):
    """A nonlinear denoiser that treats every sample by itself and keeps padding at zero."""
    x0 = torch.tanh(x)
    if cond.mask is not None:
        w = cond.mask[..., None].to(x)
        x0 = (x0 - (x0 * w).sum(1, keepdim=True) / w.sum(1, keepdim=True)) * w
    return x0


@pytest.mark.parametrize("space", [Euclidean, ZeroCoM, Harmonic])
@pytest.mark.parametrize("schedule", [VP, EDM])
@pytest.mark.parametrize("name", SAMPLERS)
def test_sample_17_of_seed_3(name, schedule, space, monkeypatch):
    """Its numbers are bit-identical alone, in batches of 64 and of 7, and under padding."""
    counts = [3 + i % 5 for i in range(64)]
    size, denoiser = counts[17], FunctionDenoiser(pull, schedule(), space())
    settings = {
        "alone": (torch.tensor([17]), size),
        "padded": (torch.tensor([17]), 11),
        "batch of 64": (torch.arange(64), 7),
        "batch of 7": (torch.arange(15, 22), 9),
    }
    results = {}
    for key, (index, padded) in settings.items():
        recorder = Recorder(monkeypatch)
        cond = points([counts[i] for i in index], padded)
        cond = space().prepare(cond) if space is Harmonic else cond
        out = SAMPLERS[name]()(denoiser, (padded, 3), cond, seed=3, index=index)
        row = int((index == 17).nonzero())
        assert bool((out.x[row, size:] == 0).all() if space is not Harmonic else True)
        results[key] = [(p, s, z[row, :size]) for p, s, z in recorder.draws], out.x[row, :size]
        monkeypatch.undo()
    draws, x = results["alone"]
    for key, (other, y) in results.items():
        assert len(other) == len(draws), key
        for (purpose, step, z), (purpose2, step2, z2) in zip(draws, other, strict=True):
            assert (purpose, step) == (purpose2, step2)
            assert torch.equal(z, z2), (key, purpose, step)
        assert torch.allclose(x, y, atol=2e-4, rtol=1e-4), (key, float((x - y).abs().max()))
    # No two draws of a run are the same numbers.
    flat = torch.stack([z.flatten() for _, _, z in draws])
    assert len(flat.unique(dim=0)) == len(flat)


def test_another_seed_or_sample_is_another_sample():
    denoiser = FunctionDenoiser(lambda x, t, cond: 0.1 * x, VP())
    a = DDPM(5)(denoiser, (2,), n=3, seed=0).x
    assert not torch.equal(a, DDPM(5)(denoiser, (2,), n=3, seed=1).x)
    assert torch.equal(a[1:], DDPM(5)(denoiser, (2,), n=2, seed=0, first=1).x)
