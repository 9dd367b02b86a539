"""What happens beside the training step: logging, checkpoints, signals, pictures, progress."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError
from sciffusion.io.config import to_yaml
from sciffusion.io.run import FORMAT, Run, save_checkpoint, save_weights
from sciffusion.training.logs import Log
from sciffusion.training.module import DiffusionModule
from sciffusion.viz.grid import save_grid


def _agreed(value: bool) -> bool:
    """True on all processes where it is on any: they must save and stop at the same step."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    flag = torch.tensor(float(value))
    if dist.get_backend() == "nccl":
        flag = flag.cuda()
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag > 0)


class Logging(L.Callback):
    """Means of the loss over `every` steps. The running sums go into the checkpoint."""

    def __init__(self, run: Run, logs: Sequence[Log], every: int) -> None:
        self.run, self.logs, self.every = run, logs, every
        self.sums = {"loss": 0.0, "grad_norm": 0.0}
        self._kept: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            for log in self.logs:
                log.start(self.run, module.done)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        # Kept as tensors until a row is due: reading one makes the CPU wait for the device.
        self._kept.append(outputs)
        if module.done % self.every == 0:
            self.collect()
            values = {k: v / self.every for k, v in self.sums.items()} | {"lr": outputs["lr"]}
            self.sums = dict.fromkeys(self.sums, 0.0)
            if trainer.is_global_zero:
                for log in self.logs:
                    log.row(module.done, values)

    def collect(self) -> dict[str, float]:
        """The running sums.

        Raises:
            InputError: the loss is no number any more; what was saved before stays.
        """
        for k in self.sums:
            for outputs in self._kept:
                self.sums[k] += float(outputs[k])
        self._kept.clear()
        if not math.isfinite(sum(self.sums.values())):
            raise InputError(
                "the loss is not a number any more: lower rate.lr, or raise rate.warmup, and train "
                f"run={self.run.path} again, from its last checkpoint"
            )
        return self.sums

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if trainer.is_global_zero:
            for log in self.logs:
                log.close()


class Checkpoints(L.Callback):
    """last.ckpt and the EMA weights every `seconds`, at the end, and when asked to stop.

    SIGTERM and Ctrl-C finish the step, save and end the training; a kill loses at most `seconds`.

    Args:
        config: of the run; it is written once everything else has been found in order.
        shared: the part of it that goes with the weights.
    """

    def __init__(
        self,
        run: Run,
        config: dict[str, Any],
        shared: dict[str, Any],
        logging: Logging,
        seconds: float,
    ) -> None:
        self.run, self.config, self.shared = run, config, shared
        self.logging, self.seconds = logging, seconds
        self.stopped_by: int | None = None
        self._asked: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._last = time.monotonic()
        self._handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        if trainer.is_global_zero:
            with atomic_path(self.run.config) as temporary:
                temporary.write_text(to_yaml(self.config))

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # After Lightning has set its own handler, which would leave in the middle of our saving.
        for number in self._handlers:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked is not None and number == signal.SIGINT:  # twice means now
            raise KeyboardInterrupt
        self._asked = number

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if _agreed(self._asked is not None):
            self.stopped_by = self._asked or signal.SIGTERM
            self.save(trainer, module)
            trainer.should_stop = True
        elif _agreed(time.monotonic() - self._last > self.seconds):
            self.save(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.stopped_by is None:
            self.save(trainer, module)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Whole or not at all."""
        sums = self.logging.collect()
        if trainer.is_global_zero:
            state = module.state() | {"format": FORMAT, "log_sums": dict(sums)}
            save_checkpoint(self.run.checkpoint, state)
            save_weights(self.run.path, module.ema.shadow, self.shared)
        self._last = time.monotonic()


class Pictures(L.Callback):
    """Samples of the averaged network every `every` steps."""

    def __init__(self, every: int, make: Callable[[], Any], run: Run, logs: Sequence[Log]) -> None:
        self.every, self.make, self.run, self.logs = every, make, run, logs

    def on_train_batch_end(
        self, trainer: L.Trainer, module: DiffusionModule, outputs: Any, batch: Any, index: int
    ) -> None:
        due = self.every > 0 and module.done % self.every == 0 and module.done < module.steps
        if not (due and trainer.is_global_zero):
            return
        with module.ema.swapped(module.denoiser.network):
            module.eval()
            image = self.make()
            module.train()
        save_grid(self.run.samples / f"step_{module.done:07d}.png", image)
        for log in self.logs:
            log.picture(module.done, image)


class Bar(L.Callback):
    """A rich progress bar: loss, samples/s, time left; plain lines where there is no terminal."""

    def __init__(self, unit: str, console: Console) -> None:
        self.unit, self.console = unit, console
        self._live = console.is_terminal
        self._loss: Any = None

    def on_fit_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self._start, self._first, self._shown = time.monotonic(), module.done, 0.0
        self._mark = (self._start, module.done)
        if not (self._live and trainer.is_global_zero):
            return
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "loss {task.fields[loss]:.4f}  {task.fields[speed]:.0f} " + self.unit + "/s"
            ),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._progress.start()
        self._task = self._progress.add_task(
            "train", total=module.steps, completed=module.done, loss=float("nan"), speed=0.0
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, module: DiffusionModule, outputs: Any, batch: Any, index: int
    ) -> None:
        now = time.monotonic()
        if not trainer.is_global_zero or now - self._shown < (0.5 if self._live else 10):
            return
        then, step = self._mark
        speed = (module.done - step) * module.batch_size / max(now - then, 1e-9)
        self._mark, self._shown = (now, module.done), now
        loss = float(outputs["loss"])
        if self._live:
            self._progress.update(self._task, completed=module.done, loss=loss, speed=speed)
            return
        rate = (module.done - self._first) / (now - self._start)
        left = (module.steps - module.done) / max(rate, 1e-9)
        print(
            f"step {module.done}/{module.steps}  loss {loss:.4f}  {speed:.0f} {self.unit}/s  "
            f"{left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def teardown(self, trainer: L.Trainer, module: DiffusionModule, stage: str) -> None:
        if self._live and hasattr(self, "_progress"):
            self._progress.update(self._task, completed=module.done)
            self._progress.stop()
