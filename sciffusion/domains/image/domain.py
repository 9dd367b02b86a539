"""The image domain: pictures (B, C, H, W) in [-1, 1], conditioned on their class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn

from sciffusion.atomic import atomic_path
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.discrete import PIXEL, dequantised
from sciffusion.core.guidance import AutoGuided
from sciffusion.core.losses import measure_sigma_data
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import Sampler
from sciffusion.domains.base import Batch, Domain, Evaluation
from sciffusion.domains.image.data import (
    ImageDataset,
    ImageSource,
    augment,
    to_model,
    to_uint8,
)
from sciffusion.domains.image.edit import ImageEdit
from sciffusion.domains.sampling import draw_asked, world_size
from sciffusion.errors import InputError, at_least
from sciffusion.io.build import build
from sciffusion.io.run import Run
from sciffusion.metrics.table import Table
from sciffusion.viz.grid import image_grid, save_grid


@dataclass(frozen=True)
class ImageSamples:
    """Pictures.

    Attributes:
        x: (N, H, W, C) uint8.
        label: (N,) the class that was asked for, -1 where none was.
        classes: their names, where there are any.
    """

    x: UInt8[np.ndarray, "n h w c"]
    label: Int[np.ndarray, " n"]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> ImageSamples:
        return ImageSamples(self.x[index], self.label[index], self.classes)

    @property
    def images(self) -> list[Image.Image]:
        """PIL pictures."""
        return [Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in self.x]


class ImageDomain(Domain):
    """Images.

    Args:
        data: config of a source in `domains.image.data`, with `augment`; None to sample only.
        facts: what `facts()` said when the run was trained; None to read it off the data.
    """

    name = "image"
    level = PIXEL
    headline = "Frechet distance"
    quick: ClassVar[Mapping[str, Any]] = {"bits_images": 0}

    def __init__(
        self, data: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        self.augment: dict[str, Any] = {}
        if data is not None:
            node = dict(data)
            self.augment = dict(node.pop("augment", {}))
            source: ImageSource = build(node)
            self.splits = source.load()
        self._facts = dict(facts) if facts is not None else self._measure()
        shift, size = self.augment.get("shift", 0), self._facts["size"]
        if not 0 <= shift < size:
            raise InputError(f"data.augment.shift={shift} must be at least 0 and less than {size}")

    def _measure(self) -> dict[str, Any]:
        train = self.data.train
        _, height, width, channels = train.x.shape
        if height != width:
            raise InputError(
                f"{train.name}: images are {height} x {width}; the U-Net takes squares, "
                "pass data.size=N"
            )
        return {
            "channels": channels,
            "size": height,
            "classes": train.classes,
            "sigma_data": measure_sigma_data(map(to_model, torch.from_numpy(train.x).split(1000))),
        }

    def network(self, model: Mapping[str, Any], learned_variance: bool) -> nn.Module:
        f = self._facts
        return build(
            model,
            in_channels=f["channels"],
            out_channels=2 * f["channels"] if learned_variance else f["channels"],
            image_size=f["size"],
            num_classes=len(f["classes"]) if f["classes"] else None,
        )

    def train_set(self) -> ImageDataset:
        return ImageDataset(self.data.train)

    def held_out(self) -> ImageDataset:
        return ImageDataset(self.data.test)

    def continuous(self, batch: Batch, rng: Rng) -> tuple[Float[Tensor, "b c h w"], Cond]:
        x0, cond = self.encode(batch, None)
        return dequantised(x0, rng, PIXEL), cond

    def encode(self, batch: Batch, rng: Rng | None) -> tuple[Float[Tensor, "b c h w"], Cond]:
        x = batch["x"]
        if rng is not None and any(self.augment.values()):
            x = augment(x, rng.uniform("augment", (3,)), **self.augment)
        condition = {"label": batch["label"]} if "label" in batch else {}
        return to_model(x), Cond(condition=condition)

    def prior_cond(
        self, index: Int[Tensor, " n"], request: Mapping[str, Any]
    ) -> tuple[tuple[int, ...], Cond]:
        """Labels: the one asked for (number or name), else every class in turn."""
        f = self._facts
        shape = (f["channels"], f["size"], f["size"])
        label = request.get("label")
        if not f["classes"]:
            if label is not None:
                raise InputError(f"label={label}: this model was trained without classes")
            return shape, Cond()
        if label is None:
            return shape, Cond(condition={"label": index % len(f["classes"])})
        return shape, Cond(condition={"label": torch.full_like(index, self._class(label))})

    def _class(self, label: Any) -> int:
        names = list(self._facts["classes"])
        if str(label) in names:
            return names.index(str(label))
        if str(label).isdecimal() and int(label) < len(names):
            return int(label)
        raise InputError(
            f"label={label} is no class of this model; its classes: {', '.join(names)}"
        )

    def decode(self, x0: Float[Tensor, "n c h w"], cond: Cond) -> ImageSamples:
        label = cond.condition.get("label", torch.full((len(x0),), -1))
        return ImageSamples(
            to_uint8(x0).numpy(), label.cpu().numpy(), tuple(self._facts["classes"] or ())
        )

    def join(self, parts: Sequence[ImageSamples]) -> ImageSamples:
        return ImageSamples(
            np.concatenate([p.x for p in parts]),
            np.concatenate([p.label for p in parts]),
            parts[0].classes,
        )

    def preview(self, samples: ImageSamples, most: int = 100) -> Image.Image:
        """A grid, with a row a class where the classes come in turn."""
        classes, x, label = samples.classes, samples.x, samples.label
        k = len(classes)
        if 1 < k <= 20 and len(x) >= k and len(set(label[:k].tolist())) == k:
            columns = max(1, min(len(x) // k, most // k))
            rows = [np.flatnonzero(label == c)[:columns] for c in range(k)]
            if all(len(r) == columns for r in rows):
                return image_grid(x[np.concatenate(rows)], columns, list(classes))
        shown = x[:most]
        return image_grid(shown, math.ceil(math.sqrt(len(shown))))

    def serve(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        """OUT/samples.npz and OUT/grid.png."""
        source = Path(settings["run"])
        home = source.parent if source.suffix == ".safetensors" else source
        out = Run(Path(settings["out"] or home / "samples")).make().path
        request = {"label": settings["label"]}
        edit = ImageEdit.of(settings, self._facts)
        samples = draw_asked(self, denoiser, sampler, settings, device, request, edit)
        if world_size()[0] > 0:
            return
        with atomic_path(out / "samples.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, x=samples.x, label=samples.label)
        save_grid(out / "grid.png", self.preview(samples))
        print(f"sciffusion: wrote {out / 'samples.npz'} and {out / 'grid.png'}")

    def evaluate(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        settings: Mapping[str, Any],
        device: torch.device,
    ) -> Evaluation | None:
        from sciffusion.domains.image.bits import bits_row
        from sciffusion.domains.image.metrics import evaluate_images

        at_least(settings, bits_images=0, bits_steps=1, seed=0)
        train, test = self.data
        request = {"label": settings["label"]}
        samples = draw_asked(self, denoiser, sampler, settings, device, request)
        if world_size()[0] > 0:
            return None
        label = samples.label if samples.classes else None
        table = evaluate_images(
            samples.x, label, train, test, settings["extractor"], settings["seed"]
        )
        if settings["bits_images"] and denoiser.gives != "jump":  # no posterior mean, no bound
            # Guidance sharpens what the network thinks; its bound is that of the network alone.
            alone = denoiser.inner if isinstance(denoiser, AutoGuided) else denoiser
            table = Table(table.title, [*table.rows, bits_row(alone, self, settings)])
        return Evaluation(table)
