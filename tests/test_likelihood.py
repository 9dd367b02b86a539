"""`sciffusion.likelihood` as people meet it."""

import json

import pytest
import torch
from support.protein_run import make_run

from sciffusion import likelihood, resources
from sciffusion.core.likelihood import ProbabilityFlow
from sciffusion.core.rng import Rng
from sciffusion.domains.base import load_model
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.io.config import compose


def test_images_in_bits(run, tmp_path, capsys):
    out = tmp_path / "found.json"
    quick = ["n=3", "tolerance=0.03", "sigma_min=0.2", f"out={out}", "round_trip=1"]
    likelihood.main([f"run={run}", *quick, "divergence=exact", "batch=2"])
    found = json.loads(out.read_text())
    assert "bits per dimension" in capsys.readouterr().out
    rows = {row["name"]: row for row in found["rows"]}
    bits, n = rows["bits per dimension"], rows["bits per dimension"]["n"]
    assert n == 3
    assert bits["low"] <= bits["value"] <= bits["high"]
    assert set(found["records"]["dim"]) == {64.0}
    exact = found["records"]["log_prob"]

    likelihood.main([f"run={run}", *quick, "probes=4", "batch=1"])
    records = json.loads(out.read_text())["records"]
    for a, b, error in zip(exact, records["log_prob"], records["error"], strict=True):
        assert abs(a - b) < 6 * error + 1  # the same records and noise, whatever the batch


def test_pixels_are_dequantised_within_their_level(run):
    domain = ImageDomain(compose("train", [])["data"])
    batch = domain.held_out().gather(torch.arange(3))
    x, _ = domain.continuous(batch, Rng(0, torch.arange(3)))
    assert torch.equal(((x + 1) * 127.5).round().byte(), batch["x"])
    assert domain.level == pytest.approx(2 / 255)


def test_molecules_in_nats(tmp_path, monkeypatch):
    """Packaged weights on Langevin frames of methanol: 3 (6 - 1) degrees of freedom."""
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    out = tmp_path / "found.json"
    likelihood.main(
        ["domain=molecule", "data=frames", "data.smiles=CO", "data.chains=4", "data.frames=3",
         "n=2", "tolerance=0.03", "sigma_min=0.2", f"out={out}", "round_trip=0"]
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert found["records"]["dim"] == [15.0, 15.0]
    names = [row["name"] for row in found["rows"]]
    assert names == ["log-likelihood", "negative log-likelihood per degree of freedom"]


def test_backbones_are_walked_back(tmp_path):
    """A backbone of L residues of four atoms: 3 (4 L - 1); the network's own samples return."""
    domain, denoiser, _ = load_model(make_run(tmp_path / "run"))
    shape, cond = domain.prior_cond(torch.arange(2), {"lengths": [[5], [8]]})
    flow = ProbabilityFlow(denoiser, rtol=1e-5, atol=1e-5, sigma_min=0.1)
    z = denoiser.space.noise(Rng(0, torch.arange(2)), "start", shape, cond)
    x = flow.decode(z, cond)
    back = flow.encode(x, cond)
    assert (back - z).norm() < 1e-3 * z.norm()
    assert denoiser.space.dim(x, cond).tolist() == [57.0, 93.0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "run=DIR"),
        (["run=nowhere"], "nowhere"),
        (["run=RUN", "n=0"], "n=0 must be at least 1"),
        (["run=RUN", "seed=-1"], "seed=-1 must be at least 0"),
        (["run=RUN", "probes=0"], "probes=0"),
        (["run=RUN", "divergence=exakt"], "exact or hutchinson"),
        (["run=RUN", "noise=cauchy"], "rademacher or gaussian"),
        (["run=RUN", "tolerance=-1"], "between 0 and 1"),
        (["run=RUN", "split=val"], "held_out or train"),
        (["run=RUN", "probez=2"], "did you mean probes?"),
        (["domain=molecule", "data=frames", "data.smiles=CO"], "out=FILE.json"),
        (["domain=molecule", "out=x.json"], "give data="),
    ],
)
def test_bad_input(arguments, says, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leave:
        likelihood.cli([a.replace("RUN", str(run)) for a in arguments])
    err = capsys.readouterr().err
    assert leave.value.code == 2
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit):
        likelihood.cli(["--help"])
    text = capsys.readouterr().out
    for line in resources.path("configs", "likelihood.yaml").read_text().splitlines()[1:]:
        assert line in text
