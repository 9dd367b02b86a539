"""Snapshots of power-function averages, and the average of any length made of them.

RUN/snapshots/step_0000250.safetensors holds the tracked averages of one step: "0/NAME" is parameter
NAME in the first of them, "copied/NAME" what is not averaged. Its metadata say the step, the
lengths, and the trajectory: a fingerprint of the training, so that no two are mixed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.errors import InputError
from sciffusion.io.run import Run, halved, load_checkpoint, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from sciffusion.core.ema import PowerEMA

KIND = "sciffusion snapshot"
"""The one entry of a file's metadata: what it says of itself (several entries have no order)."""
ROUNDING = {"float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
"""Largest relative error of a stored number."""
TOLERANCE = 0.01
"""Error of a made average, relative to how far the weights have walked, above which it is none."""


@dataclass(frozen=True)
class Snapshot:
    """What a file says of itself.

    Attributes:
        lengths: of its averages.
        trajectory: the training that it was taken of.
        dtype: of its averages: float16, float32 or float64.
    """

    path: Path
    step: int
    lengths: tuple[float, ...]
    trajectory: str
    dtype: str


@dataclass(frozen=True)
class Made:
    """An average made of snapshots.

    Attributes:
        tensors: its state, to load into the run's network.
        error: to expect where weights walk at random, relative to how far they have walked.
    """

    tensors: dict[str, Tensor]
    length: float
    step: int
    error: float


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the snapshot of a step lies."""
    return folder / f"step_{step:07d}.safetensors"


def steps_of(folder: Path) -> dict[int, Path]:
    """The snapshots of a folder by step, in order."""
    named = ((re.fullmatch(r"step_(\d+)", p.stem), p) for p in folder.glob("step_*.safetensors"))
    return dict(sorted((int(m[1]), p) for m, p in named if m))


def save_snapshot(
    folder: Path, averages: Sequence[PowerEMA], trajectory: str, half: bool = False
) -> Path:
    """Write the averages as they stand; returns the file.

    Raises:
        InputError: it cannot be written, or numbers are too large for half precision.
    """
    first = averages[0]
    tensors = {f"{k}/{n}": a.shadow[n] for k, a in enumerate(averages) for n in a.averaged}
    path = snapshot_path(folder, first.updates)
    if half:
        tensors = halved(tensors, f"{path} (trainer.snapshots.precision=full holds it)")
    about = {
        "step": first.updates,
        "lengths": [a.length for a in averages],
        "trajectory": trajectory,
        "dtype": str(next(iter(tensors.values())).dtype).removeprefix("torch."),
    }
    tensors |= {f"copied/{n}": v for n, v in first.shadow.items() if n not in first.averaged}
    save_tensors(path, tensors, {KIND: json.dumps(about)})
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable snapshot ({error}): it is truncated or foreign; delete it, "
            "or copy it again"
        ) from error


def _read_header(path: Path) -> Snapshot:
    with _opened(path) as file:
        metadata = file.metadata() or {}
    try:
        about = json.loads(metadata[KIND])
        found = Snapshot(
            path,
            int(about["step"]),
            tuple(float(v) for v in about["lengths"]),
            str(about["trajectory"]),
            about["dtype"],
        )
        ROUNDING[found.dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no snapshot of sciffusion's: delete it") from error
    if path != snapshot_path(path.parent, found.step):
        raise InputError(f"{path} holds step {found.step}: give it back its name, or delete it")
    return found


def snapshots_of(run: Run) -> list[Snapshot]:
    """The snapshots of a run by step; only their headers are read.

    Raises:
        InputError: there are none, one is broken, or they are not all of this run.
    """
    files = steps_of(run.snapshots)
    if not files:
        raise InputError(
            f"{run.path} has no snapshots to make an average of: train with "
            "trainer.snapshots.number=32"
        )
    found = [_read_header(path) for path in files.values()]
    kept = None
    if run.checkpoint.exists():
        kept = load_checkpoint(run.checkpoint).get("profiles", {}).get("trajectory")
    own = kept or Counter(s.trajectory for s in found).most_common(1)[0][0]
    if strangers := [s for s in found if s.trajectory != own]:
        raise InputError(
            f"{strangers[0].path} is of another run ({len(strangers)} of {len(found)} are): "
            "delete what was copied there"
        )
    return found


def _wanted(
    snapshots: Sequence[Snapshot], length: float, step: int
) -> tuple[list[tuple[Snapshot, int, float]], float]:
    """((snapshot, place of the average in it, its weight) of each, expected error)."""
    import torch

    from sciffusion.core.profiles import combine, gamma_of_length

    parts = [(s, k) for s in snapshots for k in range(len(s.lengths))]
    made = combine(
        torch.tensor([float(s.step) for s, _ in parts]),
        torch.tensor([gamma_of_length(s.lengths[k]) for s, k in parts], dtype=torch.float64),
        step,
        gamma_of_length(length),
        max(ROUNDING[s.dtype] for s in snapshots),
    )
    return [(*p, w) for p, w in zip(parts, made.weights.tolist(), strict=True)], made.error


def reach(snapshots: Sequence[Snapshot], step: int) -> tuple[float, float] | None:
    """The shortest and the longest length that these snapshots give at a step, to 10%.

    None where there is none.
    """
    lengths = [0.28 * 0.9**k for k in range(40, -1, -1)]
    found = [v for v in lengths if _wanted(snapshots, v, step)[1] <= TOLERANCE]
    return (found[0], found[-1]) if found else None


def check_length(snapshots: Sequence[Snapshot], length: float, step: int | None = None) -> float:
    """The error to expect of an average of this length at this step (the last one by default).

    Raises:
        InputError: no profile has this length, the step is not covered, or the snapshots are too
            few.
    """
    last = snapshots[-1].step
    step = last if step is None else step
    if not isinstance(step, int) or not 1 <= step <= last:
        raise InputError(f"step={step}: the snapshots go from step {snapshots[0].step} to {last}")
    try:
        error = _wanted(snapshots, length, step)[1]
    except ValueError as wrong:
        raise InputError(f"length={length:g}: {wrong}") from wrong
    if error <= TOLERANCE:
        return error
    within, mend = reach(snapshots, step), ""
    if within is not None:
        least, most = within
        longer = length > least
        mend = f"ask for at {f'most {most - 5e-4:.3f}' if longer else f'least {least + 5e-4:.3f}'}"
        mend += ", or "
    raise InputError(
        f"{len(snapshots)} snapshots are too few for length={length:g} at step {step} (an error of "
        f"{100 * error:.2g}% of the way that the weights went): {mend}train with more "
        "(trainer.snapshots.number)"
    )


def make_average(snapshots: Sequence[Snapshot], length: float, step: int | None = None) -> Made:
    """The power-function average of any length at any step, of the snapshots of one run.

    Args:
        snapshots: as `snapshots_of` gives them; read one after the other.
        length: sigma_rel.
        step: of the training; by default that of the last snapshot.

    Raises:
        InputError: as `check_length`, or a file that is broken or of another network.
    """
    import torch

    error = check_length(snapshots, length, step)
    step = snapshots[-1].step if step is None else step
    weights, _ = _wanted(snapshots, length, step)
    sums: dict[str, Tensor] = {}
    for snapshot in snapshots:
        own = [(k, w) for s, k, w in weights if s is snapshot]
        with _opened(snapshot.path) as file:
            names = {key.partition("/")[2] for key in file.keys() if key[0].isdigit()}  # noqa: SIM118
            if sums and names != sums.keys():
                raise InputError(f"{snapshot.path} is of another network: delete it")
            for name in names:
                for k, weight in own:
                    _add(sums, name, weight, file.get_tensor(f"{k}/{name}"), snapshot.path)
    copied = _copied([s for s in snapshots if s.step <= step] or snapshots[:1])
    broken = [name for name, value in sums.items() if not value.isfinite().all()]
    if broken:
        raise InputError(
            f"weight {broken[0]!r} in {snapshots[0].path.parent} is not finite: the training went "
            "wrong, or a file is broken"
        )
    dtype = torch.float64 if snapshots[0].dtype == "float64" else torch.float32
    return Made({k: v.to(dtype) for k, v in sums.items()} | copied, length, step, error)


def _add(sums: dict[str, Tensor], name: str, weight: float, value: Tensor, path: Path) -> None:
    import torch

    if name not in sums:
        sums[name] = torch.zeros(value.shape, dtype=torch.float64)
    if sums[name].shape != value.shape:
        raise InputError(f"{path} is of another network: {name!r} has another shape; delete it")
    sums[name].add_(value.double(), alpha=weight)


def _copied(snapshots: Sequence[Snapshot]) -> dict[str, Tensor]:
    """What is not averaged, as it was at the last of these."""
    with _opened(snapshots[-1].path) as file:
        keys = [k for k in file.keys() if k.startswith("copied/")]  # noqa: SIM118
        return {k.partition("/")[2]: file.get_tensor(k) for k in keys}


def made_of_run(run: str | Path, length: float, step: int | None = None) -> Made:
    """The average of any length at any step of a run that kept snapshots.

    Raises:
        InputError: as `snapshots_of` and `make_average`.
    """
    return make_average(snapshots_of(Run(Path(run))), length, step)
