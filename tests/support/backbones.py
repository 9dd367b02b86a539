"""Backbones for tests, made from torsions: helices, strands and chains that wander."""

from dataclasses import replace

import numpy as np

from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.geometry import build

HELIX, STRAND = (-60.0, -45.0), (-120.0, 130.0)


def made(length, fold="wander", seed=0, cluster=-1, name="made"):
    """An ideal backbone of one fold; "wander" turns at random among both."""
    rng = np.random.default_rng(seed)
    which = rng.random(length) < {"helix": 1.0, "strand": 0.0}.get(fold, 0.5)
    spread = rng.normal(0, 8 if fold == "wander" else 2, (length, 2))
    angles = np.radians(np.where(which[:, None], HELIX, STRAND) + spread)
    coords = build(angles[:, 0], angles[:, 1], np.full(length, np.pi)).astype(np.float32)
    backbone = Backbone.of(coords - coords.mean((0, 1)), name=name)
    return Backbone(**{**vars(backbone), "cluster": cluster})


def read(x, lengths):
    """Coordinates (L, 4, 3) as a backbone of chains A, B, ... of these lengths."""
    chain = np.repeat(list("ABCD")[: len(lengths)], lengths)
    return replace(made(len(x)), coords=x.numpy(), chain=chain)
