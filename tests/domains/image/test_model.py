import pytest
import torch

from sciffusion.core.cond import Cond
from sciffusion.domains.image.model import UNet

SMALL = {"in_channels": 3, "image_size": 8, "channels": 8, "blocks": 1, "head_channels": 8}


def perturbed(**options):
    """A network whose zero layers have been moved, as after a little training."""
    torch.manual_seed(0)
    net = UNet(**SMALL | options).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def inputs(b=4, c=3, size=8, dtype=torch.float32):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(b, c, size, size, generator=g, dtype=torch.float64)
    return x.to(dtype), torch.linspace(-8, 8, b, dtype=dtype)


def labels(*values, keep=None):
    keep = None if keep is None else torch.tensor(keep)
    return Cond(condition={"label": torch.tensor(values)}, keep=keep)


def test_a_new_network_answers_zero():
    assert not UNet(**SMALL)(*inputs(), Cond()).any()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_answers_are_as_large_as_asked(channels):
    x, log_snr = inputs(c=channels)
    plain = UNet(**SMALL | {"in_channels": channels})
    both = UNet(**SMALL | {"in_channels": channels, "out_channels": 2 * channels})
    assert plain(x, log_snr, Cond()).shape == x.shape
    assert both(x, log_snr, Cond()).shape == (len(x), 2 * channels, 8, 8)


def test_noise_level_and_label_matter_and_a_dropped_label_does_not():
    net = perturbed(num_classes=3)
    x, log_snr = inputs()
    base = net(x, log_snr, labels(0, 0, 0, 0))
    assert not torch.allclose(net(x, log_snr + 1, labels(0, 0, 0, 0)), base, atol=1e-3)
    assert not torch.allclose(net(x, log_snr, labels(1, 1, 1, 1)), base, atol=1e-3)
    dropped = net(x, log_snr, labels(0, 1, 2, 1, keep=[False] * 4))
    assert torch.equal(dropped, net(x, log_snr, labels(2, 2, 0, 0, keep=[False] * 4)))
    assert torch.equal(dropped, net(x, log_snr, Cond()))


def test_a_network_without_classes_ignores_labels():
    net = perturbed()
    x, log_snr = inputs()
    assert torch.equal(net(x, log_snr, labels(0, 1, 2, 3)), net(x, log_snr, Cond()))


def test_infinite_noise_levels_give_finite_answers():
    x, _ = inputs(b=2)
    assert perturbed()(x, torch.tensor([-torch.inf, torch.inf]), Cond()).isfinite().all()


def test_a_sample_does_not_see_its_batch():
    net = perturbed(num_classes=3)
    x, log_snr = inputs()
    together = net(x, log_snr, labels(0, 1, 2, 0))
    alone = torch.cat([net(x[i : i + 1], log_snr[i : i + 1], labels(i % 3)) for i in range(4)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)


def test_memory_layout_does_not_matter():
    net = perturbed()
    x, log_snr = inputs()
    answer = net(x, log_snr, Cond())
    last = torch.channels_last
    again = net.to(memory_format=last)(x.contiguous(memory_format=last), log_snr, Cond())
    torch.testing.assert_close(again, answer, rtol=1e-4, atol=1e-4)
    assert answer.is_contiguous()


def test_double_precision_agrees_with_single_and_is_kept():
    net = perturbed(num_classes=3)
    single = net(*inputs(), labels(0, 1, 2, 0))
    double = net.double()(*inputs(dtype=torch.float64), labels(0, 1, 2, 0))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-3)


def test_bfloat16_autocast_agrees_and_trains():
    net = perturbed()
    x, log_snr = inputs()
    full = net(x, log_snr, Cond())
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, log_snr, Cond())
    assert (half.float() - full).square().mean().sqrt() < 0.1 * full.std()
    half.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_gradient_reaches_every_parameter():
    net = perturbed(num_classes=3, channel_mult=(1, 2, 2))
    x, log_snr = inputs()
    keep = [True, True, True, False]
    net(x, log_snr, labels(0, 1, 2, 0, keep=keep)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_dropout_acts_in_training_only():
    net = perturbed(dropout=0.5)
    x, log_snr = inputs()
    assert torch.equal(net(x, log_snr, Cond()), net(x, log_snr, Cond()))
    net.train()
    assert not torch.equal(net(x, log_snr, Cond()), net(x, log_snr, Cond()))


def test_attention_lets_every_pixel_see_every_other():
    net = perturbed(attention_levels=(0,), channel_mult=(1,))
    x, log_snr = inputs(b=1)
    x.requires_grad_()
    net(x, log_snr, Cond())[0, 0, 0, 0].backward()
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("size", [7, 10])
def test_sizes_that_do_not_halve_are_refused(size):
    with pytest.raises(ValueError, match=rf"{size} x {size} must be a multiple of 4"):
        UNet(**SMALL | {"image_size": size, "channel_mult": (1, 1, 1)})
    net = UNet(**SMALL | {"channel_mult": (1, 1, 1)})
    with pytest.raises(ValueError, match="multiple of 4"):
        net(*inputs(size=size), Cond())


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"\[2\]"):
        UNet(**SMALL | {"attention_levels": (1, 2)})


@pytest.mark.slow
def test_compiled_agrees():
    net = perturbed()
    x, log_snr = inputs()
    answer = torch.compile(net, fullgraph=True, backend="aot_eager")(x, log_snr, Cond())
    torch.testing.assert_close(answer, net(x, log_snr, Cond()), rtol=1e-4, atol=1e-4)
