"""Training from a resolved configuration: build, restore, run."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy, Strategy
from rich.console import Console

from sciffusion.data.order import Steps, loader
from sciffusion.domains.base import Domain, build_denoiser, load_model, what_it_gives
from sciffusion.domains.sampling import check, draw
from sciffusion.errors import InputError, at_least
from sciffusion.io.build import build, locate
from sciffusion.io.config import filled
from sciffusion.io.run import Run, load_checkpoint, load_into, load_tensors
from sciffusion.training.callbacks import Bar, Checkpoints, Logging, Pictures
from sciffusion.training.module import DiffusionModule
from sciffusion.training.snapshots import Snapshots, Spacing

PRECISIONS = ("auto", "32-true", "64-true", "bf16-mixed")


class AllReduce(DDPStrategy):
    """Data parallel with the gradients averaged by the module itself, in one message a step."""

    def _setup_model(self, model: Any) -> Any:
        return model


def prepared(node: dict[str, Any], domain: Domain, steps: int) -> dict[str, Any]:
    """Settings with sigma_data and the number of steps filled in where they are asked for."""
    return filled(node, sigma_data=domain.facts()["sigma_data"], total_steps=steps)


def _taught(loss: Any, config: dict[str, Any]) -> Any:
    """A loss that needs a teacher, with the one of `config["teacher"]`.

    Raises:
        InputError: there is none, or it cannot teach.
    """
    if not hasattr(loss, "learn_from"):
        return loss
    if not config.get("teacher"):
        raise InputError(
            f"loss={type(loss).__name__} needs a teacher: python -m sciffusion.distill run=DIR"
        )
    teacher = load_model(config["teacher"])[1]
    if config["trainer"]["precision"] == "64-true":
        teacher.double()
    try:
        loss.learn_from(teacher)
    except ValueError as error:
        raise InputError(f"{config['teacher']}: {error}") from error
    return loss


def first_process() -> bool:
    """Whether this process speaks and writes; before and after Lightning has begun."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def say(line: str) -> None:
    """A line for people, once."""
    if first_process():
        print(f"sciffusion: {line}", flush=True)


def make_module(domain: Domain, config: dict[str, Any]) -> DiffusionModule:
    """The module of a configuration; weights follow from its seed.

    Raises:
        InputError: settings that make no sense together.
    """
    trainer = config["trainer"]
    at_least(trainer, "trainer.", steps=1, batch_size=1, accumulate=1, log_every=1, preview=1)
    if not 0 <= config["drop_condition"] <= 1:
        raise InputError(f"drop_condition={config['drop_condition']} must lie in [0, 1]")
    if not 0 <= trainer["ema_decay"] < 1:
        raise InputError(f"trainer.ema_decay={trainer['ema_decay']} must lie in [0, 1)")
    if abs(config["seed"]) >= 2**63:
        raise InputError(f"seed={config['seed']} must be a 64-bit number")
    torch.manual_seed(config["seed"])
    denoiser = build_denoiser(domain, config)
    check(build(prepared(config["sampler"], domain, trainer["steps"])), denoiser)
    module = DiffusionModule(
        domain,
        denoiser,
        _taught(build(prepared(config["loss"], domain, trainer["steps"])), config),
        _optimizer(config["optimizer"]),
        build(config["rate"]),
        trainer["steps"],
        trainer["batch_size"],
        config["seed"],
        config["drop_condition"],
        trainer["clip"],
        trainer["ema_decay"],
        trainer["accumulate"],
        say,
        Spacing.of(trainer).profiles,
    )
    if trainer["precision"] == "64-true":
        module.double()
        for average in module.averages:
            average.shadow = {k: v.double() for k, v in average.shadow.items()}
    return module


def _optimizer(node: dict[str, Any]) -> Callable[[Any], torch.optim.Optimizer]:
    """Parameters -> optimizer, tried once so that wrong settings show before the training."""
    make = partial(locate(node["_target_"]), **{k: v for k, v in node.items() if k != "_target_"})
    try:
        make([torch.nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {error}") from error
    return make


def _strategy(name: str, accelerator: str) -> Strategy | str:
    if name == "ddp":
        return AllReduce(process_group_backend="gloo" if accelerator == "cpu" else None)
    if name == "auto":
        return "auto"
    raise InputError(f"trainer.strategy={name} is not known: auto or ddp")


GRAPHS = 64
"""Graphs of a network at most."""


def compile_network(network: torch.nn.Module) -> None:
    """Compile in place: `layers` of one kind for all shapes, or all of it anew for each shape.

    The latter where the network has `few_shapes`: faster once compiled. Calls without gradients,
    such as self-conditioning's on some of a batch, are then left as they are: they have many.
    """
    # Gradients in the types of the forward pass, as without compilation (see `_gradients`)
    torch._functorch.config.backward_pass_autocast = "off"
    layers = getattr(network, "layers", None)
    if getattr(network, "few_shapes", False):
        torch._dynamo.config.recompile_limit = GRAPHS
        plain, fast = network.forward, torch.compile(network.forward, dynamic=False)
        network.forward = lambda *x: (fast if torch.is_grad_enabled() else plain)(*x)
    elif layers is None:
        network.compile()
    else:
        for layer in layers:
            layer.compile(dynamic=True)


def make_trainer(
    config: dict[str, Any], left: int, callbacks: list[L.Callback] | None = None
) -> L.Trainer:
    """Lightning's trainer with everything that we do ourselves switched off."""
    node = config["trainer"]
    accelerator = node["accelerator"]
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    precision = node["precision"]
    if precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={precision} is not known: {', '.join(PRECISIONS)} "
            "(float16 overflows: use bf16-mixed)"
        )
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    try:
        return L.Trainer(
            accelerator=accelerator,
            devices=node["devices"],
            num_nodes=node["nodes"],
            strategy=_strategy(node["strategy"], accelerator),
            precision=precision,
            max_steps=left,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=callbacks or [],
            inference_mode=False,
        )
    except Exception as error:
        raise InputError(f"trainer: {str(error).splitlines()[0]}") from error


def fit(module: DiffusionModule, config: dict[str, Any], run: Run) -> int | None:
    """Train a run from where it stands; returns the signal that stopped it, if one did.

    Raises:
        InputError: a checkpoint or weights that cannot be used, a setting that makes no sense.
    """
    domain = module.domain
    node, state = config["trainer"], None
    if run.checkpoint.exists():
        state = load_checkpoint(run.checkpoint)
        try:
            module.restore(state)
        except InputError:
            raise
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).split("\n\t")[1:2] or [
                str(error)
            ]  # PyTorch's first line says nothing
            raise InputError(
                f"{run.checkpoint} belongs to another configuration: {reason[0]}"
            ) from error
        say(f"going on from step {module.done} of {module.steps}")
    elif config["init"]:
        load_into(module.denoiser.network, load_tensors(config["init"]), str(config["init"]))
        module.ema = type(module.ema)(module.denoiser.network, node["ema_decay"])
        say(f"starting from the weights of {config['init']}")
    left = module.steps - module.done
    if left <= 0:
        say(f"nothing left to train: {module.done} steps are done; raise trainer.steps to go on")
        return None
    logs = [build(log) for log in (config.get("logger") or {}).values() if log]
    book = Logging(run, logs, node["log_every"])
    if state is not None:
        book.sums = dict(state["log_sums"])
    keeper = Checkpoints(run, config, shareable(config, domain), book, node["checkpoint_seconds"])

    def preview() -> Any:
        return domain.preview(
            draw(
                domain,
                module.denoiser,
                build(prepared(config["sampler"], domain, module.steps)),
                node["preview"],
                config["seed"],
                device=module.device,
                processes=(0, 1),
            )
        )

    spacing = Spacing.of(node)
    if spacing.number:  # kept with the run, for one that goes on beyond these steps
        node["snapshots"] = {**node["snapshots"], "every": spacing.every}
    pictures = Pictures(node["picture_every"], preview, run, logs)
    # Before the checkpoint of the same step: a run that resumes from it has its snapshot.
    snapshots = Snapshots(run, spacing, say)
    trainer = make_trainer(
        config, left, [book, snapshots, keeper, pictures, Bar("samples", Console(stderr=True))]
    )
    if node["batch_size"] % trainer.world_size:
        raise InputError(
            f"trainer.batch_size={node['batch_size']} does not divide over "
            f"{trainer.world_size} processes"
        )
    if node["compile"]:
        compile_network(module.denoiser.network)

    def steps() -> Steps:
        return Steps(
            module.done, module.steps, node["batch_size"], trainer.global_rank, trainer.world_size
        )

    run.make()
    say(f"run {run.path}")
    trainer.fit(
        module,
        loader(domain.train_set(), config["seed"], node["batch_size"], steps, node["workers"]),
    )
    if dist.is_available() and dist.is_initialized():
        # Left to the end of the interpreter, gloo's threads now and then abort a process.
        dist.barrier()
        dist.destroy_process_group()
    if keeper.stopped_by is not None:
        say(f"stopped and saved at step {module.done}; go on with: train run={run.path}")
    return keeper.stopped_by


def shareable(config: dict[str, Any], domain: Domain) -> dict[str, Any]:
    """The part of a configuration that config.json needs to rebuild the network."""
    keys = ("model", "schedule", "parameterization", "learned_variance", "seed")
    own = {"domain": domain.name, "facts": domain.facts(), "space": config.get("space")}
    own["gives"] = what_it_gives(config)
    own["sampler"] = prepared(config["sampler"], domain, config["trainer"]["steps"])
    return own | {k: config[k] for k in keys}
