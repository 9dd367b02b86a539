"""Hydra's groups put together from the command line, with errors that a person can use."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sciffusion import resources
from sciffusion.errors import InputError

OPTIONAL = ("experiment", "grid", "logger")
"""Groups of which none may be chosen."""
TEXT = (
    "run", "out", "init", "root", "path", "val", "input", "smiles", "contigs", "elements",
    "length", "ss", "from", "symmetry", "lengths", "metric", "seeds", "report_seeds", "mask", "by",
    "fix", "distances", "torsions", "contacts", "hotspots", "motif", "total",
)  # fmt: skip
"""Settings that are taken as they are typed: Hydra's grammar never sees them."""
RUN_KEYS = ("domain", "data", "model", "schedule", "loss", "optimizer", "rate", "trainer", "seed")
"""What the configuration of a run must have."""
FREE = ("devices", "label")
"""Settings of more than one kind: trainer.devices=2, auto or [0,1]."""
UNSET = {
    "noise": 0.0, "blur": 0.0, "upscale": 0, "sigma_data": 0.0,
    "size": 0, "channels": 0, "head_channels": 0, "largest": 0, "most": 0,
}  # fmt: skip
"""Settings that are null by default, as one of their kind."""
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def suggestion(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?', or the known words where nothing is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join([*known[:20], *(['...'] if known[20:] else [])])}"


def groups() -> dict[str, list[str]]:
    """The options of every config group."""
    root = Path(resources.path("configs"))
    return {
        folder.name: sorted(f.stem for f in folder.glob("*.yaml"))
        for folder in sorted(root.iterdir())
        if folder.is_dir()
    }


def _keys(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    found = []
    for k, v in config.items():
        found += [f"{prefix}{k}", *_keys(v, f"{prefix}{k}.")]
    return found


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(choices of groups, values) among the arguments.

    Raises:
        InputError: an argument without "=", or an option that its group has not.
    """
    known, choices, values = groups(), [], []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        bare = key.lstrip("+~")
        if not equals:
            raise InputError(f"argument {argument!r} is not name=value; see --help")
        if bare in known and re.fullmatch(r"[\w./-]*", value):
            if value not in known[bare] and not (value == "null" and bare in OPTIONAL):
                raise InputError(
                    f"{bare}={value}: there is no such {bare}{suggestion(value, known[bare])}"
                )
            choices.append(argument)
        else:
            values.append(argument)
    return choices, values


def take_text(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(settings that are text, the other arguments)."""
    text, rest = {}, []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.rpartition(".")[2] in TEXT:
            text[key] = value
        else:
            rest.append(argument)
    return text, rest


def put_text(config: dict[str, Any], text: dict[str, str], where: str = "") -> None:
    """Write settings that are text into a configuration; "null" is none.

    Raises:
        InputError: a setting that the configuration has not.
    """
    known = _keys(config)
    for key, value in text.items():
        if key not in known:
            raise InputError(f"unknown setting {key!r}{where}{suggestion(key, known)}")
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = None if value == "null" else value


def compose(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The configuration `configs/NAME.yaml` under the arguments, as plain data.

    Raises:
        InputError: an unknown group option or key (with the nearest known one), or a bad value.
    """
    text, arguments = take_text(arguments)
    choices, values = split_overrides(arguments)
    with initialize_config_dir(str(Path(resources.path("configs")).resolve()), version_base="1.3"):
        try:
            base = plain(hydra_compose(name, overrides=choices), resolve=False)
            _one_domain(base)
            known = _keys(base)
            for value in values:
                key = value.partition("=")[0]
                if not key.startswith(("+", "~")) and key not in known:
                    options = [*known, *groups()]
                    raise InputError(f"unknown setting {key!r}{suggestion(key, options)}")
            given = plain(hydra_compose(name, overrides=[*choices, *values]), resolve=False)
            put_text(given, dict.fromkeys(text, ""))  # no longer missing; "${" in it stays as typed
            resolved = plain(OmegaConf.create(given))
            put_text(resolved, text)
            return typed(resolved, base)
        except (HydraException, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            if stranger := re.match(r"Could not override '(\w+)'", reason):
                raise InputError(f"{name} takes no {stranger[1]}=; see --help") from error
            raise InputError(f"configuration: {reason[:300]}") from error


def _one_domain(config: dict[str, Any]) -> None:
    """Refuse a part that is another domain's.

    Raises:
        InputError: which part, and whose it is.
    """
    for group, node in config.items():
        target = str(node.get("_target_", "")) if isinstance(node, dict) else ""
        owner = target.split(".")[2] if target.startswith("sciffusion.domains.") else None
        if owner not in (None, config.get("domain")):
            raise InputError(
                f"{group}={target.rpartition('.')[2]} belongs to domain={owner}, not to "
                f"domain={config.get('domain')}: choose another {group}"
            )


def typed(value: Any, like: Any, name: str = "") -> Any:
    """A setting, checked to be of the kind of the one it replaces.

    Raises:
        InputError: it is of another kind; the line says which was expected.
    """
    key = name.rpartition(".")[2]
    if isinstance(like, dict) and isinstance(value, dict):
        if value.get("_target_") != like.get("_target_"):
            return value
        if "_target_" not in like and key != "logger" and (gone := like.keys() - value.keys()):
            raise InputError(f"setting {name}.{min(gone)} cannot be removed")
        return {k: typed(v, like.get(k), f"{name}.{k}".lstrip(".")) for k, v in value.items()}
    if key in TEXT:
        return None if value is None else str(value)
    part = isinstance(like, dict) and "_target_" in like
    if like is None and value is not None:
        like = UNSET.get(key)
    if like is None or key in FREE or (part and value is None):
        return value
    is_nan = value != value
    number = isinstance(value, int | float) and not isinstance(value, bool) and not is_nan
    if isinstance(like, str) and (number or isinstance(value, str)):
        return str(value)
    if type(like) is float and number:
        return float(value)
    if type(like) is int and number and float(value).is_integer():
        return int(value)
    if type(like) is type(value) and not is_nan:
        return value
    kind = KINDS.get(type(like), "a list" if isinstance(like, list) else "a group of settings")
    shown = "null" if value is None else value
    raise InputError(f"{name}={shown}: this must be {kind}")


def plain(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Plain dictionaries, lists, numbers and strings."""
    data = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    assert isinstance(data, dict)
    return {str(k): v for k, v in data.items()}


def filled(node: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """The settings with these values wherever their names stand with none (null)."""
    return {
        k: filled(v, **values) if isinstance(v, dict) else values.get(k) if v is None else v
        for k, v in node.items()
    }


def change(config: dict[str, Any], values: Sequence[str], where: str) -> dict[str, Any]:
    """A stored configuration with some values changed.

    Raises:
        InputError: a key it has not, or a value that cannot be read.
    """
    text, values = take_text(values)
    known = _keys(config)
    for value in values:
        key = value.partition("=")[0]
        if key not in known:
            raise InputError(f"unknown setting {key!r} of {where}{suggestion(key, known)}")
    try:
        merged = OmegaConf.merge(OmegaConf.create(config), OmegaConf.from_dotlist(list(values)))
    except Exception as error:
        raise InputError(f"cannot read {' '.join(values)}: {error}") from error
    assert isinstance(merged, DictConfig)
    changed = plain(merged)
    put_text(changed, text, f" of {where}")
    return typed(changed, config)


def to_yaml(config: dict[str, Any]) -> str:
    """For people to read."""
    return OmegaConf.to_yaml(OmegaConf.create(config))


def read_yaml(path: Path) -> dict[str, Any]:
    """A run's configuration, as `to_yaml` wrote it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        config = OmegaConf.load(path)
        found = plain(config) if isinstance(config, DictConfig) else {}
        if missing := [key for key in RUN_KEYS if key not in found]:
            raise InputError(f"it has no {missing[0]!r}")
        return found
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {path}: {text}; restore it or start a new run") from error
