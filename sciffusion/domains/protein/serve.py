"""`python -m sciffusion.sample domain=protein`: backbones as PDB or mmCIF files.

Under torchrun every process takes its share of the samples; the result is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

import sciffusion
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.samplers import Sampler
from sciffusion.domains.jobs import digest, team, terminated
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.designs import Designs
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.generate import Generator
from sciffusion.domains.protein.layout import DESIGN
from sciffusion.domains.protein.motif_measures import table_of, told_of
from sciffusion.domains.protein.potentials import asked
from sciffusion.domains.protein.requests import NOISE, Request, Settings
from sciffusion.domains.sampling import world_size

OWN = ("length", "ss", "helix", "strand", "label", "temperature", "rotate", "symmetry", "guide")
"""Settings that a sample depends on; n is none of them."""
SHOWN = (
    *OWN, "guidance", "autoguidance", "from", "noise", "motif", "contigs", "total", "sampler",
    "device", "precision",
)  # fmt: skip
"""What the head of a file tells."""


def serve(
    domain: ProteinDomain,
    denoiser: Denoiser,
    sampler: Sampler,
    config: Mapping[str, Any],
    device: torch.device,
) -> None:
    """Serve the request of a configuration; see configs/request/protein.yaml.

    Raises:
        InputError: settings or files that cannot be used; nothing is drawn then.
    """
    rank, world = world_size()
    console = Console(stderr=True)

    def say(text: str) -> None:
        if rank == 0 and text:
            line = f"sciffusion: {' '.join(text.split())}"
            console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    settings = Settings.of(config)
    generator = Generator(domain, denoiser, sampler, settings, device, config["batch"])
    request = generator.request
    identity = _identity(denoiser, config, request, device)

    def remarks(samples: Sequence[Backbone]) -> list[str]:
        told = [f"sciffusion {sciffusion.__version__}, weights {identity['weights'][:12]}"]
        for sample in samples:
            off = generator.rmsd(sample)
            more = "" if off is None else f": RMSD {off:.3f} A (N, CA, C, O) to {config['from']}"
            told.append(f"seed {settings.seed}, {sample.name}{more}")
            if (graft := generator.grafting(sample)) is not None:
                told.append(f"placed {graft[1]['contig']}: {told_of(graft[0])}")
        return told + [f"{k}: {_shown(identity[k])}" for k in SHOWN if identity.get(k)]

    out = str(config["out"] or "designs/")
    unknown = DESIGN if request.origin is None else "UNK"
    designs = Designs(out, config["format"], remarks, unknown, generator.marks)
    designs.check(generator.blanks(), request.total, config["trajectory"])
    for line in (*request.refused, request.beyond):
        say(line)

    progress = Progress(
        console=console, disable=rank > 0 or not console.is_terminal, transient=True
    )
    with terminated(), team(world) as barrier, progress:
        if rank == 0:
            say(designs.begin(identity, config["resume"]))
        barrier()
        mine = [k for k in range(rank, request.total, world) if not designs.has(k)]
        task = progress.add_task("sampling", total=len(mine))
        try:
            drawn = generator(mine, config["trajectory"], lambda k: progress.advance(task, k))
            for design in drawn:
                graft = generator.grafting(design.backbone)
                note = None if graft is None else graft[1]
                designs.save(design.number, design.backbone, design.frames, note)
        except Exception:
            designs.abandon()
            raise
        except (KeyboardInterrupt, SystemExit):
            say(f"the same command goes on from {designs.folder}")
            raise
        barrier()
        if rank == 0:
            if request.motif is not None:
                say(f"measures of the motif: {designs.tabulate('motif', table_of, request.total)}")
            designs.finish(request.total)
    if rank == 0:
        least, most = min(request.sizes), max(request.sizes)
        sizes = f"{least}" if least == most else f"{least} to {most}"
        count = f"{request.total} backbone{'s' if request.total > 1 else ''}"
        print(f"sciffusion: wrote {out}: {count} of {sizes} residues")


def _identity(
    denoiser: Denoiser, config: Mapping[str, Any], request: Request, device: torch.device
) -> dict[str, Any]:
    """Everything that a sample depends on, but its number; as JSON."""
    low, high = config["guidance"]["low"], config["guidance"]["high"]
    interval = f"{config['guidance']['scale']:g} where {low:g} <= sigma/alpha <= {high:g}"
    found = {
        "version": sciffusion.__version__,
        "weights": digest(denoiser),
        "seed": config["seed"],
        **{name: config[name] for name in OWN},
        "guide": dict(config["guide"]) if asked(config["guide"]) else None,
        "guidance": interval if config["guidance"]["scale"] != 1 else None,
        "autoguidance": _by(config["guidance"]),
        "sampler": config["sampler"],
        "device": device.type,
        "precision": config["precision"],
        "trajectory": config["trajectory"],
        "format": config["format"],
    }
    if (motif := request.motif) is not None:
        found["motif"], found["contigs"] = config["motif"], str(motif.contig)
        found["total"] = "-".join(map(str, dict.fromkeys(motif.total)))
        found["structure"] = hashlib.sha256(motif.kept.tobytes()).hexdigest()[:12]
    if (origin := request.origin) is not None:
        found["from"] = config["from"]
        found["noise"] = NOISE if config["noise"] is None else config["noise"]
        found["structure"] = hashlib.sha256(origin.coords.tobytes()).hexdigest()[:12]
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def _by(guidance: Mapping[str, Any]) -> str | None:
    return None if guidance["by"] is None else f"{guidance['by_scale']:g} from {guidance['by']}"


def _shown(value: Any) -> str:
    """A setting in short: what builds an object as its name with its arguments."""
    if not isinstance(value, dict):
        return str(value)
    own = [f"{k}={_shown(v)}" for k, v in value.items() if k != "_target_"]
    return f"{str(value.get('_target_')).rpartition('.')[2]}({', '.join(own)})"
