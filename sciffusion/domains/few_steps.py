"""Quality against cost: several ways to sample, each measured as `evaluate` does and timed.

Made for a consistency network beside its teacher; it takes any denoisers and samplers of a domain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.samplers import Sampler
from sciffusion.domains.base import Domain
from sciffusion.domains.sampling import check
from sciffusion.metrics.table import Table, format_number

TIMED = 8
"""Samples drawn together to time a way."""


@dataclass(frozen=True)
class Way:
    """A way to sample, measured.

    Attributes:
        name: what it is.
        calls: of the network, a sample.
        seconds: a sample, drawn `TIMED` together.
        table: the domain's measures of it.
    """

    name: str
    calls: int
    seconds: float
    table: Table


def compare(
    domain: Domain,
    ways: Mapping[str, tuple[Denoiser, Sampler]],
    settings: Mapping[str, Any],
    device: torch.device,
    told: Callable[[str], None] = lambda _: None,
) -> list[Way]:
    """Each way measured and timed, with the same settings and seed.

    Args:
        domain: with the data to measure against.
        ways: denoiser and sampler of each, by name.
        settings: of `evaluate`.
        told: is told what is being done.

    Raises:
        InputError: a sampler that cannot draw from its denoiser (before any is measured), or
            settings that cannot be used.
    """
    for denoiser, sampler in ways.values():
        check(sampler, denoiser)
    found = []
    for name, (denoiser, sampler) in ways.items():
        told(name)
        calls, seconds = cost(domain, denoiser, sampler, settings["seed"], device)
        measured = domain.evaluate(denoiser, sampler, settings, device)
        if measured is not None:  # the first of several processes
            found.append(Way(name, calls, seconds, measured.table))
    return found


def cost(
    domain: Domain, denoiser: Denoiser, sampler: Sampler, seed: int, device: torch.device
) -> tuple[int, float]:
    """(network calls, seconds) a sample; one short draw before the clock starts."""
    shape, cond = domain.prior_cond(torch.arange(TIMED), {})
    cond = cond.to(device)
    dtype = next((p.dtype for p in denoiser.parameters()), torch.float32)
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    sampler(denoiser, shape, cond, seed, TIMED, times=ends, dtype=dtype, device=device)
    start = _now(device)
    out = sampler(denoiser, shape, cond, seed, TIMED, dtype=dtype, device=device)
    return out.nfe, (_now(device) - start) / TIMED


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def markdown(ways: Sequence[Way]) -> str:
    """A column a way, a row a measure; speed-ups are against the first way."""
    names = list(dict.fromkeys(row.name for way in ways for row in way.table.rows))
    units = {row.name: row.unit for way in ways for row in way.table.rows}
    floors = {row.name: row.floor for way in ways for row in way.table.rows}

    def cell(way: Way, name: str) -> str:
        return next((format_number(r.value) for r in way.table.rows if r.name == name), "")

    lines = [["", *(way.name for way in ways), "floor"], ["---"] * (len(ways) + 2)]
    lines.append(["network calls", *(str(way.calls) for way in ways), ""])
    lines.append(["ms a sample", *(format_number(1e3 * way.seconds) for way in ways), ""])
    lines.append(["times faster", *(f"{ways[0].seconds / way.seconds:.1f}" for way in ways), ""])
    for name in names:
        floor = "" if floors[name] is None else format_number(floors[name])
        label = f"{name}, {units[name]}" if units[name] else name
        lines.append([label, *(cell(way, name) for way in ways), floor])
    return "\n".join(
        "| " + " | ".join(v.replace("|", r"\|") for v in line) + " |" for line in lines
    )


def to_dict(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Plain values for JSON."""
    return [
        {"name": way.name, "calls": way.calls, "seconds": way.seconds, **way.table.to_dict()}
        for way in ways
    ]
