"""Optimizers and the learning rate as a function of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Rate(ABC):
    """Learning rate at a step; no state, so resume cannot lose any."""

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float:
        """The rate at `step` of `steps`."""


class Constant(Rate):
    """Linear warm-up, then constant."""

    def __init__(self, lr: float = 2e-4, warmup: int = 1000) -> None:
        self.lr, self.warmup = lr, warmup

    def __call__(self, step: int, steps: int) -> float:
        return self.lr * min(1.0, (step + 1) / max(1, self.warmup))


class Cosine(Constant):
    """Linear warm-up, then half a cosine down to `final` times the peak at the last step."""

    def __init__(self, lr: float = 1e-3, warmup: int = 200, final: float = 0.01) -> None:
        super().__init__(lr, warmup)
        self.final = final

    def __call__(self, step: int, steps: int) -> float:
        share = min(1.0, max(0, step - self.warmup) / max(1, steps - self.warmup))
        fall = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * share))
        return super().__call__(step, steps) * fall


class InverseSqrt(Constant):
    """lr / sqrt(max(step / reference, 1)) after a linear ramp (Karras et al. 2024, eq. 67)."""

    def __init__(self, lr: float = 1e-2, warmup: int = 1000, reference: int = 70_000) -> None:
        super().__init__(lr, warmup)
        if reference < 1:
            raise ValueError(f"reference={reference} must be at least 1 step")
        self.reference = reference

    def __call__(self, step: int, steps: int) -> float:
        return super().__call__(step, steps) / math.sqrt(max(step / self.reference, 1.0))
