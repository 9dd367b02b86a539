"""Whether two trainings are one and the same, bit for bit."""

import torch

from sciffusion.io.run import load_checkpoint


def leaves(state, name=""):
    """Every tensor and number of a checkpoint, by name."""
    if isinstance(state, dict):
        for k, v in state.items():
            yield from leaves(v, f"{name}/{k}")
    elif isinstance(state, list | tuple):
        for k, v in enumerate(state):
            yield from leaves(v, f"{name}/{k}")
    else:
        yield name, state


def assert_same(a, b):
    first, second = (dict(leaves(load_checkpoint(r.checkpoint))) for r in (a, b))
    assert first.keys() == second.keys()
    assert any(name.startswith("/optimizer/state") for name in first)
    for name, value in first.items():
        same = torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        assert same, name
    assert a.metrics.read_bytes() == b.metrics.read_bytes()
    assert a.weights.read_bytes() == b.weights.read_bytes()
