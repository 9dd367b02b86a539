"""Command lines: what they say, and what they got wrong."""

import pytest

from sciffusion.errors import InputError
from sciffusion.io.config import change, compose, read_yaml, to_yaml


def test_choices_and_values():
    config = compose("train", ["schedule=flow", "trainer.steps=7", "rate.lr=1", "init=123"])
    assert config["schedule"]["_target_"].endswith("RectifiedFlow")
    assert config["trainer"]["steps"] == 7
    assert config["rate"]["lr"] == 1
    assert config["init"] == "123"  # a path, though it looks like a number


def test_whole_numbers_may_be_written_as_floats():
    assert compose("train", ["trainer.steps=1e4"])["trainer"]["steps"] == 10_000
    assert type(compose("sample", ["run=x", "n=1e3"])["n"]) is int


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("sampler=ddimm", "did you mean ddim?"),
        ("trainer.step=3", "did you mean trainer.steps?"),
        ("datta=digits", "did you mean data?"),
        ("trainer.steps", "not name=value"),
        ("trainer.steps=abc", "whole number"),
        ("trainer.steps=1.5", "whole number"),
        ("trainer.steps=null", "whole number"),
        ("trainer.compile=1", "true or false"),
        ("rate.lr=fast", "a number"),
        ("rate.lr=true", "a number"),
        ("rate.lr=nan", "a number"),
        ("seed=x", "whole number"),
        ("model.channel_mult=3", "cannot make|a list"),
        ("data.augment=3", "group of settings"),
        ("trainer=null", "no such trainer"),
        ("data=folder", "data.root"),  # it has no default
        ("~trainer.steps=3000", "cannot be removed|Could not delete"),
        ("rate.lr=[1", "configuration"),
    ],
)
def test_wrong_words(argument, says):
    extra = ["model=unet_digits"] if argument.startswith("model.") else []
    with pytest.raises(InputError, match=says.replace(".", r"\.").replace("?", r"\?")):
        compose("train", [*extra, argument])


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("train", ["data=folder", "data.root=.", "data.size=abc"], "data.size=abc: .* a whole"),
        ("train", ["domain=molecule", "data=store", "data.root=.", "data.largest=x"], "a whole"),
        ("train", ["domain=protein", "data=backbones", "data.root=.", "data.most=1.5"], "a whole"),
        ("sample", ["request=image", "noise=abc"], "noise=abc: this must be a number"),
        ("sample", ["request=image", "upscale=2.5"], "upscale=2.5: this must be a whole number"),
        ("sample", ["request=molecule", "noise=true"], "noise=True: this must be a number"),
    ],
)
def test_what_is_null_by_default_has_a_kind_too(name, arguments, says):
    assert compose(name, arguments[:-1])
    with pytest.raises(InputError, match=says):
        compose(name, arguments)


def test_change_holds_stored_settings_to_the_same_rules():
    stored = compose("train", [])
    assert change(stored, ["trainer.steps=9"], "it")["trainer"]["steps"] == 9
    for argument, says in [
        ("trainer.steps=x", "whole number"),
        ("trainer.stepz=1", "did you mean"),
    ]:
        with pytest.raises(InputError, match=says):
            change(stored, [argument], "it")


def test_yaml_gives_back_what_was_written(tmp_path):
    config = compose("train", ["run=x", "sampler=churn", "trainer=ddp"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_yaml(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "domain: image", "\x00", "a: ${nowhere}"])
def test_garbled_yaml(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"cannot read .*config\.yaml"):
        read_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "typed", ["${oc.env:HOME}", "???", "[C@H](N)=O", "a,b={c}", "#1\\2", "null "]
)
def test_text_is_taken_as_it_is_typed(typed):
    """No grammar reads a SMILES or a path: not Hydra's overrides, not OmegaConf's references."""
    config = compose("sample", ["request=molecule", f"smiles={typed}", f"out={typed}"])
    assert config["smiles"] == config["out"] == typed
