"""The Jensen-Shannon divergence of two histograms, in bits.

JS = H((p + q)/2) - (H(p) + H(q))/2 with base-2 entropies: 0 when equal, 1 when disjoint. It is
the divergence, not its square root (the distance that scipy gives). Estimated from counts it is
biased upward by about (bins - 1)(1/n + 1/m)/(8 ln 2), so state a floor at the same n.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from scipy.special import rel_entr

from sciffusion.errors import InputError


def js_divergence(p: Shaped[np.ndarray, ...], q: Shaped[np.ndarray, ...]) -> float:
    """Divergence of two histograms of one shape, of counts or of masses, in bits.

    Raises:
        InputError: the shapes differ, a bin is negative or not finite, or a histogram is empty.
    """
    p, q = _normalised(p, "first"), _normalised(q, "second")
    if p.shape != q.shape:
        raise InputError(f"histograms of shapes {p.shape} and {q.shape}; use the same bins")
    mixture = (p + q) / 2
    return float((rel_entr(p, mixture).sum() + rel_entr(q, mixture).sum()) / (2 * np.log(2)))


def _normalised(histogram: Shaped[np.ndarray, ...], name: str) -> np.ndarray:
    h = np.asarray(histogram, dtype=np.float64)
    if not np.isfinite(h).all() or (h < 0).any():
        raise InputError(f"{name} histogram: a bin is negative or not finite; give counts")
    if h.sum() == 0:
        raise InputError(f"{name} histogram: all bins are empty; nothing fell into their range")
    return h / h.sum()
