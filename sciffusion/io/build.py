"""One function builds every object from plain data with `_target_`s.

Only `sciffusion.`, `torch.` and `lightning.` names are built, so a configuration that came with
somebody's weights cannot name anything else.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from sciffusion.errors import InputError

ALLOWED = ("sciffusion.", "torch.nn.", "torch.optim.", "lightning.")


def locate(target: str) -> Any:
    """The object that a dotted name means.

    Raises:
        InputError: the name is outside what may be built, or does not exist.
    """
    if not target.startswith(ALLOWED):
        raise InputError(f"_target_ {target!r} is not allowed: it must begin with one of {ALLOWED}")
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if not ".".join(parts[:cut]).startswith(str(error.name)):
                raise
            continue
        for name in parts[cut:]:
            if not hasattr(found, name):
                raise InputError(f"_target_ {target!r} does not exist: check its spelling")
            found = getattr(found, name)
        return found
    raise InputError(f"_target_ {target!r} does not exist: check its spelling")


def build(node: Any, **extra: Any) -> Any:
    """Objects from nested plain data; a mapping without `_target_` stays a mapping.

    Args:
        node: plain data.
        extra: further keyword arguments of the outermost object; they win over those in `node`.

    Raises:
        InputError: a name that cannot be built, or arguments that its object refuses.
    """
    if isinstance(node, Mapping):
        items = {k: build(v) for k, v in node.items() if k != "_target_"} | extra
        if "_target_" not in node:
            return items
        target = locate(str(node["_target_"]))
        try:
            return target(**items)
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            short = str(node["_target_"]).rsplit(".", 1)[-1]
            raise InputError(f"cannot make {short}: {error}") from error
    if isinstance(node, list | tuple):
        return [build(v) for v in node]
    return node
