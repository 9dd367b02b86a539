import pytest
import torch

from sciffusion.nn.blocks import AdaptiveGroupNorm, GroupNorm, norm_groups, zero_init


def test_groups_divide_the_channels_and_hold_four_or_more():
    for channels in range(4, 1025, 4):
        groups = norm_groups(channels)
        assert channels % groups == 0
        assert groups <= 32
        assert channels // groups >= 4
    with pytest.raises(ValueError, match="multiple of 4"):
        norm_groups(6)


def test_adaptive_norm_scales_and_shifts_the_plain_norm():
    torch.manual_seed(0)
    x, scale, shift = torch.randn(3, 8, 5, 5), torch.randn(3, 8, 1, 1), torch.randn(3, 8, 1, 1)
    plain = GroupNorm(8)(x)
    modulated = AdaptiveGroupNorm(8)(x, torch.cat([scale, shift], 1))
    torch.testing.assert_close(modulated, plain * (1 + scale) + shift)


def test_adaptive_norm_forgets_the_scale_and_offset_of_its_input():
    torch.manual_seed(0)
    x, film = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.zeros(2, 8, 1, 1).double()
    norm = AdaptiveGroupNorm(4)
    torch.testing.assert_close(norm(7 * x + 3, film), norm(x, film), rtol=1e-4, atol=1e-4)


def test_zero_init_keeps_the_module():
    layer = torch.nn.Linear(3, 2)
    assert zero_init(layer) is layer
    assert not any(p.any() for p in layer.parameters())
