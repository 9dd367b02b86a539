"""Backbones led by potentials: energies by hand, samples that obey, requests that are refused."""

import numpy as np
import pytest
import torch
from support.protein_run import make_run

from sciffusion import sample
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.samplers import Churn
from sciffusion.core.schedules import EDM
from sciffusion.core.spaces import ZeroCoM
from sciffusion.domains.protein.domain import layout
from sciffusion.domains.protein.potentials import Contacts, Hotspots, led

GUIDE = {
    "radius": None, "contacts": None, "hotspots": None, "distance": 8.0, "radius_strength": 1.0,
    "contact_strength": 1.0, "hotspot_strength": 1.0, "below": float("inf"), "limit": 2.0,
}  # fmt: skip


def row(places):
    """Residues along x, all four atoms in one place."""
    x = torch.zeros(1, len(places), 4, 3)
    x[..., 0] = torch.tensor(places)[None, :, None]
    return x


def test_energies_by_hand():
    x = row([0.0, 3.0, 20.0])
    pairs = torch.tensor([[0, 1], [0, 2]])
    assert Contacts(pairs, 8.0).energy(x, Cond()).item() == pytest.approx(0.5 * 12**2)
    chain = torch.tensor([[0, 0, 1]])
    spot = Hotspots(torch.tensor([1]), 8.0)
    two = Cond({"chain": chain, "mask": torch.ones(1, 3) > 0})
    assert spot.energy(x, two).item() == pytest.approx(0.5 * 9**2)


@pytest.mark.parametrize(
    ("settings", "chains"),
    [({"radius": 5.0}, [30]), ({"contacts": "1-30,5-25"}, [30]), ({"hotspots": "3,8"}, [12, 18])],
)
def test_samples_obey(settings, chains):
    space, schedule = ZeroCoM(), EDM(160.0)

    def thought(x, t, cond):
        return space.project(x / (1 + (schedule.sigma(t).to(x) / 8.0).view(-1, 1, 1, 1) ** 2), cond)

    free = FunctionDenoiser(thought, schedule, space)
    rows = layout(chains, 32)
    cond = Cond({k: v.expand(4, *v.shape) for k, v in rows.items()})
    sampler = Churn(40, gamma=0.3, noise_scale=1.0)
    guided = led(free, GUIDE | settings, [chains])
    energy = [
        guided.log_likelihood(sampler(d, (32, 4, 3), cond, n=4).x, cond) for d in (free, guided)
    ]
    assert energy[1].mean() > 0.3 * energy[0].mean()  # both are negative
    assert led(free, GUIDE, [chains]) is free


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "protein")


def test_on_the_command_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = []
    for name, more in (("a/", []), ("b/", ["guide.radius=3", "guide.radius_strength=50"])):
        sample.main([f"run={run}", "device=cpu", "length=14", "n=1", f"out={name}", *more])
        text = (tmp_path / name / "design_00000.pdb").read_text()
        lines = [v for v in text.splitlines() if v.startswith("ATOM") and v[12:16].strip() == "CA"]
        x = np.array([[float(v[k : k + 8]) for k in (30, 38, 46)] for v in lines])
        places.append(np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean()))
    assert "radius" in text
    assert abs(places[1] - 3) < abs(places[0] - 3)
    sample.main([f"run={run}", "device=cpu", "length=14", "n=1", "out=c/", f"guidance.by={run}"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["guide.contacts=3-99"], "no residue 99"),
        (["guide.contacts=3"], "no pair"),
        (["guide.contacts=a-b"], "whole numbers"),
        (["guide.hotspots=0"], "no residue 0"),
        (["guide.radius=-1"], "more than 0"),
        (["guide.radius=5", "guide.limit=0"], "guide.limit"),
        (["guide.radius=5", "guide.radius_strength=-1"], "guide.radius_strength"),
        (["guidance.by=nowhere"], "nowhere"),
    ],
)
def test_wrong_requests(settings, says, run, refused):
    assert says in refused("sample", f"run={run}", "device=cpu", "length=14", "n=1", *settings)
