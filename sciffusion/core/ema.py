"""Exponential moving averages of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Classic average with warm-up: decay_k = min(decay, (1 + k) / (10 + k)) at update k.

    The average lives beside the module; buffers are copied. Every rank that holds the same weights
    holds the same average, so all of them update it.

    Args:
        module: whose floating-point parameters are averaged.
        decay: the final decay.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"an EMA decay lies in [0, 1), not {decay}")
        self.decay, self.updates = decay, 0
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self._averaged = {k for k, _ in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after one more optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        state = module.state_dict()
        names = [k for k in state if k in self._averaged and state[k].is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in names], [state[k] for k in names], 1 - decay)
        for k in state.keys() - set(names):
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
        return {"decay": self.decay, "updates": self.updates, "shadow": self.shadow}

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
