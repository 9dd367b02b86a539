"""The denoisers of backbones: symmetries exactly where promised, handedness, padding, chains."""

import pytest
import torch
from e3nn import o3

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS
from sciffusion.domains.protein.domain import layout
from sciffusion.domains.protein.edm2 import MPTransformerBackbone
from sciffusion.domains.protein.embedding import Told
from sciffusion.domains.protein.model import EquivariantBackbone
from sciffusion.domains.protein.transformer import TransformerBackbone
from sciffusion.nn.magnitude import weight_error

SMALL = {
    "irreps": "16x0e+8x1e", "edge": "8x0e+8x1e", "value": "8x0e+8x1e", "mixed": "4x0e+8x1e",
    "layers": 2, "heads": 4,
    "pair_dim": 8, "near": 4, "hidden": 8, "radial": 8,
}  # fmt: skip
HIGHER = SMALL | {
    "irreps": "16x0e+8x1e+4x2e",
    "edge": "8x0e+8x1e+4x2e",
    "value": "8x0e+8x1e+4x2e",
    "mixed": "4x0e+8x1e+8x2e",
}
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def shaken(network):
    """Weights that are not at their start, where the answer is zero."""
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.eval().requires_grad_(False)


def request(chains=((20, 12), (17,)), padded=36, previous=True):
    rows = [layout(c, padded) for c in chains]
    cond = Cond(
        {k: torch.stack([r[k] for r in rows]) for k in rows[0]},
        {"secondary": torch.randint(0, 4, (len(rows), padded)), "label": torch.tensor([1, 0])},
    )
    x = torch.randn(len(rows), padded, 4, 3) * cond.mask[..., None, None]
    if previous:
        thought = 8 * torch.randn_like(x) * cond.mask[..., None, None]
        cond = cond.with_structure(**{PREVIOUS: thought})
    return x, torch.tensor([0.5, 4.0]), cond


def moved(cond, turn):
    return cond.with_structure(**{PREVIOUS: cond.structure[PREVIOUS] @ turn.mT})


NETWORKS = [
    lambda: EquivariantBackbone(**SMALL, classes=2),
    lambda: EquivariantBackbone(**HIGHER, classes=2, ends=8),
    lambda: TransformerBackbone(16, 2, 4, 8, 8, classes=2),
    lambda: MPTransformerBackbone(16, 2, 4, 8, 8, classes=2),
]


@pytest.mark.parametrize("make", NETWORKS[:2])
def test_rotations_and_translations_pass_through(make):
    network, (x, level, cond) = shaken(make()), request()
    turn = o3.rand_matrix()
    answer = network(x, level, cond)
    shifted = (x @ turn.mT + 3.0) * cond.mask[..., None, None]
    error = network(shifted, level, moved(cond, turn)) - answer @ turn.mT
    assert float(error.abs().max() / answer.abs().max()) < 1e-9


@pytest.mark.parametrize("make", NETWORKS)
def test_a_mirror_image_gets_another_answer(make):
    network, (x, level, cond) = shaken(make()), request()
    answer = network(x, level, cond)
    error = network(x @ MIRROR, level, moved(cond, MIRROR)) - answer @ MIRROR
    assert float(error.abs().max() / answer.abs().max()) > 1e-2


def test_the_transformer_must_learn_rotations():
    network, (x, level, cond) = shaken(NETWORKS[2]()), request()
    turn = o3.rand_matrix()
    answer = network(x, level, cond)
    error = network(x @ turn.mT, level, moved(cond, turn)) - answer @ turn.mT
    assert float(error.abs().max() / answer.abs().max()) > 1e-2


@pytest.mark.parametrize("make", NETWORKS)
def test_padding_and_company_change_nothing(make):
    network, (x, level, cond) = shaken(make()), request()
    both = network(x, level, cond)
    one = slice(1, 2)
    small = cond[one].map(lambda v: v[:, :17] if v.ndim > 1 else v)
    alone = network(x[one, :17], level[one], small)
    assert torch.allclose(both[one, :17], alone, atol=1e-9)
    assert float(both[one, 17:].abs().max()) == 0


@pytest.mark.parametrize("make", NETWORKS)
def test_chains_may_stand_in_any_order(make):
    network, (x, level, cond) = shaken(make()), request(((20, 12), (9, 23)), 32)
    order = torch.cat([torch.arange(20, 32), torch.arange(20)])
    swapped = cond.map(lambda v: v[:, order] if v.ndim > 1 else v)
    swapped = Cond(
        {k: v[:1] for k, v in swapped.structure.items()},
        {k: v[:1] for k, v in swapped.condition.items()},
    )
    first = network(x[:1], level[:1], cond[:1])
    answer = network(x[:1, order], level[:1], swapped)
    assert torch.allclose(answer, first[:, order], atol=1e-9)


@pytest.mark.parametrize("make", NETWORKS)
def test_what_is_dropped_is_as_if_it_were_not_said(make):
    network, (x, level, cond) = shaken(make()), request()
    answer = network(x, level, cond)
    dropped = network(x, level, cond.with_keep(torch.zeros(2, dtype=torch.bool)))
    silent = network(x, level, Cond(cond.structure))
    assert torch.equal(dropped, silent)
    assert float((answer - silent).abs().max()) > 1e-6


@pytest.mark.parametrize("make", NETWORKS)
def test_a_last_thought_that_is_zero_is_none(make):
    network, (x, level, cond) = shaken(make()), request()
    none = network(x, level, Cond({k: v for k, v in cond.structure.items() if k != PREVIOUS}))
    plain = cond.with_structure(**{PREVIOUS: torch.zeros_like(x)})
    assert torch.allclose(network(x, level, plain), network(x, level, Cond(
        {k: v for k, v in plain.structure.items() if k != PREVIOUS}, cond.condition)))  # fmt: skip
    assert float((network(x, level, cond) - none).abs().max()) > 1e-6


@pytest.mark.parametrize("ends", [0, 8])
def test_ends_tell_residues_of_a_long_chain_apart(ends):
    """However the chain is numbered; two that are as far from both ends are of other chains."""
    told = shaken(Told(16, ends=ends))
    cond = Cond({k: v[None] for k, v in layout((120, 120), 240).items()})
    renumbered = cond.with_structure(residue=cond.structure["residue"] + 1000)
    answer = told(torch.zeros(1), cond)[0][0]
    assert torch.allclose(answer, told(torch.zeros(1), renumbered)[0][0])
    assert torch.allclose(answer[:120], answer[120:])
    assert (float(torch.pdist(answer[:120]).min()) > 1e-3) == bool(ends)


def test_widths_that_do_not_fit_are_refused():
    widths = ({"heads": 3}, {"irreps": "16x0e"}, {"edge": "8x0e+8x1e+4x2e"})
    for wrong in (*widths, {"ends": 7}, {"ends": -2}):
        with pytest.raises(ValueError, match=r"heads|irreps|ends"):
            EquivariantBackbone(**(SMALL | wrong))


def test_tokens_keep_their_size_through_magnitude_preserving_layers():
    """At the start; the plain transformer's do not. Nothing but weights and gains is learned."""
    sizes, (x, level, cond) = {}, request()
    real = cond.mask
    for kind in (MPTransformerBackbone, TransformerBackbone):
        network, found = kind(32, 12, 4, 8, 8, classes=2), []
        for layer in network.layers:
            layer.register_forward_hook(
                lambda m, i, y, f=found: f.append(float(y[real].detach().square().mean().sqrt()))
            )
        network(x, level, cond)
        sizes[kind] = torch.tensor(found)
        if kind is MPTransformerBackbone:
            names = {k.rpartition(".")[2] for k, _ in network.named_parameters()}
            assert names == {"weight", "gain"}
            assert weight_error(network) < 1e-3
    assert sizes[MPTransformerBackbone].min() > 0.7
    assert sizes[MPTransformerBackbone].max() < 1.3
    plain = sizes[TransformerBackbone]
    assert plain.max() / plain.min() > 1.5
