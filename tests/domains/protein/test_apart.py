"""Residues that come too near are moved apart, and what is well is left alone."""

import numpy as np
import pytest
import torch
from support.backbones import made, read
from support.protein_run import make_run

from sciffusion import Backbones
from sciffusion.core.cond import Cond
from sciffusion.core.geometry import random_rotations
from sciffusion.core.projection import Projected, with_known
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import Euler
from sciffusion.domains.protein.apart import LEAST, ROOM, Apart
from sciffusion.domains.protein.domain import layout
from sciffusion.domains.protein.generate import Generator
from sciffusion.domains.protein.requests import Settings
from sciffusion.domains.protein.validity import bond_lengths, clash_pairs


@pytest.fixture
def case():
    """Two strands, one pushed into the other; each is a chain."""
    one, two = (torch.from_numpy(made(12, "strand", seed=k).coords).double() for k in (1, 2))
    x0 = torch.cat([one, two + torch.tensor([0.0, 0.0, 1.5])])[None]
    assert len(clash_pairs(read(x0[0], [12, 12]))) > 3
    return x0, Cond({k: v[None] for k, v in layout([12, 12], 24).items()})


def clashes(x):
    return len(clash_pairs(read(x[0], [12, 12])))


def bonds(x):
    return np.concatenate(list(bond_lengths(read(x[0], [12, 12])).values()))


@pytest.mark.parametrize("distances", [ROOM, LEAST])
def test_no_clash_is_left(case, distances):
    x0, cond = case
    found = Apart(*distances)(x0, cond)
    assert clashes(found) == 0
    moved = float((found - x0).norm(dim=-1).max())
    assert np.abs(bonds(found) - bonds(x0)).max() < 0.2 * moved
    turn = random_rotations(Rng(2, torch.arange(1)), dtype=torch.float64)[0]
    torch.testing.assert_close(Apart(*distances)(x0 @ turn + 3.0, cond), found @ turn + 3.0)


def test_a_fold_without_clashes_is_left_alone():
    x0 = torch.from_numpy(made(30, "helix").coords).double()[None]
    cond = Cond({k: v[None] for k, v in layout([30], 30).items()})
    torch.testing.assert_close(Apart(*ROOM)(x0, cond), x0)


def test_padding_and_other_samples_do_not_matter(case):
    x0, cond = case
    both = torch.zeros(2, 40, 4, 3, dtype=torch.float64)
    both[0, :24] = x0[0]
    helix = torch.from_numpy(made(30, "helix").coords).double()
    both[1, :30] = helix
    rows = [layout(chains, 40) for chains in ([12, 12], [30])]
    found = Apart(*ROOM)(both, Cond({k: torch.stack([r[k] for r in rows]) for k in rows[0]}))
    torch.testing.assert_close(found[:1, :24], Apart(*ROOM)(x0, cond))
    torch.testing.assert_close(found[1], both[1])
    assert not found[0, 24:].any()


def test_a_motif_does_not_give_way(case):
    x0, cond = case
    group = torch.zeros(1, 24, dtype=torch.int64)
    group[0, :12] = 1
    found = Apart(*ROOM)(x0, with_known(cond, x0, group))
    torch.testing.assert_close(found[:, :12], x0[:, :12])
    assert clashes(found) == 0
    group[0, 12:] = 2  # two groups: both move, as rigid bodies
    both = Apart(*ROOM)(x0, with_known(cond, x0, group))
    assert clashes(both) == 0
    for mine in (slice(0, 12), slice(12, 24)):
        shift = (both - x0)[0, mine].flatten(0, 1)
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))
        assert float(shift.norm(dim=-1)[0]) > 0.1


def test_samples_are_parted_unless_it_is_switched_off(tmp_path):
    model = Backbones.from_pretrained(make_run(tmp_path / "run"))

    def drawn(**settings):
        asked = Settings(n=4, length=40, **settings)
        generator = Generator(model.domain, model.denoiser, Euler(8), asked)
        assert isinstance(generator.denoiser, Projected) == settings.get("apart", True)
        return sum(len(clash_pairs(d.backbone)) for d in generator(range(4)))

    assert drawn() < drawn(apart=False)
