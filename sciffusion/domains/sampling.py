"""Drawing many samples: batches, guidance, progress, and several processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.guidance import AutoGuided, ClassifierFree, Clip, DynamicThreshold
from sciffusion.core.samplers import Sampler, Twisted
from sciffusion.core.steering import NotFiniteError
from sciffusion.domains.base import Domain, load_model
from sciffusion.errors import InputError


class Edit:
    """How a request leads a denoiser, and where its samples begin; this one does neither."""

    def lead(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser to sample from.

        Raises:
            InputError: it cannot be led like this.
        """
        return denoiser

    def begin(
        self, denoiser: Denoiser, sampler: Sampler, cond: Cond, seed: int, index: torch.Tensor
    ) -> dict[str, Any]:
        """`x` and `times` for the sampler, where they are not its own."""
        return {}


def autoguided(
    domain: Domain, denoiser: Denoiser, settings: Mapping[str, Any], device: torch.device
) -> Denoiser:
    """The denoiser beside a weaker one, where `guidance.by` names its run.

    Raises:
        InputError: the run cannot be read, is another domain's, or does not fit.
    """
    guidance = settings.get("guidance") or {}
    if guidance.get("by") is None:
        return denoiser
    by, scale = guidance["by"], guidance["by_scale"]
    other, weak, _ = load_model(by)
    if other.name != domain.name:
        raise InputError(f"guidance.by={by} is a run of domain={other.name}, not {domain.name}")
    for fact in ("size", "channels", "classes"):
        if domain.name == "image" and other.facts().get(fact) != domain.facts().get(fact):
            raise InputError(f"guidance.by={by} was trained on images of another {fact}")
    weak.autocast = getattr(denoiser, "autocast", None)
    try:
        return AutoGuided(
            denoiser, weak.to(device), scale, (guidance["low"], guidance["high"])
        ).eval()
    except (TypeError, ValueError) as error:
        raise InputError(f"guidance.by={by}: {error}") from error


def draw(
    domain: Domain,
    denoiser: Denoiser,
    sampler: Sampler,
    n: int,
    seed: int = 0,
    request: Mapping[str, Any] | None = None,
    guidance: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, float("inf")),
    batch: int = 500,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    processes: tuple[int, int] | None = None,
    edit: Edit | None = None,
    clip: Callable[[Denoiser], Denoiser] | None = None,
) -> Any:
    """n samples of a seed, decoded; under torchrun each process draws its share.

    Sample i is the same whatever the batch size and the number of processes. With several
    processes all of them return the whole.

    Args:
        request: what the domain is asked for, e.g. {"label": 3}.
        guidance: classifier-free scale; 1 is none.
        progress: called with the number of samples finished.
        processes: (rank, number) that share the work; by default those of torchrun.
        edit: of something given; it leads the denoiser once it is guided and clipped.
        clip: makes of the guided denoiser one that clips what it thinks.

    Raises:
        InputError: n or batch under 1, or a sampler that cannot use this denoiser.
    """
    if n < 1 or batch < 1:
        raise InputError(f"n={n} and batch={batch} must be at least 1")
    if guidance != 1:
        try:
            denoiser = ClassifierFree(denoiser, guidance, guidance_interval)
        except ValueError as error:
            raise InputError(str(error)) from error
    edit = edit or Edit()
    denoiser = edit.lead(clip(denoiser) if clip else denoiser)
    check(sampler, denoiser, groups=True)
    rank, world = processes or world_size()
    dtype = next((p.dtype for p in denoiser.parameters()), torch.float32)
    mine = torch.arange(n)[rank::world]
    parts, particles = [], 1
    if isinstance(sampler, Twisted):
        particles = sampler.particles
        if n % particles or world > 1:
            raise InputError(
                f"n={n}: particles={particles} answer together: give a multiple, in one process"
            )
        batch = max(batch // particles, 1) * particles
    for index in mine.split(batch) if len(mine) else ():
        # Particles that answer together are asked the same.
        shape, cond = domain.prior_cond(index // particles, request or {})
        if guidance != 1 and not cond.condition:
            raise InputError(f"guidance={guidance:g}: this model was trained without a condition")
        cond, index = cond.to(device), index.to(device)
        begun = edit.begin(denoiser, sampler, cond, seed, index)
        try:
            out = sampler(
                denoiser, shape, cond, seed, index=index, dtype=dtype, device=device, **begun
            )
        except NotFiniteError as error:
            raise InputError(str(error)) from error
        parts.append(domain.decode(out.x.cpu(), cond))
        if progress is not None:
            progress(len(index) * world)
    if world == 1:
        return domain.join(parts)
    return _gathered(domain, parts, mine, n, world)


def draw_asked(
    domain: Domain,
    denoiser: Denoiser,
    sampler: Sampler,
    settings: Mapping[str, Any],
    device: torch.device,
    request: Mapping[str, Any],
    edit: Edit | None = None,
) -> Any:
    """`draw` as settings ask for it (n, seed, batch, guidance, clip), with a progress bar.

    Raises:
        InputError: settings that cannot be used.
    """
    wrappers: dict[str | None, Callable[[Denoiser], Denoiser] | None] = {
        None: None, "clip": Clip, "dynamic": DynamicThreshold
    }  # fmt: skip
    if settings["clip"] not in wrappers:
        raise InputError(f"clip={settings['clip']} is not known: clip, dynamic or null")
    guidance = settings["guidance"]
    rank, _ = world_size()
    console = Console(stderr=True)
    silent = rank > 0 or not console.is_terminal
    with Progress(console=console, disable=silent, transient=True) as bar:
        task = bar.add_task("sampling", total=settings["n"])
        return draw(
            domain,
            denoiser,
            sampler,
            settings["n"],
            settings["seed"],
            request,
            guidance["scale"],
            (guidance["low"], guidance["high"]),
            settings["batch"],
            device,
            lambda k: bar.advance(task, k),
            edit=edit,
            clip=wrappers[settings["clip"]],
        )


def check(sampler: Sampler, denoiser: Denoiser, groups: bool = False) -> None:
    """Refuse a sampler that cannot draw from this denoiser, before any work is done.

    Args:
        groups: whether samples are drawn in the whole groups that particles need.

    Raises:
        InputError: what it needs is not given, or its grid does not fit the schedule.
    """
    if isinstance(sampler, Twisted) and not groups:
        raise InputError(
            "sampler=twisted serves edits of images; elsewhere use it from Python, around any "
            "denoiser that potentials or a measurement lead"
        )
    try:
        sampler.check(denoiser)
        sampler.grid(sampler.steps, denoiser.schedule)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def world_size() -> tuple[int, int]:
    """(rank, number of processes) under torchrun, (0, 1) otherwise."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _gathered(domain: Domain, parts: list[Any], mine: torch.Tensor, n: int, world: int) -> Any:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    everyone: list[Any] = [None] * world
    dist.all_gather_object(everyone, (mine, domain.join(parts) if parts else None))
    dist.destroy_process_group()
    present = [(index, part) for index, part in everyone if part is not None]
    order = torch.cat([index for index, _ in present]).argsort().numpy()
    return domain.join([part for _, part in present])[order]
