"""A run is a directory; everything that reads one takes its path.

config.yaml       the resolved configuration
metrics.csv       the log; tensorboard/ holds the same
last.ckpt         for exact resume: plain tensors and numbers
model.safetensors, config.json      EMA weights and how to build them, for sharing
snapshots/        power-function averages on the way, for post-hoc EMA
samples/, report.html, metrics.json; ema/ what `ema` found
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError

if TYPE_CHECKING:  # imported where it is used, so that --help and a wrong word answer at once
    from torch import Tensor, nn

FORMAT = 1
SHARED = {
    "domain": str,
    "facts": dict,
    "model": dict,
    "schedule": dict,
    "parameterization": dict,
    "sampler": dict,
    "seed": int,
}
"""What config.json must hold."""


@dataclass(frozen=True)
class Run:
    """Where the parts of a run lie."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        """For exact resume."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The log."""
        return self.path / "metrics.csv"

    @property
    def weights(self) -> Path:
        """EMA weights."""
        return self.path / "model.safetensors"

    @property
    def snapshots(self) -> Path:
        """Power-function averages on the way, where they were asked for."""
        return self.path / "snapshots"

    @property
    def samples(self) -> Path:
        """Pictures and samples."""
        return self.path / "samples"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    def make(self) -> Run:
        """The directory, made.

        Raises:
            InputError: the path is a file or may not be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the directory {self.path}: {error.strerror}; choose another path"
            ) from error
        if not os.access(self.path, os.W_OK):
            raise InputError(f"cannot write to {self.path}: choose a place you may write to")
        return self


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Plain data and tensors, whole or not at all."""
    import torch

    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # PyTorch's writer turns a full disk into one of these
            raise InputError(f"cannot write {path}: {error}; make room there") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing but plain data is ever unpickled.

    Raises:
        InputError: missing, truncated, or not one of ours.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give the directory of a run") from None
    except Exception as error:
        raise InputError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): it is truncated or was "
            "not made by sciffusion; restore it, or delete it to start the run again"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path} was not made by this version of sciffusion: start a new run")
    return state


def save_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A .safetensors file, whole or not at all."""
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def halved(state: dict[str, Tensor], of: str) -> dict[str, Tensor]:
    """Numbers in half precision.

    Args:
        of: whose they are, for the error.

    Raises:
        InputError: one is too large.
    """
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    if broken := [k for k, v in half.items() if not v.isfinite().all()]:
        raise InputError(f"weight {broken[0]!r} of {of} is too large for half precision")
    return half


def save_weights(
    folder: Path,
    state: dict[str, Tensor],
    config: dict[str, Any],
    name: str = "model.safetensors",
) -> None:
    """Weights, and the config.json beside them that says how to build their network."""
    save_tensors(folder / name, state, {"format": "sciffusion"})
    with atomic_path(folder / "config.json") as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, **config}, indent=1))


def weights_path(path: str | Path) -> Path:
    """The weights of a run's directory, or of a .safetensors file: itself."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / "model.safetensors"


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """The weights of a run's directory or of a .safetensors file.

    Raises:
        InputError: missing, truncated or foreign.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    weights = weights_path(path)
    if not weights.exists():
        raise InputError(
            f"there are no weights in {path} (no {weights.name}): give a run that was trained"
        )
    try:
        return load(weights.read_bytes())
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{weights} is not a readable safetensors file ({error}): it is truncated or foreign; "
            "copy or train it again"
        ) from error


def load_shared(path: str | Path) -> dict[str, Any]:
    """The config.json beside the weights of `load_tensors`.

    Raises:
        InputError: missing, garbled or foreign.
    """
    weights = weights_path(path)
    file = weights.with_name("config.json")
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        if not weights.exists():
            raise InputError(f"{path} is no trained run: it has no {weights.name}") from None
        raise InputError(f"{file} is missing: copy it beside {weights.name}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is not readable JSON ({error}): copy it again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{file} was not made by this version of sciffusion")
    for key, kind in SHARED.items():
        if not isinstance(config.get(key), kind):
            raise InputError(f"{file} has no valid {key!r}: copy it again")
    return config


def load_into(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Weights into a network.

    Raises:
        InputError: names or shapes differ; the line names one.
    """
    own = module.state_dict()
    missing, extra = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    if missing or extra:
        name = sorted(missing or extra)[0]
        verb = "lacks" if missing else "has an unknown"
        raise InputError(f"{where} {verb} weight {name!r}: it belongs to another network")
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise InputError(
                f"{where}: weight {name!r} has shape {tuple(tensors[name].shape)}, the network "
                f"needs {tuple(value.shape)}"
            )
    module.load_state_dict(tensors)
