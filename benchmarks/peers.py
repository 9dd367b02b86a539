"""The peers of `image_peers.py`, each built, trained and sampled as its own documentation does it.

A contender is a network of a given shape with `step(x, label)`, one training step on images in
[0, 1], and `sample(label, steps)`, images in [0, 1]; inside `averaged()` with averaged weights.
"""

from __future__ import annotations

import importlib
import math
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sciffusion.core.cond import Cond
from sciffusion.core.samplers import DPMSolverPP, Sampler
from sciffusion.core.times import Karras
from sciffusion.domains.image.data import ImageSet, Splits
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.io.config import compose
from sciffusion.training.fit import make_module


@dataclass(frozen=True)
class Shape:
    """What all networks are built for."""

    size: int
    image_channels: int
    channels: int
    mult: tuple[int, ...]
    blocks: int
    head_channels: int
    classes: int
    batch: int
    steps: int = 100_000
    seed: int = 0
    device: str = "cpu"
    peer_rate: float = 1e-4


class Contender(Protocol):
    """What is measured."""

    about: str
    network: nn.Module

    def step(self, x: Tensor, label: Tensor) -> float:
        """One training step on images in [0, 1]; the loss."""
        ...

    def sample(self, label: Tensor, steps: int) -> Tensor:
        """Images in [0, 1], one a label, in `steps` network calls."""
        ...

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the averaged weights are sampled from."""
        ...

    def forward(self, x: Tensor, label: Tensor) -> Callable[[], Any]:
        """A bare network call."""
        ...


class Ours:
    """Our U-Net, loss, optimizer, clipping and EMA, as `python -m sciffusion.train` runs them."""

    about = "EDM loss, AdamW, clip 1, EMA 0.999 every step; condition dropped in 10 %"

    def __init__(self, shape: Shape, splits: Splits | None = None) -> None:
        mult = ",".join(map(str, shape.mult))
        self.config = compose("train", [
            "domain=image", f"model.channels={shape.channels}", f"model.channel_mult=[{mult}]",
            f"model.blocks={shape.blocks}", f"model.head_channels={shape.head_channels}",
            f"trainer.batch_size={shape.batch}", f"trainer.steps={shape.steps}",
            f"seed={shape.seed}",
        ])  # fmt: skip
        self.domain = ImageDomain(facts={
            "channels": shape.image_channels, "size": shape.size, "sigma_data": 0.5,
            "classes": [str(k) for k in range(shape.classes)],
        })  # fmt: skip
        if splits is not None:
            self.domain.splits = splits
            self.domain._facts = self.domain._measure()
        self.module = make_module(self.domain, self.config).to(shape.device)
        self.module.on_fit_start()
        self.network, self.seed, self.done = self.module.denoiser.network, shape.seed, 0
        self.place = torch.arange(shape.batch, device=shape.device)
        # The whole training step of our engine, without Lightning around it.
        optimizer = self.module.configure_optimizers()
        self.module.optimizers = lambda: optimizer
        self.module.manual_backward = lambda loss: loss.backward()

    def step(self, x: Tensor, label: Tensor) -> float:
        step = torch.full_like(self.place, self.done)
        pixels = (255 * x).round().to(torch.uint8)
        self.done += 1
        batch = {"x": pixels, "label": label, "place": self.place, "step": step}
        return float(self.module.training_step(batch, 0)["loss"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        with self.module.ema.swapped(self.network):
            yield

    def sample(self, label: Tensor, steps: int, sampler: Sampler | None = None) -> Tensor:
        sampler = sampler or DPMSolverPP(steps, Karras())
        shape, _ = self.domain.prior_cond(torch.arange(1), {})
        denoiser, cond = self.module.denoiser.eval(), Cond(condition={"label": label})
        out = sampler(denoiser, shape, cond, self.seed, len(label), device=label.device)
        denoiser.train()
        return (out.x.clamp(-1, 1) + 1) / 2

    def forward(self, x: Tensor, label: Tensor) -> Callable[[], Any]:
        log_snr, cond = torch.zeros(len(x), device=x.device), Cond(condition={"label": label})
        return lambda: self.network(x, log_snr, cond)


class Diffusers:
    """diffusers: UNet2DModel, DDPMScheduler and EMAModel, as its unconditional training example.

    Args:
        form: "default" is the blocks that UNet2DModel has by default; "adm" asks for ADM's
            scale-shift modulation, residual resampling and wide heads, the shape of ours.
    """

    about = (
        "eps loss, linear betas, AdamW 1e-4 betas (.95, .999) cosine rate, clip 1, EMAModel every "
        "step (inv_gamma 1, power .75, foreach); labels given, never dropped"
    )

    def __init__(self, shape: Shape, width: int, form: str = "default") -> None:
        from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
        from diffusers.optimization import get_cosine_schedule_with_warmup
        from diffusers.training_utils import EMAModel

        torch.manual_seed(shape.seed)
        levels = len(shape.mult)
        adm = {
            "resnet_time_scale_shift": "scale_shift",
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "attention_head_dim": shape.head_channels * width // shape.channels,
        }
        self.network = UNet2DModel(
            sample_size=shape.size,
            in_channels=shape.image_channels,
            out_channels=shape.image_channels,
            layers_per_block=shape.blocks,
            block_out_channels=tuple(width * m for m in shape.mult),
            down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * (levels - 1),
            up_block_types=("AttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
            norm_num_groups=math.gcd(32, width),
            num_class_embeds=shape.classes,
            **(adm if form == "adm" else {}),
        ).to(shape.device)
        self.noising = DDPMScheduler(num_train_timesteps=1000)
        self.ddim = DDIMScheduler(num_train_timesteps=1000)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.AdamW(
            parameters, lr=shape.peer_rate, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        self.rate = get_cosine_schedule_with_warmup(self.optimizer, 500, shape.steps)
        self.ema = EMAModel(
            self.network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0,
            power=0.75, foreach=True,
        )  # fmt: skip

    def step(self, x: Tensor, label: Tensor) -> float:
        clean = 2 * x - 1
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (len(x),), device=x.device)
        noisy = self.noising.add_noise(clean, noise, times)
        guess = self.network(noisy, times, class_labels=label, return_dict=False)[0]
        loss = nn.functional.mse_loss(guess, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        return loss.item()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        yield
        self.ema.restore(self.network.parameters())

    @torch.no_grad()
    def sample(self, label: Tensor, steps: int) -> Tensor:
        """The loop of DDIMPipeline, with labels."""
        self.network.eval()
        c = self.network.config
        shape = (len(label), c.in_channels, c.sample_size, c.sample_size)
        x = torch.randn(shape, device=label.device)
        self.ddim.set_timesteps(steps)
        for t in self.ddim.timesteps:
            guess = self.network(x, t, class_labels=label).sample
            x = self.ddim.step(guess, t, x, eta=0.0).prev_sample
        self.network.train()
        return (x / 2 + 0.5).clamp(0, 1)

    def forward(self, x: Tensor, label: Tensor) -> Callable[[], Any]:
        return lambda: self.network(x, 500, class_labels=label).sample


def _lucidrains() -> tuple[Any, Any]:
    """(its class-conditional module, ema_pytorch).

    Its package imports torchvision for reading and saving picture files only. Where that is missing
    or does not fit this PyTorch an empty one takes its place; nothing measured here uses it.
    """
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError):
        for name in [k for k in sys.modules if k.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        stub = types.ModuleType("torchvision")
        for part in ("transforms", "utils"):
            setattr(stub, part, types.ModuleType(f"torchvision.{part}"))
            sys.modules[f"torchvision.{part}"] = getattr(stub, part)
        sys.modules["torchvision"] = stub
    package = importlib.import_module("denoising_diffusion_pytorch.classifier_free_guidance")
    package.tqdm = lambda steps, **_: steps  # drawing its bar is no part of its loop's work
    return package, importlib.import_module("ema_pytorch")


class Lucidrains:
    """denoising-diffusion-pytorch: its class-conditional Unet and GaussianDiffusion."""

    about = (
        "eps loss, cosine betas, Adam 1e-4 betas (.9, .99), clip 1, ema_pytorch 0.995 every 10 "
        "steps (its Trainer's settings); condition dropped in 10 %"
    )

    def __init__(self, shape: Shape, width: int) -> None:
        package, ema = _lucidrains()

        class Unet(package.Unet):
            """At scale 1 the peer returns one tensor where its own loop unpacks two."""

            def forward_with_cond_scale(
                self, *args: Any, cond_scale: float = 1.0, **kw: Any
            ) -> Any:
                out = super().forward_with_cond_scale(*args, cond_scale=cond_scale, **kw)
                return (out, out) if cond_scale == 1 else out

        torch.manual_seed(shape.seed)
        self.network = Unet(
            dim=width, num_classes=shape.classes, cond_drop_prob=0.1, dim_mults=shape.mult,
            channels=shape.image_channels,
        )  # fmt: skip
        self.diffusion = package.GaussianDiffusion(
            self.network, image_size=shape.size, timesteps=1000, sampling_timesteps=20,
            ddim_sampling_eta=0.0,
        ).to(shape.device)  # fmt: skip
        rate, parameters = shape.peer_rate, self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
        self.ema = ema.EMA(self.diffusion, beta=0.995, update_every=10)

    def step(self, x: Tensor, label: Tensor) -> float:
        loss = self.diffusion(x, classes=label)
        value = loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        return value

    @contextmanager
    def averaged(self) -> Iterator[None]:
        own, self.diffusion = self.diffusion, self.ema.ema_model
        yield
        self.diffusion = own

    def sample(self, label: Tensor, steps: int) -> Tensor:
        loop = self.diffusion.eval()
        loop.sampling_timesteps, loop.is_ddim_sampling = steps, True
        x = loop.sample(classes=label, cond_scale=1.0, rescaled_phi=0.0)
        loop.train()
        return x.clamp(0, 1)

    def forward(self, x: Tensor, label: Tensor) -> Callable[[], Any]:
        times = torch.full((len(x),), 500, device=x.device)
        return lambda: self.network(x, times, label, cond_drop_prob=0.0)


PEERS: dict[str, tuple[str, Callable[[Shape, int], Contender]]] = {
    "diffusers, ADM form": ("diffusers", lambda s, w: Diffusers(s, w, "adm")),
    "diffusers, default form": ("diffusers", lambda s, w: Diffusers(s, w)),
    "denoising-diffusion-pytorch": ("denoising_diffusion_pytorch", Lucidrains),
}
"""Name -> (package, width -> contender)."""


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def flops(contender: Contender, shape: Shape) -> int:
    """Multiplications and additions of one image's forward pass, as PyTorch counts them."""
    x = torch.randn(1, shape.image_channels, shape.size, shape.size, device=shape.device)
    label = torch.zeros(1, dtype=torch.long, device=shape.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        contender.forward(x, label)()
    return counter.get_total_flops()


def matched(name: str, shape: Shape, ours: tuple[int, int]) -> tuple[Contender, int] | None:
    """The peer of the width whose parameters and FLOPs lie nearest to ours; None if not installed.

    Nearest by the sum of the squared logarithms of both ratios.
    """
    package, make = PEERS[name]
    with suppress(ImportError):
        if package == "denoising_diffusion_pytorch":
            _lucidrains()
        importlib.import_module(package)
        c, found = shape.channels, []
        for width in range(max(8, c // 2), 2 * c + 1, max(2, c // 16)):
            try:
                contender = make(shape, width)
            except ValueError:  # a width its heads do not divide
                continue
            own = parameters(contender.network), flops(contender, shape)
            found.append((sum(math.log(a / b) ** 2 for a, b in zip(own, ours, strict=True)), width))
        width = min(found)[1]
        return make(shape, width), width
    return None


def random_splits(shape: Shape, n: int = 512) -> Splits:
    """Images of noise, to time on."""
    g = torch.Generator().manual_seed(shape.seed)
    x = torch.randint(0, 256, (n, shape.size, shape.size, shape.image_channels), generator=g)
    label = torch.randint(0, shape.classes, (n,), generator=g).numpy()
    names = [str(k) for k in range(shape.classes)]
    images = ImageSet(x.to(torch.uint8).numpy(), label, names, "noise")
    return Splits(images, images)
