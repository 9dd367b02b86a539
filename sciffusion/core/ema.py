"""Running averages of weights: exponential ones, and those of a power-function profile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sciffusion.core.profiles import gamma_of_length


class Average(ABC):
    """An average of a module's floating-point parameters that lives beside it.

    Buffers are copied. Every rank that holds the same weights holds the same average, so all of
    them update it.

    Args:
        module: whose parameters are averaged.

    Attributes:
        shadow: the averaged state.
        updates: weights taken in so far.
        averaged: names of the parameters; what else is in `shadow` is a copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self.updates = 0
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.averaged = {k for k, p in module.named_parameters() if p.is_floating_point()}

    @abstractmethod
    def next_decay(self) -> float:
        """What the average so far is multiplied with at the next update."""

    @abstractmethod
    def settings(self) -> dict[str, float]:
        """What it is, for a checkpoint."""

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after one more optimizer step."""
        decay = self.next_decay()
        self.updates += 1
        state = module.state_dict()
        names = [k for k in state if k in self.averaged]
        torch._foreach_lerp_([self.shadow[k] for k in names], [state[k] for k in names], 1 - decay)
        for k in state.keys() - self.averaged:
            self.shadow[k].copy_(state[k])

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """Inside, `module` has the averaged weights; after, its own again."""
        own = {k: v.detach().clone() for k, v in module.state_dict().items()}
        module.load_state_dict(self.shadow)
        try:
            yield
        finally:
            module.load_state_dict(own)

    def state_dict(self) -> dict[str, int | float | dict[str, Tensor]]:
        """Plain data for a checkpoint."""
        return {**self.settings(), "updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, int | float | dict[str, Tensor]]) -> None:
        """Back from a checkpoint, onto the shadow's own device.

        Raises:
            ValueError: the checkpoint averages other weights; the message names one.
        """
        shadow = state["shadow"]
        assert isinstance(shadow, dict)
        other = shadow.keys() ^ self.shadow.keys()
        if other:
            raise ValueError(f"the EMA in the checkpoint is of another network: {sorted(other)[0]}")
        for k, v in shadow.items():
            self.shadow[k].copy_(v)
        self.updates = int(state["updates"])  # type: ignore[arg-type]


class EMA(Average):
    """Classic average with warm-up: decay_k = min(decay, (1 + k) / (10 + k)) at update k.

    Args:
        module: whose floating-point parameters are averaged.
        decay: the final decay.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"an EMA decay lies in [0, 1), not {decay}")
        super().__init__(module)
        self.decay = decay

    def next_decay(self) -> float:
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    def settings(self) -> dict[str, float]:
        return {"decay": self.decay}


class PowerEMA(Average):
    """Average of constant relative length: decay (1 - 1/t)^(gamma + 1) at update t = 1, 2, ...

    Its length grows with the training, and nothing is left of the initial weights (Karras et al.
    2024, arXiv:2312.02696, sec. 3.1). The weights of step k count by the share of the profile
    between k - 1 and k, exactly.

    Args:
        module: whose floating-point parameters are averaged.
        length: sigma_rel, standard deviation of the profile over the training so far.

    Raises:
        ValueError: a length that no profile has.
    """

    def __init__(self, module: nn.Module, length: float = 0.1) -> None:
        super().__init__(module)
        self.length, self.gamma = length, gamma_of_length(length)

    def next_decay(self) -> float:
        return float((1 - 1 / (self.updates + 1)) ** (self.gamma + 1))

    def settings(self) -> dict[str, float]:
        return {"length": self.length}

    def load_state_dict(self, state: dict[str, int | float | dict[str, Tensor]]) -> None:
        """As that of `Average`.

        Raises:
            ValueError: also where the checkpoint's average is of another length.
        """
        if state["length"] != self.length:
            raise ValueError(f"the average is of length {state['length']}, not {self.length}")
        super().load_state_dict(state)
