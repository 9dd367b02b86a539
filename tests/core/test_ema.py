"""EMA: the warm-up formula, swapping, and the way through a checkpoint."""

import copy

import pytest
import torch
from torch import nn

from sciffusion.core.ema import EMA, PowerEMA


def walk(module, ema, steps, seed=0):
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn(p.shape, generator=g))
        ema.update(module)


def test_warm_up_formula():
    module = nn.Linear(2, 1, bias=False)
    ema = EMA(module, 0.95)
    average = module.weight.detach().double().clone()
    g = torch.Generator().manual_seed(0)
    for k in range(300):
        with torch.no_grad():
            module.weight.add_(torch.randn(1, 2, generator=g))
        ema.update(module)
        decay = min(0.95, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * module.weight.detach().double()
        assert torch.allclose(ema.shadow["weight"].double(), average, rtol=1e-4, atol=1e-4)
    # The last decay before the cap: (1 + k) / (10 + k) reaches 0.95 at k = 170.
    assert ema.updates == 300


def test_swapped_puts_the_weights_back_even_after_an_error():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = EMA(module, 0.9)
    walk(module, ema, 5)
    own = copy.deepcopy(module.state_dict())

    def look():
        with ema.swapped(module):
            for k, v in module.state_dict().items():
                assert torch.equal(v, ema.shadow[k])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        look()
    for k, v in module.state_dict().items():
        assert torch.equal(v, own[k])
    assert not torch.equal(own["0.weight"], ema.shadow["0.weight"])


def test_buffers_are_copied_not_averaged():
    module = nn.BatchNorm1d(2)
    ema = EMA(module)
    for _ in range(3):
        module(torch.randn(8, 2) + 5)
        ema.update(module)
    assert torch.equal(ema.shadow["running_mean"], module.running_mean)
    assert int(ema.shadow["num_batches_tracked"]) == 3


@pytest.mark.parametrize("kind", [EMA, PowerEMA])
def test_resume_goes_on_as_if_nothing_had_happened(kind):
    first = nn.Linear(2, 2)
    second = copy.deepcopy(first)
    whole, half = kind(first), kind(second)
    walk(first, whole, 4, seed=1)
    walk(first, whole, 4, seed=2)
    walk(second, half, 4, seed=1)
    saved = copy.deepcopy(half.state_dict())
    resumed = kind(nn.Linear(2, 2))
    resumed.load_state_dict(saved)
    walk(second, resumed, 4, seed=2)
    assert resumed.updates == whole.updates == 8
    for k in whole.shadow:
        assert torch.equal(whole.shadow[k], resumed.shadow[k])


def test_refusals():
    with pytest.raises(ValueError, match="decay"):
        EMA(nn.Linear(1, 1), 1.0)
    with pytest.raises(ValueError, match="another network"):
        EMA(nn.Linear(1, 1)).load_state_dict(EMA(nn.Conv1d(1, 1, 1, bias=False)).state_dict())
    with pytest.raises(ValueError, match=r"length 0\.1, not 0\.05"):
        PowerEMA(nn.Linear(1, 1), 0.05).load_state_dict(PowerEMA(nn.Linear(1, 1)).state_dict())
