"""Distilling, end to end: a student is a run like any other, in every domain."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import assert_same, leaves

from sciffusion import distill, evaluate, export, sample, train
from sciffusion.core.samplers import Consistency
from sciffusion.domains.base import domain_class, load_model
from sciffusion.errors import InputError
from sciffusion.io.config import compose
from sciffusion.io.run import Run, load_checkpoint, load_into, load_tensors
from sciffusion.training.callbacks import Checkpoints
from sciffusion.training.fit import make_module

SHORT = (
    "trainer.steps=6",
    "trainer.batch_size=8",
    "trainer.accelerator=cpu",
    "trainer.log_every=1",
)
MEASURED = ("n=40", "extractor=rotation", "students=[1,2]", "teachers=[3]")


@pytest.fixture(scope="module")
def student(run, tmp_path_factory):
    """A student of the tiny run, measured beside it."""
    path = tmp_path_factory.mktemp("students") / "student"
    distill.main([f"run={run}", f"out={path}", *SHORT, *MEASURED])
    return path


def test_a_student_is_a_run_that_jumps(student, run, tmp_path):
    _, denoiser, config = load_model(student)
    assert denoiser.gives == config["gives"] == "jump"
    assert config["facts"] == load_model(run)[2]["facts"]
    assert Run(student).report.stat().st_size > 0
    for steps in (1, 3):
        out = tmp_path / str(steps)
        sample.main([f"run={student}", f"sampler.steps={steps}", "n=5", f"out={out}"])
        assert np.load(out / "samples.npz")["x"].shape == (5, 8, 8, 1)
    sample.main([f"run={student}", "sampler.levels=[2,0.5]", "n=5", f"out={tmp_path}"])
    export.main([f"run={student}", f"out={tmp_path / 'half'}"])
    assert load_model(tmp_path / "half")[1].gives == "jump"


def test_a_student_begins_as_its_teacher(run, tmp_path):
    """No longer than one step of nearly no size: the weights are the teacher's."""
    out = tmp_path / "student"
    distill.main(
        [f"run={run}", f"out={out}", *SHORT, "trainer.steps=1", "rate.lr=1e-12", "students=[]"]
    )
    ours, theirs = load_tensors(out), load_tensors(run)
    assert all((ours[k] - v).abs().max() < 1e-6 for k, v in theirs.items())
    x, t = torch.randn(4, 1, 8, 8), torch.tensor(0.01, dtype=torch.float64)
    a, b = (load_model(p)[1](x, t).x0 for p in (out, run))
    assert torch.allclose(a, b, atol=1e-5)


def test_the_table_has_the_teacher_beside_the_student(student):
    found = json.loads(
        (student / "few_steps.json").read_text(), parse_constant=lambda c: pytest.fail(c)
    )
    ways = {w["name"]: w for w in found["ways"]}
    assert list(ways) == ["teacher, 3 steps", "student, 1 step", "student, 2 steps"]
    assert [w["calls"] for w in ways.values()] == [3, 1, 2]
    text = (student / "few_steps.md").read_text()
    for way in ways.values():
        assert way["seconds"] > 0
        assert all(row["name"] in text for row in way["rows"])
        assert not any("bits" in row["name"] for row in way["rows"])


def test_a_student_is_evaluated_without_a_bound_on_its_likelihood(student, tmp_path):
    evaluate.main([f"run={student}", f"out={tmp_path}", "n=40", "extractor=rotation"])
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"]
    assert not any("bits" in row["name"] for row in rows)


def test_a_student_goes_on_with_the_teacher_that_it_began_with(run, refused, tmp_path):
    teacher, out = shutil.copytree(run, tmp_path / "teacher"), tmp_path / "student"
    how = [f"run={teacher}", f"out={out}", *SHORT, "students=[]"]
    distill.main(how)
    weights = {k: v + 0.1 for k, v in load_tensors(teacher).items()}
    save_file(weights, teacher / "model.safetensors")
    for again in (how, [f"out={out}", "students=[]"]):
        assert "has other weights" in refused("distill", *again)


def test_other_samplers_refuse_a_student_and_students_their_teachers(student, run, refused):
    assert "use a consistency sampler" in refused("sample", f"run={student}", "sampler=dpmpp")
    assert "distil it first" in refused("sample", f"run={run}", "sampler=consistency")
    line = refused("sample", f"run={student}", "sampler.levels=[0.5,2]")
    assert "does not fall" in line


def test_what_cannot_be_distilled_is_said_in_a_line(student, run, refused, tmp_path):
    def says(*arguments):
        return refused("distill", *arguments, f"out={tmp_path / 'new'}", *SHORT)

    assert "already" in says(f"run={student}")
    assert "is of domain=image" in says(f"run={run}", "domain=protein")
    assert "belongs to domain=molecule" in says(f"run={run}", "data=molecules")
    assert "leave it out" in says(f"run={run}", "model.channels=16")
    assert "consistency_distillation" in says(f"run={run}", "loss=edm")
    assert "nowhere" in says("run=nowhere")
    assert "give data=" in says("domain=molecule")
    assert "at least 1" in says(f"run={run}", "students=[0]")
    assert "did you mean trainer.steps" in says(f"run={run}", "trainer.stepz=3")
    assert "needs a teacher" in refused(
        "train", "loss=consistency_distillation", "sampler=consistency"
    )
    line = refused("distill", f"run={run}", f"out={student}", *SHORT, "rate.lr=1")
    assert "rate.lr would differ" in line
    assert "teacher's own directory" in refused("distill", f"run={run}", f"out={run}")
    assert "no student" in refused("distill", f"out={run}")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["schedule=cosine", "parameterization=eps", "sampler=ddim"], "eps-prediction"),
        (["schedule=flow", "parameterization=x0", "sampler=euler"], "x0-prediction"),
    ],
)
def test_parameterizations_that_cannot_jump_are_refused(settings, says, refused, tiny, tmp_path):
    path = tmp_path / "teacher"
    train.main([*tiny, "trainer.steps=1", *settings, f"run={path}"])
    assert says in refused("distill", f"run={path}", *SHORT)


@pytest.mark.parametrize(
    "settings",
    [
        ["schedule=vp", "parameterization=v", "sampler=ddim"],
        ["schedule=flow", "parameterization=velocity", "sampler=euler"],
    ],
)
@pytest.mark.parametrize("loss", ["consistency", "consistency_distillation"])
def test_other_schedules_are_served(settings, loss, tiny, tmp_path):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    train.main([*tiny, "trainer.steps=2", *settings, f"run={teacher}"])
    own = [f"run={teacher}", f"out={student}", f"loss={loss}", "students=[]"]
    distill.main([*own, *SHORT])
    domain, denoiser, _ = load_model(student)
    shape, cond = domain.prior_cond(torch.arange(3), {})
    assert Consistency(2)(denoiser, shape, cond, n=3).x.isfinite().all()


def test_a_boundary_of_one_s_own(run, tmp_path):
    out = tmp_path / "student"
    distill.main([f"run={run}", f"out={out}", *SHORT, "sigma_min=0.01", "students=[]"])
    denoiser = load_model(out)[1]
    x, t = torch.randn(4, 1, 8, 8), torch.tensor(0.01 / 80, dtype=torch.float64)
    assert denoiser.sigma_min == 0.01
    assert (denoiser(x, t).x0 - x).abs().max() < 1e-6


@pytest.mark.parametrize("loss", ["consistency", "consistency_distillation"])
def test_a_student_that_was_stopped_goes_on_as_if_it_was_not(loss, run, tmp_path, monkeypatch):
    """Stopped after 4 of 8 steps, in the middle of the schedule that brings t and r together."""
    whole, halves = Run(tmp_path / "whole"), Run(tmp_path / "halves")
    own = [f"run={run}", f"loss={loss}", "students=[]", *SHORT, "trainer.steps=8"]
    distill.main([*own, f"out={whole.path}"])

    after = Checkpoints.on_train_batch_end

    def stop(self, trainer, module, *rest):
        if module.done == 4:
            self._asked = 15
        after(self, trainer, module, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", stop)
        distill.main([*own, f"out={halves.path}"])
    assert load_checkpoint(halves.checkpoint)["step"] == 4
    distill.main([f"out={halves.path}"])
    assert_same(whole, halves)
    assert not any("teacher" in name for name, _ in leaves(load_checkpoint(whole.checkpoint)))


def test_dropout_of_a_trained_network_is_shared(tmp_path, tiny):
    """At one and the same noise level and with like weights the two answers would be the same."""
    config = compose("train", [*tiny, "model.dropout=0.5", "loss=consistency",
                               "sampler=consistency"])  # fmt: skip
    domain = domain_class("image")(config["data"])
    module = make_module(domain, config)
    for p in module.denoiser.parameters():
        torch.nn.init.normal_(p, std=0.05)
    module.loss.closing = lambda t, progress: torch.full_like(t, 1 - 1e-9)  # r = t, all but
    batch = domain.train_set().gather(torch.arange(8)) | {"place": torch.arange(8)}
    module.train()
    together = module.loss_of(batch, 0) * 1e-9
    assert float(together.detach().abs().max()) < 1e-3


def test_the_packaged_weights_can_be_distilled(tmp_path):
    """From weights without a run: everything but the data is theirs."""
    arguments = ["domain=molecule", "data=molecules", f"out={tmp_path / 'new'}", *SHORT]
    config, measures = distill.configure([*arguments, "molecules=3"])
    assert measures == ["molecules=3"]
    module = make_module(domain_class("molecule")(data=config["data"]), config)
    load_into(module.denoiser.network, load_tensors(config["init"]), "the package's")
    shared = load_model(config["init"])[2]
    assert config["model"] == shared["model"]
    assert config["parameterization"]["sigma_data"] == shared["facts"]["sigma_data"]
    assert module.denoiser.gives == "jump"


TINY = {
    "molecule": [
        "model.dim=8", "model.pair_dim=4", "model.layers=1", "model.heads=2", "model.bond_layers=1"
    ],
    "protein": [
        "model.irreps=16x0e+8x1e", "model.edge=8x0e+8x1e", "model.value=8x0e+8x1e",
        "model.mixed=8x0e+8x1e", "model.layers=1", "model.heads=4", "model.pair_dim=8",
        "model.hidden=8", "model.radial=8", "data.count=40",
    ],
}  # fmt: skip
ASKED = {
    "molecule": ["molecules=2", "conformers=1", "tries=1"],
    "protein": ["n=4", "lengths=20-30", "pairs=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["molecule", "protein"])
@pytest.mark.parametrize("loss", ["consistency", "consistency_distillation"])
def test_points_and_backbones(domain, loss, tmp_path, capsys):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    short = [*SHORT, "trainer.batch_size=4"]
    train.main([f"domain={domain}", *TINY[domain], *short, "trainer.picture_every=0",
                "sampler.steps=2", f"run={teacher}"])  # fmt: skip
    distill.main([f"run={teacher}", f"out={student}", f"loss={loss}", *short, "students=[1,2]",
                  "teachers=[3]", *ASKED[domain]])  # fmt: skip
    assert "student, 2 steps" in capsys.readouterr().out
    _, denoiser, config = load_model(student)
    assert denoiser.gives == "jump"
    size = config["facts"]["sigma_data"]
    assert config["sampler"]["grid"]["sigma_data"] == size
    asked = [f"run={student}", "sampler=consistency", "sampler.steps=2"]
    assert sample.configure("sample", asked)["sampler"] == config["sampler"]
    out = tmp_path / ("out.sdf" if domain == "molecule" else "out.pdb")
    asked = ["smiles=CCO", "tries=1"] if domain == "molecule" else ["length=20"]
    asked += ["n=2", "sampler.steps=1", f"out={out}"]
    if domain == "molecule":  # conformers of a network that knows nothing do not hold together
        with pytest.raises(InputError, match=r"got . of 2"):
            sample.main([f"run={student}", *asked])
    else:
        sample.main([f"run={student}", *asked])
        assert out.stat().st_size > 0
    evaluate.main([f"run={student}", *ASKED[domain], f"out={tmp_path / 'report'}"])
    assert (tmp_path / "report" / "metrics.json").exists()


def test_a_student_of_other_data(run, refused, tmp_path):
    """Data of another size are refused by the weights that they do not fit."""
    np.savez(tmp_path / "x.npz", x=np.zeros((40, 16, 16, 3), np.uint8))
    data = ["data=npz", f"data.path={tmp_path / 'x.npz'}"]
    line = refused("distill", f"run={run}", *data, f"out={tmp_path / 'new'}", *SHORT)
    assert "weight" in line
    moved = shutil.copytree(run, tmp_path / "moved")
    text = (moved / "config.yaml").read_text().replace("Digits", "Npz\n  path: gone.npz")
    (moved / "config.yaml").write_text(text)
    assert "gone.npz" in refused("distill", f"run={moved}", *SHORT)
