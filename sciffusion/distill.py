"""`python -m sciffusion.distill`: a few-step student of a trained run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sciffusion import resources
from sciffusion.data.download import digest
from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import change, compose, filled, groups, read_yaml
from sciffusion.io.run import Run, load_shared, weights_path
from sciffusion.sample import configure as configure_sampling
from sciffusion.sample import source
from sciffusion.train import difference, keep_spacing

USAGE = """
Make a consistency network of a trained run: it samples in 1, 2 or 4 network calls. The student is a
run like any other; at the end its quality at few steps is measured beside the teacher's at many.

  python -m sciffusion.distill run=DIR                           into DIR-distilled
  python -m sciffusion.distill run=DIR out=NEWDIR trainer.steps=5000 rate.lr=5e-4
  python -m sciffusion.distill run=DIR loss=consistency_distillation out=NEWDIR
  python -m sciffusion.distill domain=molecule data=store data.root=STORE out=NEWDIR
  python -m sciffusion.distill out=NEWDIR                        resume, or measure again
  python -m sciffusion.sample run=NEWDIR sampler.steps=1 out=...
"""
CHOICES = ("data", "loss", "optimizer", "rate", "sampler", "trainer", "logger")
TEACHERS = ("model", "space", "schedule", "parameterization", "learned_variance")
"""What a student takes over."""
FREE = ("run", "out", "trainer", "logger", "students", "teachers")
"""What a resumed student may choose anew."""
LOSSES = ("consistency", "consistency_distillation")
"""What a student can be taught by."""
BY_MANY = "dpmpp"
"""The teacher's sampler where its own has no number of steps."""


def configure(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(configuration of the student's run, settings of the table) of a command line.

    Raises:
        InputError: unknown settings, a teacher that cannot teach, or settings that would make an
            old student another one.
    """
    named = {k: v for k, _, v in (a.partition("=") for a in arguments)}
    measures, rest = _apart(arguments)
    old = Run(Path(named["out"])) if named.get("out") not in (None, "", "null") else None
    if not named.get("run") and old is not None and old.config.exists():
        stored = read_yaml(old.config)
        _is_student(stored, old)
        _same_teacher(stored, old)
        own = [a for a in rest if not a.startswith(("out=", "run="))]
        if named.get("domain", stored["domain"]) != stored["domain"]:
            raise InputError(f"{old.path} is of domain={stored['domain']}: leave domain= out")
        own = [a for a in own if not a.startswith("domain=")]
        return change(stored, own, str(old.config)) | {"run": str(old.path)}, measures
    config = _fresh(rest, named)
    run = Run(Path(config["run"]))
    if run.config.exists():
        stored = read_yaml(run.config)
        _is_student(stored, run)
        if run.checkpoint.exists():
            _goes_on(config, stored, run)
    return config, measures


def _goes_on(config: Mapping[str, Any], stored: Mapping[str, Any], run: Run) -> None:
    """Refuse settings that would make a student that has begun another one."""
    _same_teacher(stored, run)
    what = [{k: v for k, v in c.items() if k not in FREE} for c in (config, stored)]
    if name := difference(*what):
        raise InputError(
            f"{name} would differ from that of the student {run.path}; resume it with "
            f"out={run.path} alone, or start another with out=NEW"
        )
    keep_spacing(config, stored)


def _is_student(stored: Mapping[str, Any], run: Run) -> None:
    if not stored.get("teacher"):
        raise InputError(f"{run.path} is a run of its own, no student: choose another out=")


def _same_teacher(stored: Mapping[str, Any], run: Run) -> None:
    """Refuse to go on with a student whose teacher has changed since it began."""
    teacher, known = stored["teacher"], stored.get("teacher_sha256")
    if known and _digest(teacher) not in (known, None):
        raise InputError(
            f"{teacher} has other weights than when the student {run.path} began with it: put the "
            "old ones back, or start another student with out=NEW"
        )


def _digest(teacher: str) -> str | None:
    """Of its weights; None where there are none, which who loads them says."""
    file = weights_path(teacher)
    return digest(file, "sha256") if file.is_file() else None


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(settings of the closing table, the other arguments)."""
    import yaml

    known = set()
    for option in groups()["measures"]:
        text = resources.path("configs", f"measures/{option}.yaml").read_text()
        known |= set(yaml.safe_load(text))
    measures = [a for a in arguments if a.partition("=")[0].partition(".")[0] in known]
    return measures, [a for a in arguments if a not in measures]


def _fresh(arguments: Sequence[str], named: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a new student."""
    teacher = source(arguments)
    shared = load_shared(teacher)
    domain = shared["domain"]
    for argument in arguments:
        if argument.partition("=")[0].partition(".")[0] in TEACHERS:
            raise InputError(f"{argument}: a student has its teacher's: leave it out")
    _can_teach(shared, teacher)
    losses = [a for a in arguments if a.startswith("loss=")]
    if losses and losses[-1].partition("=")[2] not in LOSSES:
        raise InputError(f"{losses[-1]}: students learn by {' or '.join(LOSSES)}")

    data = [a for a in arguments if a.startswith(("data=", "data."))]
    rest = [a for a in arguments if a not in data and a.partition("=")[0] not in ("run", "domain")]
    own = Run(_folder(teacher)).config
    trained = read_yaml(own) if own.exists() else None
    if any(a.startswith("data=") for a in data):
        config = compose("distill", [f"domain={domain}", *data, *rest])
    elif trained is None:
        raise InputError(f"{teacher} does not say what it was trained on: give data=, as to train")
    else:
        config = compose("distill", [f"domain={domain}", *rest])
        config["data"] = change({"data": trained["data"]}, data, str(own))["data"]
    if trained is not None and not any(a.startswith("drop_condition=") for a in rest):
        config["drop_condition"] = trained.get("drop_condition", config["drop_condition"])

    config |= {k: shared.get(k, config.get(k)) for k in TEACHERS}
    config["model"] = dict(config["model"])
    size = float(shared["facts"]["sigma_data"])
    if config["model"].get("scale", 0) is None:
        config["model"]["scale"] = size
    config["parameterization"] = _form(shared, size, config.pop("sigma_min"))
    config["teacher"] = config["init"] = os.path.abspath(teacher)
    config["teacher_sha256"] = _digest(teacher)
    config["run"] = str(config.pop("out") or _default_out(teacher, domain, named))
    if os.path.abspath(config["run"]) == os.path.abspath(_folder(teacher)):
        raise InputError("out= must not be the teacher's own directory")
    return config


def _can_teach(shared: Mapping[str, Any], teacher: str) -> None:
    gives = shared.get("gives", "mean")
    if gives == "jump":
        raise InputError(f"{teacher} is a consistency network already: distil its teacher")
    if gives == "velocity":
        raise InputError(
            f"{teacher} was trained with noise turned onto the data, and noise put back between "
            "jumps would not be: distil a run without coupling"
        )
    kind = str(shared["parameterization"].get("_target_")).rpartition(".")[2]
    if kind in ("Eps", "X0"):
        why = {
            "Eps": "multiplies its errors by sigma/alpha when it jumps from pure noise",
            "X0": "does not leave a sample as it is where there is no noise",
        }
        raise InputError(
            f"{teacher}: {kind.lower()}-prediction {why[kind]}, so it cannot be distilled; train "
            "with parameterization=edm, v or velocity"
        )


def _form(shared: Mapping[str, Any], size: float, sigma_min: float) -> dict[str, Any]:
    """The student's parameterization: the teacher's, or EDM's with its boundary at sigma_min."""
    form = dict(shared["parameterization"])
    edm = form["_target_"] == "sciffusion.core.parameterization.Preconditioned"
    if edm and form.get("sigma_data") is None:
        form["sigma_data"] = size
    if sigma_min == 0:
        return form
    if not edm:
        raise InputError(f"sigma_min={sigma_min:g} needs a teacher with parameterization=edm")
    shifted = "sciffusion.core.consistency.ConsistencyPreconditioned"
    return form | {"_target_": shifted, "sigma_min": float(sigma_min)}


def _folder(teacher: str) -> Path:
    path = Path(teacher)
    return path.parent if path.suffix == ".safetensors" else path


def _default_out(teacher: str, domain: str, named: Mapping[str, str]) -> Path:
    if not named.get("run"):
        return Path("runs") / f"{domain}-distilled"
    folder = _folder(teacher)
    return folder.with_name(f"{folder.resolve().name}-distilled")


def ways(config: Mapping[str, Any], device: Any, precision: str) -> dict[str, Any]:
    """The teacher at many steps and the student at few: (denoiser, sampler) by name."""
    from sciffusion.domains.base import choose_precision, load_model
    from sciffusion.io.build import build

    found = {}
    node, facts = load_shared(config["teacher"])["sampler"], load_shared(config["run"])["facts"]
    if "steps" not in node:
        node = compose("evaluate", ["run=x", f"sampler={BY_MANY}"])["sampler"]
    for kind, path, sampler in (
        ("teacher", config["teacher"], node), ("student", config["run"], config["sampler"])
    ):  # fmt: skip
        denoiser = load_model(path)[1].to(device)
        sampler = filled(sampler, sigma_data=facts["sigma_data"])
        denoiser.autocast = choose_precision(precision, device)
        for steps in sorted(config[f"{kind}s"], reverse=kind == "teacher"):
            own = sampler | {"steps": steps}
            if kind == "student" and len(own.get("levels") or ()) != steps - 1:
                own["levels"] = None
            found[f"{kind}, {steps} step{'s' * (steps > 1)}"] = denoiser, build(own)
    return found


def measure(config: Mapping[str, Any], settings: Sequence[str], domain: Any) -> str:
    """The closing table; few_steps.json and few_steps.md in the student's run.

    Raises:
        InputError: settings that cannot be used.
    """
    from rich.console import Console

    from sciffusion.atomic import atomic_path
    from sciffusion.domains.base import choose_device
    from sciffusion.domains.few_steps import compare, markdown, to_dict

    asked = configure_sampling("evaluate", [f"run={config['run']}", *settings])
    given = {a.partition("=")[0] for a in settings}
    asked |= {k: v for k, v in domain.quick.items() if k not in given}
    device = choose_device(asked["device"])
    console = Console(stderr=True)
    found = compare(
        domain, ways(config, device, asked["precision"]), asked, device,
        lambda name: console.print(f"measuring {name}", markup=False),
    )  # fmt: skip
    text = markdown(found)
    folder = Path(config["run"])
    with atomic_path(folder / "few_steps.json") as temporary:
        settings_used = json.loads(json.dumps(asked), parse_constant=str)
        content = {"settings": settings_used, "ways": to_dict(found)}
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False))
    with atomic_path(folder / "few_steps.md") as temporary:
        temporary.write_text(text + "\n")
    return text


def main(arguments: Sequence[str]) -> None:
    """Train the student, write its report, measure it beside its teacher.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    config, settings = configure(arguments)
    for name in ("students", "teachers"):
        if not all(isinstance(k, int) and k >= 1 for k in config[name]):
            raise InputError(f"{name}={config[name]} must be whole numbers of at least 1")

    from sciffusion.domains.base import domain_class
    from sciffusion.domains.report import write_report
    from sciffusion.training.fit import first_process, fit, make_module, say

    configure_sampling("evaluate", [f"run={config['teacher']}", *settings])  # wrong ones show now
    domain = domain_class(config["domain"])(data=config["data"])  # type: ignore[call-arg]
    module = make_module(domain, config)
    run = Run(Path(config["run"]))
    stopped = fit(module, config, run)
    if stopped is not None or not first_process() or not run.weights.exists():
        return
    picture = write_report(run)
    say(f"{picture} and {run.report} are written")
    if config["students"]:
        print(measure(config, settings, domain))
        say(f"wrote {run.path / 'few_steps.json'} and {run.path / 'few_steps.md'}")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), CHOICES, "measures"), arguments)


if __name__ == "__main__":
    cli()
