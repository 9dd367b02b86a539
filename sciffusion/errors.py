"""The one exception that people see: something outside the program was wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class InputError(ValueError):
    """A file, flag or weight from outside cannot be used.

    The message is one line that says what was wrong, where (file, record, line) and what to do.
    Entry points print it without a traceback and exit with code 2.
    """


def at_least(settings: Mapping[str, Any], /, where: str = "", **least: int) -> None:
    """Refuse a setting that is too small: at_least(settings, n=1, seed=0).

    Args:
        where: what the group of settings is called, with a dot: "trainer.".

    Raises:
        InputError: the line says which and what it must be.
    """
    for name, value in least.items():
        if settings[name] < value:
            raise InputError(f"{where}{name}={settings[name]} must be at least {value}")
