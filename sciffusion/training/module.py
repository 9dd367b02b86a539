"""The training step: draw, look, weigh, average over micro-batches and processes, step, average.

Times and noises follow from (seed, step, place in the global batch), so neither the number of
processes, nor the micro-batches, nor a resume changes them. Gradients are summed by hand, which is
why a batch that does not fit can be halved without changing the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from sciffusion.core.denoiser import NetworkDenoiser
from sciffusion.core.ema import EMA, Average, PowerEMA
from sciffusion.core.geometry import full_precision
from sciffusion.core.losses import DenoisingLoss
from sciffusion.core.rng import Rng
from sciffusion.domains.base import Batch, Domain, free_memory, out_of_memory
from sciffusion.domains.jobs import digest
from sciffusion.errors import InputError
from sciffusion.training.optimizers import Rate

Say = Callable[[str], None]


class DiffusionModule(L.LightningModule):
    """Lightning's view of a training.

    Args:
        domain, denoiser, loss: what is trained.
        optimizer: parameters -> optimizer.
        rate: learning rate by step.
        steps: total number of steps.
        batch_size: of the global batch.
        seed: of times, noises, dropped conditions and augmentation.
        drop_condition: share of samples whose condition is dropped (classifier-free guidance).
        clip: largest norm of the gradient; 0 is off.
        ema_decay: of the averaged weights.
        accumulate: micro-batches a step to begin with.
        say: where a line for people goes.
        profiles: lengths of the power-function averages that are tracked beside.
    """

    def __init__(
        self,
        domain: Domain,
        denoiser: NetworkDenoiser,
        loss: DenoisingLoss,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        rate: Rate,
        steps: int,
        batch_size: int,
        seed: int = 0,
        drop_condition: float = 0.1,
        clip: float = 1.0,
        ema_decay: float = 0.999,
        accumulate: int = 1,
        say: Say = print,
        profiles: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.domain, self.denoiser, self.loss = domain, denoiser, loss
        self.make_optimizer, self.rate, self.steps = optimizer, rate, steps
        self.batch_size, self.seed, self.drop_condition = batch_size, seed, drop_condition
        self.clip, self.micro_batches, self.say = clip, accumulate, say
        self.ema = EMA(denoiser.network, ema_decay)
        self.profiles = [PowerEMA(denoiser.network, length) for length in profiles]
        self.trajectory = ""
        """What tells this training's snapshots from another's: its weights after the first step."""
        self.restored_optimizer: dict[str, Any] | None = None
        self.done = 0
        """Steps finished, those before a resume included."""

    @property
    def averages(self) -> list[Average]:
        """All running averages of the weights."""
        return [self.ema, *self.profiles]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.restored_optimizer is not None:
            own = optimizer.state_dict()["param_groups"]  # the configuration's, not the file's
            state = self.restored_optimizer["state"]
            optimizer.load_state_dict({"state": state, "param_groups": own})
        return optimizer

    def on_fit_start(self) -> None:
        for average in self.averages:
            average.shadow = {k: v.to(self.device) for k, v in average.shadow.items()}

    def training_step(self, batch: Batch, _: int) -> dict[str, float | Tensor]:
        optimizer = self.optimizers()
        step = self.done
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step, self.steps)
        loss = self._gradients(batch, step, optimizer)
        loss = self._over_processes(loss)
        parameters = [p for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip or float("inf"))
        optimizer.step()
        for average in self.averages:
            average.update(self.denoiser.network)
        if step == 0 and self.profiles:
            self.trajectory = digest(self.denoiser.network)
        self.done = step + 1
        return {"loss": loss, "grad_norm": norm, "lr": self.rate(step, self.steps)}

    def _gradients(self, batch: Batch, step: int, optimizer: Any) -> Tensor:
        """Gradients of this process's mean loss, micro-batch by micro-batch."""
        size = len(batch["place"])
        while True:
            parts = min(self.micro_batches, size)
            try:
                self._reseed(step)
                optimizer.zero_grad(set_to_none=True)
                total = torch.zeros((), device=self.device)
                for rows in torch.arange(size, device=self.device).chunk(parts):
                    share = self.loss_of({k: v[rows] for k, v in batch.items()}, step).sum() / size
                    # Within autocast, gradients of what ran in full precision would be rounded
                    full_precision(self.manual_backward)(share)
                    total = total + share.detach()
                return total
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if parts >= size:
                    raise InputError(
                        "one sample alone does not fit into memory: choose a smaller network"
                    ) from error
                self.micro_batches = min(2 * parts, size)
            free_memory()
            self.say(
                f"memory: a batch of {-(-size // parts)} does not fit; going on in "
                f"{self.micro_batches} parts of {-(-size // self.micro_batches)}, "
                "with the same result"
            )

    def _reseed(self, step: int) -> None:
        """Dropout, too, follows from (seed, step), so that a resumed training has the same."""
        rng = Rng(self.seed, torch.tensor([self.global_rank]), step)
        torch.manual_seed(int(2**32 * rng.uniform("network")))

    def loss_of(self, batch: Batch, step: int) -> Tensor:
        """(b,) the loss of samples of a global batch; depends on (seed, step, place) only."""
        rng = Rng(self.seed, batch["place"], step, self.batch_size)
        x0, cond = full_precision(self.domain.encode)(batch, rng)
        x0 = x0.to(next(self.denoiser.parameters()).dtype)
        if self.drop_condition > 0 and cond.condition:
            cond = cond.with_keep(rng.uniform("drop") >= self.drop_condition)
        loss: Tensor = self.loss(self.denoiser, x0, cond, rng)
        return loss

    def _over_processes(self, loss: Tensor) -> Tensor:
        """Gradients and loss averaged over processes, in one message."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return loss
        # A batch may leave a part of the network unused; processes must agree on which
        used = [p for p in self.parameters() if p.requires_grad]
        seen = loss.new_tensor([p.grad is not None for p in used])
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
        parts = [g.flatten() for g in grads]
        flat = torch.cat([*parts, seen.to(parts[0].dtype), loss.view(1).to(parts[0].dtype)])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        somewhere = flat[-1 - len(used) : -1].tolist()
        sums = flat[: -1 - len(used)].split([g.numel() for g in grads])
        for p, g, share in zip(used, sums, somewhere, strict=True):
            p.grad = g.view_as(p).clone() if share else None
        return flat[-1]

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs, as plain data."""
        optimizer = self.optimizers()
        state = {
            "step": self.done,
            "weights": self.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": optimizer.optimizer.state_dict(),
            "micro_batches": self.micro_batches,
        }
        if self.profiles:
            tracked = [average.state_dict() for average in self.profiles]
            state["profiles"] = {"trajectory": self.trajectory, "averages": tracked}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Undo `state`.

        Raises:
            InputError: averages are asked for that were not tracked from the first step.
        """
        self.load_state_dict(state["weights"])
        self.ema.load_state_dict(state["ema"])
        self.restored_optimizer = state["optimizer"]
        self.done, self.micro_batches = state["step"], state["micro_batches"]
        if not self.profiles:
            return
        kept = state.get("profiles") or {"trajectory": "", "averages": []}
        if [a["length"] for a in kept["averages"]] != [a.length for a in self.profiles]:
            raise InputError(
                "trainer.snapshots.profiles cannot begin or change on the way (this run is at step "
                f"{self.done}): leave trainer.snapshots as it was, or start a new run"
            )
        self.trajectory = kept["trajectory"]
        for average, stored in zip(self.profiles, kept["averages"], strict=True):
            average.load_state_dict(stored)
