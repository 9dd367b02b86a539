"""From a request to backbones: batches of like lengths, symmetry, partial diffusion, trajectories.

Sample i of a seed has random numbers of its own, so it is the same in any batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, WEAK, Denoiser, State
from sciffusion.core.geometry import random_rotations
from sciffusion.core.guidance import ClassifierFree
from sciffusion.core.projection import Projected
from sciffusion.core.samplers import Sampler, Samples
from sciffusion.core.steering import NotFiniteError
from sciffusion.domains.base import free_memory, out_of_memory
from sciffusion.domains.protein.apart import parted
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.data import places
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.graft import closed, scaffolded
from sciffusion.domains.protein.motif_measures import Grafting, grafting, laid_on_motif, note_of
from sciffusion.domains.protein.partial import laid_on, noised, rest_of_way, rmsd, time_of
from sciffusion.domains.protein.potentials import led
from sciffusion.domains.protein.requests import NOISE, Request, Settings
from sciffusion.domains.protein.symmetry import Symmetrised, point_group
from sciffusion.domains.sampling import check
from sciffusion.errors import InputError
from sciffusion.nn.embeddings import LabelEmbedding

TOGETHER = {"cpu": 1024, "cuda": 16384}
"""Residues that it pays to draw together, by kind of device."""
LONG = 128
"""Beyond this many residues pairs are what memory goes to: a chain counts more than its length."""


@dataclass(frozen=True)
class Design:
    """A sample.

    Attributes:
        number: of the sample.
        frames: the way to it, where it was asked for.
    """

    number: int
    backbone: Backbone
    frames: list[Backbone] = field(default_factory=list)


class Generator:
    """Draws what a request asks for.

    Args:
        together: residues of a batch; by default what suits the device.

    Raises:
        InputError: settings that make no sense, alone or with this network and sampler.
    """

    def __init__(
        self,
        domain: ProteinDomain,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Settings,
        device: torch.device | str = "cpu",
        together: int | None = None,
    ) -> None:
        whole = isinstance(together, int) and not isinstance(together, bool)
        if together is not None and not (whole and together >= 1):
            raise InputError(f"batch={together} must be a whole number of residues, at least 1")
        group = None if settings.symmetry is None else point_group(str(settings.symmetry))
        self.request = Request(settings, domain.facts(), 1 if group is None else len(group))
        _check_label(denoiser, settings.label)
        self.domain, self.settings, self.device = domain, settings, torch.device(device)
        self.together = together or TOGETHER.get(self.device.type, TOGETHER["cpu"])
        self.sampler = warmed(sampler, settings.temperature)
        self.dtype = next((p.dtype for p in denoiser.parameters()), torch.float32)
        try:
            if settings.guidance != 1:
                denoiser = ClassifierFree(denoiser, settings.guidance, settings.guidance_interval)
            denoiser = led(denoiser, settings.guide, self.request.chains)
            self.denoiser = denoiser if group is None else Symmetrised(denoiser, group)
            if self.request.motif is not None:
                self.denoiser = scaffolded(denoiser)
            elif settings.apart:
                jumps = denoiser.gives == "jump"
                self.denoiser = (closed if jumps else parted)(self.denoiser)
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error
        check(self.sampler, self.denoiser)
        self.symmetric, self.time = group is not None, None
        if self.request.origin is not None:
            noise = NOISE if settings.noise is None else settings.noise
            self.time = time_of(noise, self.denoiser.schedule)

    def blanks(self) -> list[Backbone]:
        """The kinds of samples before they are drawn: their chains, with coordinates of zero."""
        if (origin := self.request.origin) is not None:
            return [replace(origin, coords=np.zeros_like(origin.coords))]
        if (motif := self.request.motif) is not None:
            every = [motif.blank(p) for p in self.request.placements]
            return list({(b.sequence, *b.chain.tolist()): b for b in every}.values())
        kinds = dict.fromkeys(self.request.chains)
        return [Backbone.of(np.zeros((sum(k), 4, 3)), lengths=k, name="design") for k in kinds]

    def __call__(
        self,
        numbers: Sequence[int],
        trajectory: bool = False,
        tick: Callable[[float], None] | None = None,
    ) -> Iterator[Design]:
        """These samples, in no order; `tick` is told of progress, in samples.

        Raises:
            InputError: one that does not fit into memory alone.
        """
        sizes = [self.request.sizes[k] for k in numbers]
        waiting = [[numbers[k] for k in rows] for rows in self._batches(sizes)][::-1]
        while waiting:
            batch = waiting.pop()
            try:
                found = self._draw(batch, trajectory, tick)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise InputError(
                        f"a sample of {self.request.sizes[batch[0]]} residues does not fit into "
                        "memory: ask for a shorter one"
                    ) from error
                waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
                free_memory()
                continue
            yield from found

    def _batches(self, sizes: Sequence[int]) -> list[list[int]]:
        """Positions of like sizes; the copies of a symmetry must not be padded."""
        found: list[list[int]] = []
        for k in sorted(range(len(sizes)), key=lambda k: (sizes[k], k)):
            cost = sizes[k] * max(1.0, sizes[k] / LONG)
            other = found and self.symmetric and sizes[found[-1][-1]] != sizes[k]
            if not found or other or (len(found[-1]) + 1) * cost > self.together:
                found.append([])
            found[-1].append(k)
        return found

    def _draw(
        self, numbers: Sequence[int], trajectory: bool, tick: Callable[[float], None] | None
    ) -> list[Design]:
        index = torch.tensor(numbers)
        shape, cond = self.domain.prior_cond(index, self.request.prior)
        if self.symmetric:
            shape, cond = _unpadded(shape, cond, self.request.sizes[numbers[0]])
        x, times = None, None
        schedule = self.denoiser.schedule
        if (origin := self.request.origin) is not None and self.time is not None:
            place = torch.zeros(shape[0], dtype=torch.int64)
            place[: len(origin)] = torch.from_numpy(places(origin))
            cond = cond.with_structure(residue=place.expand(len(numbers), -1))
            x0 = torch.zeros(len(numbers), *shape, dtype=torch.float64)
            x0[:, : len(origin)] = torch.from_numpy(origin.coords - origin.coords.mean((0, 1)))
            cond, x0 = cond.to(self.device), x0.to(self.device, self.dtype)
            x = noised(x0, self.time, self.denoiser, cond, self.settings.seed, index)
            times = rest_of_way(self.time, self.sampler, schedule)
        if self.request.motif is not None:
            cond = self.request.motif.known(cond, [self.request.placements[k] for k in numbers])
        steps = len(self.sampler.grid(self.sampler.steps, schedule) if times is None else times) - 1
        out = self._sampled(
            shape,
            cond.to(self.device),
            self.settings.seed,
            index=index,
            x=x,
            times=times,
            after_step=self._after_step,
            callback=None if tick is None else lambda *_: tick(len(numbers) / steps),
            trajectory=trajectory,
            dtype=self.dtype,
            device=self.device,
        )
        found = self._named(out.x, cond, numbers)
        frames: list[list[Backbone]] = [[] for _ in numbers]
        for t, moment in zip(out.times, out.trajectory, strict=False):
            moments = self._named(self._sized(moment, t), cond, numbers)
            for frame, sample in zip(frames, moments, strict=True):
                frame.append(sample)
        return [Design(*row) for row in zip(numbers, found, frames, strict=True)]

    def _sampled(self, *arguments: Any, **settings: Any) -> Samples:
        """What the sampler gives.

        Raises:
            InputError: a potential that is not a number.
        """
        try:
            return self.sampler(self.denoiser, *arguments, **settings)
        except NotFiniteError as error:
            raise InputError(str(error)) from error

    def _after_step(self, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State) -> Tensor:
        x = turned(x, t, s, cond, state) if self.settings.rotate else x
        settle = isinstance(self.denoiser, Projected)
        return self.denoiser.settle(x, t, s, cond, state) if settle else x

    def _sized(self, x: Tensor, t: Tensor) -> Tensor:
        """A noisy sample scaled to the size of the data, for people to look at."""
        schedule, std = self.denoiser.schedule, self.domain.facts()["sigma_data"]
        size = (schedule.alpha(t) ** 2 * std**2 + schedule.sigma(t) ** 2).sqrt()
        return x * float(std / size)

    def _named(self, x: Tensor, cond: Cond, numbers: Sequence[int]) -> list[Backbone]:
        found = self.domain.decode(x.cpu(), cond)
        origin = self.request.origin
        if (motif := self.request.motif) is not None:
            placed = [self.request.placements[k] for k in numbers]
            return [
                replace(
                    motif.blank(p),
                    coords=laid_on_motif(b.coords, motif, p),
                    name=f"design_{k:05d}",
                )
                for b, p, k in zip(found, placed, numbers, strict=True)
            ]
        if origin is None:
            return [replace(b, name=f"design_{k:05d}") for b, k in zip(found, numbers, strict=True)]
        return [
            replace(origin, coords=laid_on(b, origin), name=f"design_{k:05d}")
            for b, k in zip(found, numbers, strict=True)
        ]

    def rmsd(self, sample: Backbone) -> float | None:
        """To the structure that is varied, in Angstrom; None where there is none."""
        return None if self.request.origin is None else rmsd(sample, self.request.origin)

    def grafting(self, sample: Backbone) -> tuple[Grafting, dict[str, Any]] | None:
        """How a sample holds its motif, and all of it as JSON; None where there is none."""
        if (motif := self.request.motif) is None:
            return None
        placement = self.request.placements[number_of(sample)]
        found = grafting(sample, motif, placement)
        return found, note_of(sample, motif, placement, found)

    def marks(self, sample: Backbone) -> Float[np.ndarray, " l"] | None:
        """1 for residues of the motif, 0 for new ones, as RFdiffusion's B-factors; None without."""
        if self.request.motif is None:
            return None
        return (self.request.placements[number_of(sample)].group > 0).astype(np.float64)


def number_of(sample: Backbone) -> int:
    """Of a sample, from its name."""
    return int(sample.name.removeprefix("design_"))


def warmed(sampler: Sampler, temperature: float | None) -> Sampler:
    """The sampler with `noise_scale` times the temperature.

    Raises:
        InputError: it has no `noise_scale`.
    """
    if temperature is None:
        return sampler
    if not hasattr(sampler, "noise_scale"):
        raise InputError(
            f"temperature={temperature:g}: {type(sampler).__name__} stirs in no noise that could "
            "be scaled; choose sampler=sde_backbone, churn or alphafold3"
        )
    other = copy.copy(sampler)
    other.noise_scale = temperature * sampler.noise_scale
    return other


def turned(x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State) -> Tensor:
    """A step's result turned at random, and with it what network and sampler remember (AlphaFold 3,
    alg. 18)."""
    rotation = random_rotations(state.rng, "turn", x.dtype).mT[:, None]
    for memory in (state.memory, state.memory.get(WEAK, {})):
        if (before := memory.get(PREVIOUS)) is not None:  # guidance has two for each sample
            memory[PREVIOUS] = before @ rotation.repeat(len(before) // len(x), 1, 1, 1)
    state.history[:] = [(t, seen.mapped(lambda v: v @ rotation)) for t, seen in state.history]
    return x @ rotation


def _unpadded(shape: tuple[int, ...], cond: Cond, size: int) -> tuple[tuple[int, ...], Cond]:
    def cut(v: Tensor) -> Tensor:
        return v[:, :size]

    told = {k: cut(v) if k == "secondary" else v for k, v in cond.condition.items()}
    return (size, *shape[1:]), Cond({k: cut(v) for k, v in cond.structure.items()}, told)


def _check_label(denoiser: Denoiser, label: int | str | None) -> None:
    known = next((m for m in denoiser.modules() if isinstance(m, LabelEmbedding)), None)
    if label is None or (known is not None and int(label) < known.null):
        return
    if known is None:
        raise InputError(f"label={label}: this network was trained without classes; leave it out")
    raise InputError(f"label={label}: this network knows the classes 0 to {known.null - 1}")
