"""One function builds every object from plain data with `_target_`s.

A configuration may have come with somebody's weights, so it can name only classes and functions
that are defined where networks, schedules, data sources and optimizers are. Whatever else those
modules have imported, such as `os`, is out of its reach.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from sciffusion.errors import InputError

ALLOWED = re.compile(
    r"(sciffusion\.(core|nn|training|domains\.\w+\.(?!domain\b))|torch\.(nn|optim))\b"
)
"""Modules whose own classes and functions may be built."""
WHERE = "sciffusion.core, .nn, .training and .domains.NAME, torch.nn and torch.optim"


def locate(target: str) -> Any:
    """The class or function that a dotted name means.

    Raises:
        InputError: the name is outside what may be built, or does not exist.
    """
    found = _find(target) if target.startswith(("sciffusion.", "torch.")) else None
    buildable = inspect.isclass(found) or inspect.isfunction(found)
    if not buildable or not ALLOWED.match(found.__module__):
        raise InputError(f"_target_ {target!r} may not be built: name a class of {WHERE}")
    return found


def _find(target: str) -> Any:
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
                break
            found = getattr(found, name)
        else:
            return found
        break
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
