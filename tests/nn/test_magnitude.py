"""Layers that keep magnitudes: unit in, unit out; unit weights, whatever an optimizer does."""

import copy
import math

import pytest
import torch

from sciffusion.core.ema import EMA
from sciffusion.nn.magnitude import (
    MPConv2d,
    MPEmbedding,
    MPFourier,
    MPLinear,
    cosine_attend,
    known_size,
    mp_cat,
    mp_mean,
    mp_silu,
    mp_sum,
    normalize,
    weight_error,
)
from sciffusion.nn.magnitude_blocks import MPBlock, MPLabel, MPLevel


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def rms(x):
    return float(x.double().square().mean().sqrt())


@pytest.mark.parametrize(
    "made",
    [
        lambda a, b: mp_silu(a),
        lambda a, b: mp_sum(a, b),
        lambda a, b: mp_sum(a, b, 0.8),
        lambda a, b: mp_mean(a, b, b.flip(0)),
        lambda a, b: mp_cat(a, b[:, :16]),
        lambda a, b: mp_cat(a, b, t=0.2),
        lambda a, b: normalize(7 * a, 1),
        lambda a, b: known_size(100 * a),
        lambda a, b: MPLinear(64, 32)(a),
        lambda a, b: MPConv2d(64, 32, 1)(a[..., None, None]),
        lambda a, b: MPFourier(4096)(a[:64, 0]),
        lambda a, b: MPEmbedding(8, 32)(torch.arange(8)),
        lambda a, b: MPLevel(64, 64)(3 * a[:, 0]),
    ],
)
def test_unit_in_unit_out(made):
    a, b = torch.randn(2, 4096, 64).unbind()
    with torch.no_grad():
        assert rms(made(a, b)) == pytest.approx(1, abs=0.06)


def test_formulas_of_the_paper():
    a, b = torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 7.0]])
    # 0.7 x 3 + 0.3 x 5 = 3.6 over sqrt(0.58)
    torch.testing.assert_close(mp_sum(a, b)[0, 0], torch.tensor(3.6 / 0.58**0.5))
    # Two and one channels at t = 0.3: sqrt(3 / 0.58) (0.7 / sqrt 2, 0.3)
    joined = mp_cat(a, b[:, :1], t=0.3)
    expected = torch.tensor([[3 * 0.7 / 2**0.5, 0.7 / 2**0.5, 5 * 0.3]]) * (3 / 0.58) ** 0.5
    torch.testing.assert_close(joined, expected)
    torch.testing.assert_close(mp_silu(torch.tensor(2.0)), torch.tensor(1.7615942 / 0.596))
    # rms of (3, 4) is sqrt(12.5)
    three_four = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(normalize(three_four), three_four / (1e-4 + 12.5**0.5))
    layer = MPLinear(2, 1, gain=0.5)
    layer.weight.data.copy_(three_four)
    # The used weight is 0.5 (0.6, 0.8); the stored one becomes (0.6, 0.8) sqrt 2
    torch.testing.assert_close(
        layer(torch.tensor([[1.0, 2.0]])), torch.tensor([[1.1]]), rtol=5e-4, atol=0
    )
    stored = 2**0.5 * torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(layer.weight.data, stored, rtol=5e-4, atol=0)


def test_the_constant_of_silu():
    z = torch.linspace(-12, 12, 200001, dtype=torch.float64)
    density = (-z * z / 2).exp() / math.sqrt(2 * math.pi)
    square = torch.trapezoid(torch.nn.functional.silu(z) ** 2 * density, z)
    assert float(square.sqrt()) == pytest.approx(0.596, abs=5e-4)


@pytest.mark.parametrize("make", [lambda: MPLinear(24, 8), lambda: MPConv2d(6, 8, 3, gain=0.7)])
def test_gradients_are_orthogonal_to_weights(make):
    layer = make().double()
    x = torch.randn(16, *layer.weight.shape[1:], dtype=torch.float64)
    target = torch.randn_like(layer(x))
    (layer(x) - target).square().mean().backward()
    w, g = layer.weight.detach().flatten(1), layer.weight.grad.flatten(1)
    cosine = (w * g).sum(1) / (w.norm(dim=1) * g.norm(dim=1))
    assert float(g.norm()) > 1e-3
    assert float(cosine.abs().max()) < 1e-3


def steps(layer, count=5, lr=0.5, x=None):
    optimizer = torch.optim.Adam(layer.parameters(), lr)
    x = torch.randn(32, 16) if x is None else x
    for _ in range(count):
        optimizer.zero_grad()
        (
            layer(x).square().mean() - layer(x)[0].mean()
        ).backward()  # two forward passes, one backward
        optimizer.step()
    return layer


def test_stored_weights_come_back_to_unit_size_in_training_only():
    layer = steps(MPLinear(16, 8, gain=2.0))
    assert weight_error(layer) > 0.1  # a large step
    kept = layer.weight.detach().clone()
    layer.eval()(torch.randn(4, 16))
    with torch.no_grad():
        layer.train()(torch.randn(4, 16))
    assert torch.equal(layer.weight, kept)
    layer(torch.randn(4, 16))
    assert weight_error(layer) < 1e-3
    torch.testing.assert_close(layer.weight, normalize(kept))


def test_evaluation_sees_the_same_function_at_any_stored_size():
    layer = MPConv2d(4, 8, 3).eval()
    x = torch.randn(2, 4, 5, 5)
    before = layer(x)
    layer.weight.data.mul_(torch.logspace(-1, 1, 8)[:, None, None, None])
    torch.testing.assert_close(layer(x), before, rtol=2e-3, atol=1e-4)


def test_an_average_of_weights_is_itself_a_network():
    layer = MPLinear(16, 8, gain=1.0)
    average = EMA(layer, 0.9)
    for _ in range(10):
        steps(layer, 1, 0.1)
        average.update(layer)
    mean = average.shadow["weight"].square().mean(1).sqrt()
    assert float(mean.max()) < 1.05  # a mean of directions is shorter than they are
    with average.swapped(layer):
        used = layer.eval().effective().norm(dim=1)
        torch.testing.assert_close(used, layer.gain.abs().expand(8), rtol=1e-3, atol=1e-3)
    fresh = MPLinear(16, 8, gain=0.0)
    fresh.load_state_dict(average.shadow)
    x = torch.randn(4, 16)
    with average.swapped(layer):
        torch.testing.assert_close(fresh.eval()(x), layer(x))


def test_half_precision_touches_no_weight():
    layer, x = MPLinear(64, 64, gain=1.0), torch.randn(8, 64)
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
        half.square().mean().backward()
        assert layer.effective().dtype == layer.weight.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, rtol=0.02, atol=0.05)
    assert weight_error(layer) < 1e-3  # bfloat16 would be off by 4e-3


def test_compiled_training_is_the_same():
    plain = MPBlock(16, 2)
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 6, 16)
    for block in (plain, compiled):
        optimizer = torch.optim.SGD(block.parameters(), 0.5)
        for _ in range(3):
            optimizer.zero_grad()
            block(x, x).square().mean().backward()
            optimizer.step()
        block(x, x)
        assert weight_error(block) < 1e-3
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_logits_of_cosine_attention_cannot_run_away():
    """Queries and keys a million times as large attend as before."""
    qkv = torch.randn(2, 5, 24)
    large = qkv * torch.tensor([1e6, 1e6, 1.0]).repeat_interleave(8)
    torch.testing.assert_close(cosine_attend(large, 2), cosine_attend(qkv, 2), rtol=1e-3, atol=1e-3)
    alone = cosine_attend(qkv[:, :1], 2)  # one token: its own values
    torch.testing.assert_close(
        alone, normalize(qkv[:, :1, 16:].unflatten(2, (2, 4)), -1).flatten(2)
    )


def test_a_deep_stack_keeps_its_size():
    s = torch.randn(4, 12, 32)
    told = mp_silu(torch.randn(4, 1, 32))
    with torch.no_grad():
        for _ in range(24):
            s = MPBlock(32, 4)(s, told)
            assert 0.8 < rms(s) < 1.2


def test_labels_are_vectors_of_one_size():
    label = MPLabel(3, 16)
    with torch.no_grad():
        assert float((label.table.unit().norm(dim=1) - 4).abs().max()) < 1e-3


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="heads=3 must divide the width 16"):
        MPBlock(16, 3)
