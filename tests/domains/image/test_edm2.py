"""EDM2's U-Net: activations and weights of one size, where ADM's are not; what it may not see."""

import pytest
import torch

from sciffusion.core.cond import Cond
from sciffusion.core.losses import DenoisingLoss
from sciffusion.core.rng import Rng
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.domains.image.edm2 import Block, EDM2UNet, edm2_for_size
from sciffusion.domains.image.model import UNet, unet_for_size
from sciffusion.io.config import compose
from sciffusion.nn.magnitude import mp_silu, mp_sum, normalize, weight_error
from sciffusion.training.fit import make_module

SMALL = {"in_channels": 1, "image_size": 8, "channels": 16, "blocks": 1, "head_channels": 16}


def sizes(network, x, log_snr, cond):
    """Root mean square of the features after each block, in order."""
    found = []
    blocks = [*network.down, *network.mid, *network.up]
    hooks = [
        b.register_forward_hook(lambda m, i, y: found.append(float(y.square().mean().sqrt())))
        for b in blocks
    ]
    with torch.no_grad():
        network(x, log_snr, cond)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(blocks)
    return torch.tensor(found)


def trained(model, steps=40):
    """(sizes at the start, sizes after some steps of EDM2's recipe, the network)."""
    settings = [f"model.{k}={v}" for k, v in SMALL.items() if "_size" not in k and "in_" not in k]
    config = compose(
        "train", ["experiment=edm2", f"model={model}", *settings, "model.channel_mult=[1,2]",
                  "model.attention_levels=[1]", "rate.lr=1e-2", "rate.warmup=5",
                  "rate.reference=20"],
    )  # fmt: skip
    domain = ImageDomain(config["data"])
    module = make_module(domain, config)
    optimizer = module.configure_optimizers()
    batch = domain.train_set().gather(torch.arange(32)) | {"place": torch.arange(32)}
    x0, cond = domain.encode(batch, None)
    log_snr = torch.linspace(-8, 8, 32)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    s = (-0.5 * log_snr).exp()[:, None, None, None]
    x = (x0 + s * noise) / (domain.facts()["sigma_data"] ** 2 + s**2).sqrt()
    network = module.denoiser.network
    start = sizes(network, x, log_snr, cond)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = module.rate(step, steps)
        optimizer.zero_grad()
        module.loss_of(batch, step).mean().backward()
        optimizer.step()
    module.loss_of(batch, steps)  # a training forward
    return start, sizes(network, x, log_snr, cond), network


def test_activations_keep_their_size_through_depth_and_training_and_adm_s_do_not():
    """By the same steps. Trained weights know their inputs: some growth is theirs, not drift."""
    first, last, network = trained("edm2_unet")
    assert first.min() > 0.7
    assert first.max() < 1.3
    assert last.min() > 0.7
    assert last.max() < 4
    assert weight_error(network) < 1e-3
    first, last, _ = trained("unet")
    assert first.max() / first.min() > 3  # falls with depth
    assert (last / first).max() > 15  # and grows


def test_deep_and_wide_it_is_the_same():
    torch.manual_seed(0)
    network = EDM2UNet(3, 16, channels=8, channel_mult=(1, 2, 3, 4), blocks=3, head_channels=8)
    found = sizes(network, torch.randn(8, 3, 16, 16), torch.zeros(8), Cond())
    assert len(found) > 30
    assert found.min() > 0.7
    assert found.max() < 1.3


@pytest.mark.parametrize(("down", "came"), [(True, 8), (True, 16), (False, 8), (False, 16)])
def test_factors_in_the_weights_change_nothing(down, came):
    torch.manual_seed(0)
    block = Block(came, 16, 12, down, balance=0.4).double().eval()
    torch.nn.init.constant_(block.told.gain, 0.7)
    x, told = torch.randn(3, came, 4, 4).double(), torch.randn(3, 12).double()
    h = normalize(block.skip(x), 1) if down else x
    y = block.conv1(mp_silu(h)) * (1 + block.told(told))[..., None, None]
    y = block.conv2(mp_silu(y))
    torch.testing.assert_close(block(x, told), mp_sum(h if down else block.skip(h), y, 0.4))


def test_no_biases_and_no_norms():
    network = EDM2UNet(**SMALL, num_classes=3)
    names = {k.rpartition(".")[2] for k, _ in network.named_parameters()}
    assert names == {"weight", "gain"}
    assert not any("Norm" in type(m).__name__ for m in network.modules())


def test_a_new_network_answers_zero_and_learns():
    network = EDM2UNet(**SMALL)
    x, log_snr = torch.randn(4, 1, 8, 8), torch.zeros(4)
    assert not network(x, log_snr, Cond()).any()
    network(x, log_snr, Cond()).sub(x).square().mean().backward()
    assert network.conv_out.gain.grad.abs() > 1e-4


def test_what_is_dropped_is_as_if_it_were_not_said():
    torch.manual_seed(0)
    network = EDM2UNet(**SMALL, num_classes=3).eval()
    for p in network.parameters():
        p.data.add_(0.3)
    x, log_snr = torch.randn(2, 1, 8, 8), torch.zeros(2)
    one = Cond(condition={"label": torch.tensor([1, 1])})
    two = Cond(condition={"label": torch.tensor([2, 0])})
    assert not torch.allclose(network(x, log_snr, one), network(x, log_snr, two), atol=1e-3)
    dropped = [network(x, log_snr, c.with_keep(torch.tensor([False] * 2))) for c in (one, two)]
    assert torch.equal(*dropped)
    assert torch.equal(dropped[0], network(x, log_snr, Cond()))


@pytest.mark.parametrize("size", [8, 32, 64])
def test_it_has_the_shape_of_the_other_u_net(size):
    """Parameters within a quarter at equal channels; the same levels and blocks."""
    kinds = [make(3, size, channels=8, head_channels=8) for make in (unet_for_size, edm2_for_size)]
    for part in ("down", "mid", "up"):
        assert len(getattr(kinds[0], part)) == len(getattr(kinds[1], part))
    adm, edm2 = (sum(p.numel() for p in k.parameters()) for k in kinds)
    assert 0.7 < edm2 / adm < 1.3


def test_sizes_that_do_not_fit_are_refused_alike():
    for kind in (UNet, EDM2UNet):
        with pytest.raises(ValueError, match="7 x 7 must be a multiple of 2"):
            kind(1, 7)
        with pytest.raises(ValueError, match=r"\[5\] do not exist"):
            kind(1, 8, attention_levels=(5,))


def test_uncertainty_learns_the_loss_of_each_level():
    """u -> ln E[w err^2]: with it every level counts alike."""
    config = compose("train", ["experiment=edm2", "model.channels=8", "model.head_channels=8"])
    domain = ImageDomain(config["data"])
    module = make_module(domain, config)
    loss = module.loss
    x0 = torch.randn(4096, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = DenoisingLoss(loss.times, loss.weighting)
    rng = Rng(0, torch.arange(len(x0)))
    cond = Cond(condition={"label": torch.zeros(len(x0), dtype=torch.long)})
    with torch.no_grad():
        denoiser = module.denoiser
        raw = plain(denoiser, x0, cond, rng)
        t = loss.times.sample(rng, denoiser.schedule)
        log_snr = denoiser.schedule.log_snr(t).float()
    optimizer = torch.optim.Adam(loss.uncertainty.parameters(), 0.05)
    for _ in range(200):
        u = loss.uncertainty(log_snr)
        optimizer.zero_grad()
        (raw * (-u).exp() + u).mean().backward()
        optimizer.step()
    order = log_snr.argsort()
    for part in order.chunk(4):
        ratio = float((raw[part] * (-u[part].detach()).exp()).mean())
        assert ratio == pytest.approx(1, abs=0.1)
