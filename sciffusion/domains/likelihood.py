"""The log-likelihood of held-out records: bits per dimension of images, nats of point clouds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.discrete import bits_per_dim
from sciffusion.core.likelihood import (
    Divergence,
    Exact,
    Hutchinson,
    ProbabilityFlow,
    round_trip,
)
from sciffusion.core.rng import Rng
from sciffusion.data.order import Ordered
from sciffusion.domains.base import Domain
from sciffusion.errors import InputError, at_least
from sciffusion.metrics.bootstrap import mean_interval
from sciffusion.metrics.table import Row, Table


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        log_prob: (n,) nats a record.
        error: (n,) standard error of the divergence in it, NaN by a single probe.
        dim: (n,) degrees of freedom.
        trip: relative error of data -> latent -> data.
        nfe: network calls a record, at most.
    """

    log_prob: np.ndarray
    error: np.ndarray
    dim: np.ndarray
    trip: np.ndarray
    nfe: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {k: v.tolist() for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        plain["error"] = [None if np.isnan(e) else e for e in plain["error"]]
        return plain | {"network_calls": self.nfe}


def divergence_of(settings: Mapping[str, Any]) -> Divergence:
    """The estimator that settings name.

    Raises:
        InputError: an unknown one.
    """
    if settings["divergence"] == "exact":
        return Exact()
    if settings["divergence"] != "hutchinson":
        raise InputError(f"divergence={settings['divergence']} is not known: exact or hutchinson")
    try:
        return Hutchinson(settings["probes"], settings["noise"])
    except ValueError as error:
        raise InputError(str(error)) from error


def checked(settings: Mapping[str, Any]) -> None:
    """Refuse settings before any data are read.

    Raises:
        InputError: the line says which and what it must be.
    """
    at_least(settings, n=1, batch=1, round_trip=0, seed=0)
    for name in ("tolerance", "sigma_min"):
        if not 0 < settings[name] < 1:
            raise InputError(f"{name}={settings[name]} must lie between 0 and 1")
    if settings["split"] not in ("held_out", "train"):
        raise InputError(f"split={settings['split']} is not known: held_out or train")
    divergence_of(settings)


def measure(
    domain: Domain, denoiser: Denoiser, settings: Mapping[str, Any], device: torch.device
) -> Found:
    """log p of n records, in the order of a training stream of this seed.

    Raises:
        InputError: settings that cannot be used, no records, or a denoiser without an ODE.
    """
    checked(settings)
    data = domain.held_out() if settings["split"] == "held_out" else domain.train_set()
    if not len(data):
        raise InputError("there are no held-out records: take split=train, or other data=")
    batch = min(settings["batch"], settings["n"], len(data))
    stream = Ordered(data, settings["seed"], batch)
    n = min(settings["n"], stream.length)
    how = {"rtol": settings["tolerance"], "atol": settings["tolerance"]}
    try:
        flow = ProbabilityFlow(
            denoiser, divergence_of(settings), sigma_min=settings["sigma_min"], **how
        )
    except TypeError as error:
        raise InputError(str(error)) from error
    parts, trips, nfe = [], [], 0
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("walking to noise", total=n)
        for index in torch.arange(n).split(batch):
            rng = Rng(settings["seed"], index)
            x0, cond = domain.continuous(stream.__getitems__(index.tolist()), rng)
            x0, cond = x0.to(device), cond.to(device)
            try:
                out = flow.log_prob(x0, cond, settings["seed"], index)
                k = max(0, min(len(x0), settings["round_trip"] - int(index[0])))
                if k:
                    trips.append(round_trip(flow, x0[:k], cond[slice(0, k)]))
            except RuntimeError as error:
                if "not enough" not in str(error):
                    raise
                raise InputError(f"the solver gave up ({error}); raise tolerance=") from error
            parts.append(torch.stack([out.value, out.error, out.dim]))
            nfe = max(nfe, out.nfe)
            bar.advance(task, len(index))
    log_prob, error, dim = torch.cat(parts, 1).cpu().numpy()
    trip = torch.cat(trips).double().cpu().numpy() if trips else np.zeros(0)
    return Found(log_prob, error, dim, trip, nfe)


def table(domain: Domain, found: Found, settings: Mapping[str, Any]) -> Table:
    """The measures, with 95% intervals over records."""
    exact, probes = settings["divergence"] == "exact", settings["probes"]
    how = "exact divergence" if exact else f"Hutchinson, {probes} {settings['noise']} probe(s)"
    note = f"{how}; {found.nfe} network calls a record"
    rows = []

    def add(name: str, values: np.ndarray, unit: str, note: str, better: Any = "lower") -> None:
        interval = mean_interval(values, seed=settings["seed"])
        rows.append(
            Row(name, interval.value, interval.low, interval.high, len(values), unit=unit,
                better=better, note=note)
        )  # fmt: skip

    dim = found.dim
    if domain.level is not None:
        bits = bits_per_dim(torch.from_numpy(found.log_prob), torch.from_numpy(dim), domain.level)
        add("bits per dimension", bits.numpy(), "bits", f"uniform dequantisation, {note}")
        scale, unit = 1 / np.log(2), "bits"
    else:
        add("log-likelihood", found.log_prob, "nats", note, "higher")
        add(
            "negative log-likelihood per degree of freedom", -found.log_prob / dim, "nats",
            f"{dim.mean():.1f} degrees of freedom a record; lengths in Angstrom",
        )  # fmt: skip
        scale, unit = 1.0, "nats"
    if not exact and probes > 1:
        each = float(np.median(found.error / dim)) * scale
        rows.append(
            Row("standard error of the divergence, per dimension", each, n=len(dim), unit=unit,
                note="of one record, median")
        )  # fmt: skip
    if len(found.trip):
        rows.append(
            Row("data to latent and back", float(found.trip.max()), n=len(found.trip),
                note="largest relative error")
        )  # fmt: skip
    where = settings["split"].replace("_", " ")
    return Table(f"Likelihood of {where} records, domain={domain.name}", rows)
