"""Where packaged configs and data sets lie, in a checkout and in a wheel; where caches go.

A wheel carries `configs/` and `datasets/` inside the package; in a checkout they lie beside it.
Torch is never imported here, so that commands which only read them start at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sciffusion.errors import InputError

PACKAGE = Path(__file__).resolve().parent


def path(kind: Literal["configs", "datasets"], name: str = "") -> Path:
    """The packaged folder of this kind, or the file or folder `name` in it.

    Raises:
        InputError: there is no such file or folder; the message lists what there is.
    """
    for root in (PACKAGE / kind, PACKAGE.parent / kind):
        if root.is_dir():
            break
    else:
        raise InputError(f"no {kind}/ in {PACKAGE} or beside it: install sciffusion again")
    found = (root / name).resolve()
    if not found.exists() or not found.is_relative_to(root.resolve()):
        there = ", ".join(sorted(p.name for p in root.iterdir()))
        raise InputError(f"{kind}/{name} does not exist in {root}: choose one of {there}")
    return found


def cache_dir() -> Path:
    """Where downloads and decoded data are kept: `$SCIFFUSION_CACHE`, else ~/.cache/sciffusion."""
    given = os.environ.get("SCIFFUSION_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "sciffusion"


def weights(domain: str) -> Path:
    """The packaged weights of a domain: a .safetensors file with its card beside it.

    Raises:
        InputError: the domain has none.
    """
    found = PACKAGE / "weights" / domain / "model.safetensors"
    if not found.exists():
        raise InputError(
            f"there are no packaged weights for domain={domain}: train a run "
            f"(python -m sciffusion.train domain={domain} run=DIR) and give it as run=DIR"
        )
    return found
