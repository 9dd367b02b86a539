"""What a sample is conditioned on: its structure, which is never dropped, and its condition.

`structure` holds what makes the problem well posed (mask, bonds, Laplacian); `condition` holds
what classifier-free guidance may drop (class, text, secondary structure). `keep` says, sample by
sample, whether the condition is to be believed; networks answer `keep = False` with a learned
"nothing is known" embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class Cond:
    """Tensors with a leading batch axis.

    Args:
        structure: never dropped; `structure["mask"]` (B, N) is True where a point is real.
        condition: what guidance may drop.
        keep: (B,), False where the condition is dropped; None means all are kept.
    """

    structure: Mapping[str, Tensor] = field(default_factory=dict)
    condition: Mapping[str, Tensor] = field(default_factory=dict)
    keep: Bool[Tensor, " b"] | None = None

    @property
    def mask(self) -> Bool[Tensor, "b n"] | None:
        """Which points are real, where samples are padded."""
        return self.structure.get("mask")

    def map(self, fn: Callable[[Tensor], Tensor]) -> Cond:
        """The same conditioning with `fn` applied to every tensor."""
        return Cond(
            {k: fn(v) for k, v in self.structure.items()},
            {k: fn(v) for k, v in self.condition.items()},
            None if self.keep is None else fn(self.keep),
        )

    def to(self, device: torch.device | str) -> Cond:
        """Moved to a device."""
        return self.map(lambda v: v.to(device, non_blocking=True))

    def __getitem__(self, index: Tensor | slice) -> Cond:
        """The samples at `index`."""
        return self.map(lambda v: v[index])

    def with_structure(self, **more: Tensor) -> Cond:
        """The same conditioning with more structure."""
        return Cond({**self.structure, **more}, self.condition, self.keep)

    def with_keep(self, keep: Bool[Tensor, " b"] | None) -> Cond:
        """The same conditioning, believed where `keep` is True."""
        return Cond(self.structure, self.condition, keep)

    @staticmethod
    def cat(parts: list[Cond]) -> Cond:
        """Batches joined along the first axis; `keep` must be given in all of them or in none."""
        first = parts[0]
        return Cond(
            {k: torch.cat([p.structure[k] for p in parts]) for k in first.structure},
            {k: torch.cat([p.condition[k] for p in parts]) for k in first.condition},
            None
            if first.keep is None
            else torch.cat([p.keep for p in parts if p.keep is not None]),
        )
