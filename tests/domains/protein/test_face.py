"""`Backbones` from Python."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.backbones import made
from support.protein_run import make_run

from sciffusion import Backbones, resources
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, State
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDIM, DPMSolverPP, alphafold3
from sciffusion.domains.protein.generate import turned, warmed
from sciffusion.domains.protein.partial import rmsd
from sciffusion.domains.protein.symmetry import point_group
from sciffusion.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = make_run(tmp_path_factory.mktemp("protein"), "model.classes=3")
    return Backbones.from_pretrained(path, device="cpu")


def assert_same(found, others):
    assert [len(b) for b in found] == [len(b) for b in others]
    for a, b in zip(found, others, strict=True):
        np.testing.assert_allclose(a.coords, b.coords, atol=2e-3)


def test_samples(model):
    found = model.sample(length="12-20", n=5)
    assert len(found) == 5
    assert all(12 <= len(b) <= 20 and np.isfinite(b.coords).all() for b in found)
    assert len({b.name for b in found}) == 5
    assert set(found[0].chain) == {"A"}
    assert found[0].number.tolist() == list(range(1, len(found[0]) + 1))
    (two,) = model.sample(length="5+7", n=1)
    assert "".join(two.chain) == "AAAAABBBBBBB"
    assert two.number.tolist() == [*range(1, 6), *range(1, 8)]


def test_a_sample_is_the_same_in_any_batch(model):
    """Alone, padded among longer ones, or fewer of them."""
    together = model.sample(length="12-40", n=6, seed=3)
    assert_same(together, model.sample(length="12-40", n=6, seed=3, batch=1))
    assert_same(together[:4], model.sample(length="12-40", n=4, seed=3))
    other = model.sample(length="12-40", n=6, seed=4)
    assert [len(b) for b in other] != [len(b) for b in together]


def test_what_is_told_is_heard(model):
    plain = model.sample(length=12, n=1)[0].coords
    for told in ({"ss": "H" * 12}, {"helix": 0.9}, {"strand": 0.5}, {"label": 2}):
        once = model.sample(length=12, n=1, **told)[0].coords
        assert np.abs(once - plain).max() > 0.01
        guided = model.sample(length=12, n=1, guidance=3.0, **told)[0].coords
        assert np.abs(guided - once).max() > 0.01
    assert_same(model.sample(length=12, n=1), model.sample(ss="X" * 12, n=1))


def test_lengths_beyond_training_work_and_are_told_once(model):
    with pytest.warns(UserWarning, match="70 residues are more") as said:
        found = model.sample(length=70, n=2)
    assert len(said) == 1
    assert [len(b) for b in found] == [70, 70]


@pytest.mark.filterwarnings("ignore:.* residues are more than")
@pytest.mark.parametrize("name", ["C3", "D2", "T"])
def test_symmetric_samples(name, model):
    group = point_group(name).numpy()
    for length, size in (("5-9", None), ("3+2", 5)):
        found = model.sample(length=length, n=3, symmetry=name)
        for b in found:
            assert len(b.chains) == len(group) * (1 if size is None else 2)
            copies = b.coords.reshape(len(group), -1, 4, 3)
            turned_first = np.einsum("gij,laj->glai", group, copies[0])
            assert np.abs(copies - turned_first).max() < 1e-3


@pytest.fixture
def origin():
    """Two chains with numbers, insertion codes and a gap of their own."""
    one, other = made(14, "helix", seed=5), made(10, "strand", seed=6)
    return replace(
        one,
        coords=np.concatenate([one.coords + 30, other.coords + 42]),
        sequence="ACDEFGHIKLMNPQRSTVWYACDE",
        chain=np.array(["H"] * 14 + ["L"] * 10),
        number=np.array([*range(5, 15), 14, 15, 16, 17, *range(1, 6), *range(9, 14)]),
        insertion=np.array([""] * 10 + ["A"] + [""] * 13),
    )


def test_partial_diffusion_varies_a_structure_where_it_lies(model, origin):
    off = []
    for noise in (0.05, 1.0, 12.0):
        found = model.sample(origin=origin, noise=noise, n=3)
        off.append(np.median([rmsd(b, origin) for b in found]))
        for b in found:
            assert b.sequence == origin.sequence
            for what in ("chain", "number", "insertion"):
                assert getattr(b, what).tolist() == getattr(origin, what).tolist()
            apart = b.coords - origin.coords
            assert np.sqrt((apart**2).sum(-1).mean()) == pytest.approx(rmsd(b, origin), abs=1e-4)
            assert np.abs(apart.mean((0, 1))).max() < 1e-3
        assert np.abs(found[0].coords - found[1].coords).max() > 0.1 * noise
    assert off[0] < 0.3
    assert off[0] < off[1] < off[2]


def test_partial_diffusion_of_a_turned_structure_is_as_different(model, origin):
    """The network has no preferred direction: a helix standing or lying varies alike."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    other = replace(origin, coords=origin.coords @ turn.T)
    a, b = (np.mean([rmsd(s, o) for s in model.sample(origin=o, noise=2.0, n=12)])
            for o in (origin, other))  # fmt: skip
    assert a == pytest.approx(b, rel=0.2)


def test_biopython(model):
    pytest.importorskip("Bio")
    found = model.sample(length="3+4", n=2)
    for backbone, structure in zip(found, model.structures(found), strict=True):
        assert [c.id for c in structure.get_chains()] == ["A", "B"]
        points = np.array([a.coord for a in structure.get_atoms()]).reshape(-1, 4, 3)
        np.testing.assert_allclose(points, backbone.coords, atol=1e-4)


def test_temperature_scales_the_noise_that_is_stirred_in(model):
    sampler = alphafold3(3)
    before = sampler.noise_scale
    assert warmed(sampler, 0.5).noise_scale == before / 2
    assert sampler.noise_scale == before
    assert warmed(sampler, None) is sampler
    hot, cold = (model.sample(length=10, n=1, temperature=t)[0].coords for t in (1.0, 0.2))
    assert np.abs(hot - cold).max() > 0.01
    assert_same(model.sample(length=10, n=1, temperature=1.0), model.sample(length=10, n=1))
    with pytest.raises(InputError, match="DDIM stirs in no noise"):
        model.sample(length=10, sampler=DDIM(3), temperature=0.5)


def test_turning_turns_what_is_remembered_too():
    x = torch.randn(3, 5, 4, 3, dtype=torch.float64)
    state = State(Rng(0, torch.arange(3)))
    state.memory[PREVIOUS] = torch.cat([x, 2 * x])  # as guidance has it
    zero = torch.zeros(())
    y = turned(x, zero, zero, Cond(), state)
    assert (y - x).abs().amax((1, 2, 3)).min() > 0.1
    torch.testing.assert_close(torch.cdist(y.flatten(1, 2), y.flatten(1, 2)),
                               torch.cdist(x.flatten(1, 2), x.flatten(1, 2)))  # fmt: skip
    torch.testing.assert_close(state.memory[PREVIOUS], torch.cat([y, 2 * y]))


@pytest.mark.parametrize("sampler", [DDIM(6), DPMSolverPP(6), DPMSolverPP(6, order=3)])
def test_turning_does_not_change_what_an_equivariant_network_draws(sampler, model):
    ask = {"length": 10, "n": 2, "sampler": sampler, "guidance": 2.0, "ss": "H" * 10}
    turned, plain = model.sample(rotate=True, **ask), model.sample(**ask)
    for a, b in zip(turned, plain, strict=True):
        assert rmsd(a, b) < 1e-3
        assert np.abs(a.coords - b.coords).max() > 0.1


@pytest.mark.filterwarnings("ignore:.* residues are more than")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"length": 0}, "length=0"),
        ({"symmetry": "C99"}, "symmetry=C99"),
        ({"symmetry": "round"}, "symmetry=round"),
        ({"label": 3}, "classes 0 to 2"),
        ({"batch": 0}, "batch=0"),
        ({"n": 0}, "n=0"),
        ({"origin": "nowhere.pdb"}, "nowhere.pdb"),
        ({"origin": made(9), "noise": 200.0}, "noise=200"),
        ({"origin": made(9), "noise": 0.0}, "noise=0"),
        ({"symmetry": "I", "length": "1+1"}, "chains"),
    ],
)
def test_refused(wrong, says, model):
    with pytest.raises(InputError) as refused:
        model.sample(**wrong)
    assert says in str(refused.value)


def test_labels_need_classes(tmp_path):
    model = Backbones.from_pretrained(make_run(tmp_path), device="cpu")
    with pytest.raises(InputError, match="without classes"):
        model.sample(length=5, label=0)


def test_no_packaged_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "PACKAGE", tmp_path)
    with pytest.raises(InputError, match="domain=protein"):
        Backbones.from_pretrained()


def test_importing_is_cheap():
    code = (
        "import sys; from sciffusion import Backbones; "
        "assert not {'torch', 'Bio', 'e3nn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
