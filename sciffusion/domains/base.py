"""What a domain is: data turned into (x0, cond) and back, and a network that fits them.

A domain names its space, its data and its measures; the engine, the samplers and the entry points
know it only through this class. Adding one adds a folder, a config and a line in `DOMAINS`.
"""

from __future__ import annotations

import gc
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Gives, NetworkDenoiser
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import Sampler
from sciffusion.core.spaces import Euclidean, Space
from sciffusion.errors import InputError
from sciffusion.io.build import build, locate
from sciffusion.io.run import load_into, load_shared, load_tensors

if TYPE_CHECKING:
    from sciffusion.metrics.table import Table
    from sciffusion.viz.report import Report

Batch = dict[str, Tensor]

DOMAINS = {
    "image": "sciffusion.domains.image.domain.ImageDomain",
    "molecule": "sciffusion.domains.molecule.domain.MoleculeDomain",
    "protein": "sciffusion.domains.protein.domain.ProteinDomain",
}
"""The registry: where each domain's class lives; imported only when asked for."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        table: the measures.
        show: adds what the domain has to show to a report.
    """

    table: Table
    show: Callable[[Report], Any] | None = None


class Dataset(Protocol):
    """Training data that can be gathered."""

    def __len__(self) -> int: ...

    def gather(self, indices: Int[Tensor, " b"]) -> Batch:
        """A batch of these records."""
        ...


class Domain(ABC):
    """The base of all domains.

    A domain is made either from data (to train) or from its `facts` alone (to sample).
    """

    name: ClassVar[str]
    space: Space = Euclidean()
    spaces: ClassVar[tuple[type[Space], ...]] = (Euclidean,)
    """Spaces that fit its data."""
    shown: ClassVar[int] = 100
    """Samples in a report's picture."""
    level: ClassVar[float | None] = None
    """Width of a level of discrete data as `encode` scales them; None where data are continuous."""
    headline: ClassVar[str] = ""
    """The measure by which trainings are compared: the name of a row of `evaluate`'s table."""
    quick: ClassVar[Mapping[str, Any]] = {}
    """Settings of `evaluate` that leave out what takes long beside that row."""

    splits: Any = None
    _facts: dict[str, Any]

    @property
    def data(self) -> Any:
        """What to train on and what to measure against.

        Raises:
            InputError: the domain was made to sample only.
        """
        if self.splits is None:
            raise InputError("this needs the training data: give the run's data again")
        return self.splits

    def facts(self) -> dict[str, Any]:
        """Plain JSON that rebuilds the domain without its data: sizes, classes, sigma_data."""
        return self._facts

    @abstractmethod
    def network(self, model: Mapping[str, Any], learned_variance: bool) -> nn.Module:
        """The network of a model config, fitted to the data's sizes."""

    @abstractmethod
    def train_set(self) -> Dataset:
        """The records to train on."""

    def held_out(self) -> Dataset:
        """The records to measure against.

        Raises:
            InputError: the domain has none.
        """
        raise InputError(f"domain={self.name} holds no records out")

    def continuous(self, batch: Batch, rng: Rng) -> tuple[Float[Tensor, "b ..."], Cond]:
        """(x0, cond) of a batch for its likelihood: discrete data are dequantised."""
        return self.encode(batch, None)

    @abstractmethod
    def encode(self, batch: Batch, rng: Rng | None) -> tuple[Float[Tensor, "b ..."], Cond]:
        """(x0, cond) of a batch; augmented where there are random numbers."""

    @abstractmethod
    def prior_cond(
        self, index: Int[Tensor, " n"], request: Mapping[str, Any]
    ) -> tuple[tuple[int, ...], Cond]:
        """(shape of one sample, conditioning) of samples number `index` of a request."""

    @abstractmethod
    def decode(self, x0: Float[Tensor, "n ..."], cond: Cond) -> Any:
        """The domain's own objects."""

    @abstractmethod
    def join(self, parts: Sequence[Any]) -> Any:
        """Decoded batches put together."""

    @abstractmethod
    def preview(self, samples: Any) -> Any:
        """A PIL picture of some samples."""

    @abstractmethod
    def serve(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        """What `sample` does: draw what `configs/request/NAME.yaml` asks for, write it, say so."""

    @abstractmethod
    def evaluate(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> Evaluation | None:
        """What `evaluate` does: samples measured against the data.

        None where this is not the first of several processes.
        """


def build_denoiser(domain: Domain, config: Mapping[str, Any]) -> NetworkDenoiser:
    """The denoiser of a run's configuration, with fresh weights."""
    learned = bool(config.get("learned_variance", False))
    node = dict(config["parameterization"])
    if "sigma_data" in node and node["sigma_data"] is None:
        node["sigma_data"] = domain.facts()["sigma_data"]
    network = domain.network(config["model"], learned)
    space = build(config["space"]) if config.get("space") else domain.space
    if type(space) not in domain.spaces:
        fit = ", ".join(s.__name__ for s in domain.spaces)
        raise InputError(f"space={type(space).__name__} does not fit domain={domain.name}: {fit}")
    try:
        return NetworkDenoiser(
            network,
            build(config["schedule"]),
            build(node),
            space,
            learned,
            what_it_gives(config),
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(error)) from error


def what_it_gives(config: Mapping[str, Any]) -> Gives:
    """Posterior means, a velocity (coupled noise) or jumps: what the loss of a run trains."""
    loss = config.get("loss") or {}
    if "_target_" not in loss:
        found: Gives = config.get("gives", "mean")
        return found
    if loss.get("coupling"):
        return "velocity"
    return getattr(locate(str(loss["_target_"])), "gives", "mean")


def domain_class(name: str) -> type[Domain]:
    """The class of a domain.

    Raises:
        InputError: there is none of this name.
    """
    if name not in DOMAINS:
        raise InputError(f"unknown domain {name!r}; known: {', '.join(sorted(DOMAINS))}")
    module, _, cls = DOMAINS[name].rpartition(".")
    found: type[Domain] = getattr(importlib.import_module(module), cls)
    return found


def load_model(path: str | Path) -> tuple[Domain, NetworkDenoiser, dict[str, Any]]:
    """(domain, denoiser, config) of a run or of a shared .safetensors file, ready to sample.

    Raises:
        InputError: the files cannot be used; the line says which and why.
    """
    config = load_shared(path)
    tensors = load_tensors(path)
    try:
        domain: Domain = domain_class(config["domain"])(facts=config["facts"])  # type: ignore[call-arg]
        denoiser = build_denoiser(domain, config)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"config.json of {path} is garbled ({error}): copy it again") from error
    load_into(denoiser.network, tensors, str(path))
    return domain, denoiser.eval(), config


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a batch was too large."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def free_memory() -> None:
    """Give back what a batch that was too large has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """What networks sample in, for `NetworkDenoiser.autocast`; None is their weights' precision.

    Args:
        name: auto (bfloat16 on a GPU), 32-true or bf16-mixed.

    Raises:
        InputError: another name.
    """
    if name not in ("auto", "32-true", "bf16-mixed"):
        raise InputError(f"precision={name} is not known: auto, 32-true or bf16-mixed")
    half = name == "bf16-mixed" or (name == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else None


def choose_device(name: str = "auto") -> torch.device:
    """This process's GPU where there is one.

    Raises:
        InputError: a device that PyTorch does not know or this machine has not.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        process = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device("cuda", process % torch.cuda.device_count())
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name} cannot be used: {str(error).splitlines()[0]}") from error
