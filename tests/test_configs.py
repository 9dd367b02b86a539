"""Every file in configs/ builds what the entry points build from it."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from sciffusion import resources
from sciffusion.core.inverse import PiGDM
from sciffusion.core.operators import shrink
from sciffusion.core.samplers import Sampler
from sciffusion.domains.base import DOMAINS, Domain, build_denoiser
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.domains.sampling import draw
from sciffusion.io.build import build
from sciffusion.io.config import compose, filled, groups
from sciffusion.training.fit import make_module

SMALL = ["model.channels=8", "model.head_channels=8", "trainer.batch_size=8"]
CIFAR = ["model.channel_mult=[1,2]"]  # its own network is for 32 x 32
ALIGNED = {"schedule=zero_terminal": ["parameterization=v"]}
JUMPS = {"loss=consistency": ["sampler=consistency"]}
LEARNED = {"loss=hybrid": ["schedule=cosine", "parameterization=eps", "learned_variance=true"]}
TRAINED = (
    "schedule", "parameterization", "loss", "optimizer", "rate", "model", "trainer", "logger",
)  # fmt: skip


def read(path):
    return yaml.safe_load(path.read_text())


def of_domain(group, option):
    """The domain whose class a config file names, if it names one."""
    target = read(resources.path("configs", f"{group}/{option}.yaml")).get("_target_", "")
    return target.split(".")[2] if target.startswith("sciffusion.domains.") else None


OPTIONS = [
    f"{group}={option}"
    for group in TRAINED
    for option in groups()[group]
    if of_domain(group, option) in (None, "image")
    and "rigid" not in option
    and option != "consistency_distillation"  # needs a teacher: tests/test_distill.py
]


@pytest.fixture(scope="module")
def domain():
    return ImageDomain(compose("train", [])["data"])


def one_step(module, steps=2):
    """Losses before and after a few steps by hand, on one batch."""
    batch = module.domain.train_set().gather(torch.arange(8)) | {"place": torch.arange(8)}
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        loss = module.loss_of(batch, 0)
        assert loss.shape == (8,)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(float(loss.detach().mean()))
    return losses


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains(option, domain):
    extra = (
        ALIGNED.get(option, [])
        + LEARNED.get(option, [])
        + JUMPS.get(option, [])
        + CIFAR * ("cifar" in option)
    )
    module = make_module(domain, compose("train", [*SMALL, option, *extra]))
    first, second = one_step(module)
    assert math.isfinite(first)
    assert second < first  # a small step down the gradient of the same batch and noise
    assert module.rate(0, 100) > 0


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_trains(name, domain):
    """On digits; the recipe's own data may have to be downloaded."""
    config = compose("train", [f"experiment={name}", "data=digits", *SMALL, *CIFAR])
    first, second = one_step(make_module(domain, config))
    assert second < first


@pytest.fixture(scope="module", params=["edm", "cosine", "flow"])
def denoiser(request, domain):
    torch.manual_seed(0)
    how = {"edm": "edm", "cosine": "eps", "flow": "velocity"}[request.param]
    settings = [f"schedule={request.param}", f"parameterization={how}", "learned_variance=true"]
    config = compose("train", [*SMALL, *settings])
    made = build_denoiser(domain, config).eval()
    for p in made.parameters():  # the layers that start at zero, too
        torch.nn.init.normal_(p, std=0.05)
    return made


def sampler_of(name, *more):
    config = compose("sample", ["run=x", f"sampler={name}", *more])["sampler"]
    if config.get("steps", 0) > 20:
        config["steps"] = 8
    return config


def assert_draws(domain, denoiser, sampler):
    seen = []
    shape, cond = domain.prior_cond(torch.arange(4), {})
    out = sampler(denoiser, shape, cond, 0, 4, callback=lambda i, t, x: seen.append(x))
    assert out.x.shape == (4, 1, 8, 8)
    assert torch.isfinite(out.x).all()
    assert seen
    assert len(draw(domain, denoiser, sampler, 4)) == 4


@pytest.mark.parametrize("name", groups()["sampler"])
def test_every_sampler_draws(name, domain, denoiser):
    of_means = ["sampler.accept_means=true"] if name == "consistency" else []
    sampler = build(filled(sampler_of(name, *of_means), sigma_data=0.5))
    assert isinstance(sampler, Sampler)
    if name == "twisted":  # of something to be led by; a particle is then a sample
        sampler.particles = 2
        shape = (1, 8, 8)
        denoiser = PiGDM(denoiser, shrink(8, 2), torch.zeros(1, 1, 4, 4), 0.3)
        assert torch.isfinite(sampler(denoiser, shape, n=4).x).all()
        return
    assert_draws(domain, denoiser, sampler)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_every_variance_draws(variance, domain, denoiser):
    node = sampler_of("ddpm", f"sampler.variance={variance}")
    assert_draws(domain, denoiser, build(node))


@pytest.mark.parametrize("grid", groups()["grid"])
@pytest.mark.parametrize("name", [s for s in groups()["sampler"] if "alphafold3" not in s])
def test_every_grid_goes_with_every_sampler(name, grid, denoiser):
    config = compose("sample", ["run=x", f"sampler={name}", f"grid={grid}"])
    sampler = build(config["sampler"] | {"grid": config["grid"]})
    t = sampler.grid(20, denoiser.schedule)
    assert (t[0], t[-1]) == (1, 0)
    assert (t.diff() < 0).all()


@pytest.mark.parametrize("name", groups()["data"])
def test_every_source_is_named(name):
    rooted = dict.fromkeys(("folder", "store", "backbones"), "data.root=x")
    given = {**rooted, "npz": "data.path=x", "frames": "data.smiles=CC"}.get(name)
    domain = of_domain("data", name)
    settings = [f"domain={domain}", f"data={name}", *([given] if given else [])]
    node = compose("train", settings)["data"]
    node.pop("augment", None)
    assert hasattr(build(node), "load")


def test_every_file_is_tested():
    """A new group or a new file outside the groups needs a test above."""
    tested = {*TRAINED, "experiment", "sampler", "grid", "data", "domain"}
    of_domains = {"space", "request", "measures", "prepare"}  # tests/domains/NAME
    assert set(groups()) == tested | of_domains
    assert set(groups()["domain"]) == set(DOMAINS)
    root = Path(resources.path("configs"))
    assert {f.stem for f in root.glob("*.yaml")} == {
        "train", "distill", "ema", "sample", "evaluate", "prepare", "export",
        "likelihood",
    }  # fmt: skip
    assert issubclass(ImageDomain, Domain)
