"""A stand-in for the network, in this process or as a script."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("stand_in.py")


@pytest.fixture(scope="session")
def stand_in():
    spec = importlib.util.spec_from_file_location("stand_in", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SCRIPT = SCRIPT
    return module
