"""Time and memory of backbones by length: networks, and their layers beside two other forms.

    python benchmarks/protein_speed.py [--device cuda] [--quick]

A round times every contender once, in a shuffled order; ratios are within rounds. Networks: one
training step (forward and backward) and one call of sampling. Layers, forward and backward on the
same neighbours: ours (channel-wise, coupled after the sum), the same weights in e3nn's fully
connected product with a weight a path an edge, and an EGNN layer (Satorras et al. 2021) of as many
scalars. Memory is what a fresh process (or the GPU) takes above the built network.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from common import (
    growth,
    interleaved,
    markdown,
    memory_above,
    ratio,
    shown,
    spread,
    stopwatch,
    write_result,
)
from e3nn import o3
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.domains.base import choose_device
from sciffusion.domains.protein.domain import layout
from sciffusion.domains.protein.features import CA, distances, neighbours
from sciffusion.domains.protein.model import EquivariantBackbone
from sciffusion.domains.protein.transformer import TransformerBackbone
from sciffusion.io.build import build
from sciffusion.io.command import command
from sciffusion.io.config import compose
from sciffusion.nn.equivariant import NeighbourProduct, blocks_of, spherical_harmonics

NETWORKS = {"equivariant": "backbone", "transformer": "backbone_transformer"}
OURS, FULL, EGNN = "channel-wise, ours", "fully connected, e3nn", "EGNN"
Work = Callable[[], Any]


def network_of(name: str, device: torch.device) -> EquivariantBackbone | TransformerBackbone:
    torch.manual_seed(0)
    node = compose("train", ["domain=protein", f"model={NETWORKS[name]}"])["model"]
    return build(node | {"scale": 8.0}).to(device)


def batch(length: int, residues: int, device: torch.device) -> tuple[Tensor, Tensor, Cond]:
    """As many chains of this length as make up so many residues, at unit size, half noise."""
    count = max(1, residues // length)
    one = layout([length], length)
    cond = Cond({k: v.expand(count, *v.shape) for k, v in one.items()}).to(device)
    walk = torch.randn(count, length, 1, 3).cumsum(1) * 3.8 / 3**0.5
    x = (walk - walk.mean(1, keepdim=True)) / 8 + 0.2 * torch.randn(count, length, 4, 3)
    return x.to(device), torch.zeros(count, device=device), cond


def training(network: nn.Module, length: int, residues: int, device: torch.device) -> Work:
    x, level, cond = batch(length, residues, device)

    def work() -> None:
        network.zero_grad(set_to_none=True)
        network(x, level, cond).square().mean().backward()

    return work


def sampling(network: nn.Module, length: int, residues: int, device: torch.device) -> Work:
    x, level, cond = batch(length, residues, device)

    def work() -> None:
        with torch.no_grad():
            network(x, level, cond)

    return work


class EGNNLayer(nn.Module):
    """Messages of scalars and distances; positions move along the edges."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.edge = nn.Sequential(nn.Linear(2 * dim + 1, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.move = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1))
        self.node = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, h: Tensor, sent: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([h[:, None].expand_as(sent), sent, way.square().sum(-1, True)], -1)
        message = nn.functional.silu(self.edge(both))
        moved = (self.move(message) * way).mean(1)
        return h + self.node(torch.cat([h, message.sum(1)], -1)), moved


def layers(length: int, options: argparse.Namespace, device: torch.device) -> dict[str, Work]:
    """Each contender's forward and backward over the neighbours of a batch."""
    x, _, cond = batch(length, options.residues, device)
    y = 8 * x[:, :, CA]
    index, _ = neighbours(distances(y), cond, 3, 10)
    rows = torch.arange(len(y), device=device)[:, None, None]
    way = (y[rows, index] - y[:, :, None]).flatten(0, 1)
    width = [options.scalars, options.vectors]
    irreps = o3.Irreps(f"{width[0]}x0e + {width[1]}x1e")
    nodes = torch.randn(len(way), irreps.dim, device=device, requires_grad=True)
    place = (index + rows * length).flatten(0, 1)
    sh = spherical_harmonics(1, way)
    ours = NeighbourProduct(width, 1).to(device)
    full = o3.FullyConnectedTensorProduct(
        irreps, o3.Irreps("1x0e + 1x1e"), irreps, shared_weights=False
    ).to(device)
    # Radial networks of one shape: a hidden layer to the weights that each form needs
    weigh = {
        name: nn.Linear(48, numel).to(device)
        for name, numel in ((OURS, ours.weight_numel), (FULL, full.weight_numel))
    }
    hidden = torch.randn(*place.shape, 48, device=device)
    egnn = EGNNLayer(width[0]).to(device)
    scalars = torch.randn(len(way), width[0], device=device, requires_grad=True)

    def channelwise() -> None:
        blocks = [b.contiguous() for b in blocks_of(nodes, width)]
        sent = [b[place] for b in blocks]
        sum(b.square().mean() for b in ours(sent, sh, weigh[OURS](hidden))).backward()

    def connected() -> None:
        sent = nodes[place]
        made = full(sent.flatten(0, 1), sh.flatten(0, 1), weigh[FULL](hidden).flatten(0, 1))
        made.unflatten(0, place.shape).sum(1).square().mean().backward()

    def plain() -> None:
        h, moved = egnn(scalars, scalars[place], way)
        (h.square().mean() + moved.square().mean()).backward()

    return {OURS: channelwise, FULL: connected, EGNN: plain}


def peak_memory(name: str, length: int, residues: int, device: str) -> float | None:
    """MiB of one training step above the built network; None if unknown."""
    torch.set_num_threads(1)
    where = torch.device(device)
    network = network_of(name, where)
    training(network, 32, 32, where)()  # libraries that load at the first call
    work = training(network, length, residues, where)
    return memory_above(work, where)


def fresh_memory(*arguments: Any) -> float | None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(peak_memory, *arguments).result()


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--lengths", type=int, nargs="+", default=[64, 128, 192, 256, 384, 512])
    add("--residues", type=int, default=1024, help="of a batch")
    add("--scalars", type=int, default=64, help="channels of the layers that are compared")
    add("--vectors", type=int, default=16)
    add("--repeats", type=int, default=7, help="rounds of timing")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="auto")
    add("--quick", action="store_true", help="small numbers, to see that it runs")
    add("--name", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        options.lengths, options.repeats, options.residues = options.lengths[:2], 2, 256
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    options.name = options.name or "protein_speed" + ("_quick" if options.quick else "")
    networks = {name: network_of(name, device) for name in NETWORKS}
    rows = []
    for length in options.lengths:
        count = max(1, options.residues // length)
        work: dict[str, Work] = {}
        for name, network in networks.items():
            for what, make in (("training", training), ("sampling", sampling)):
                work[f"{name} {what}"] = make(network, length, options.residues, device)
        work |= layers(length, options, device)
        timers = {name: stopwatch(call) for name, call in work.items()}
        seconds = interleaved(timers, options.repeats, 1, f"{length} residues")
        rows.append({
            "length": length, "chains": count,
            "seconds": {k: [s / count for s in v] for k, v in seconds.items()},
            "memory": {name: fresh_memory(name, length, options.residues, str(device))
                       for name in NETWORKS},
        })  # fmt: skip
    sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in networks.items()}
    exponents = {
        name: growth(options.lengths, [spread(r["seconds"][name])["median"] for r in rows])
        for name in rows[0]["seconds"]
    }
    body = {"parameters": sizes, "rows": rows, "exponents": exponents}
    text = page(body, options, str(device))
    path = write_result(options.name, vars(options), body, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


def page(body: dict[str, Any], options: argparse.Namespace, device: str) -> str:
    def ms(row: dict[str, Any], name: str) -> str:
        return shown(spread(row["seconds"][name]), scale=1e3)

    whole = [
        [r["length"],
         *(ms(r, f"{n} {what}") for what in ("training", "sampling") for n in NETWORKS),
         *(r["memory"][n] and f"{r['memory'][n]:.0f}" for n in NETWORKS)]
        for r in body["rows"]
    ]  # fmt: skip
    parts = [
        [r["length"], *(ms(r, n) for n in (OURS, FULL, EGNN)),
         shown(ratio(r["seconds"][FULL], r["seconds"][OURS])),
         shown(ratio(r["seconds"][EGNN], r["seconds"][OURS]))]
        for r in body["rows"]
    ]  # fmt: skip
    grows = body["exponents"]
    names = [f"{n}, {body['parameters'][n] / 1e6:.1f} M" for n in NETWORKS]
    return "\n\n".join([
        f"# Backbones: time and memory by length, on {device}",
        f"Batches of {options.residues} residues, float32, {options.threads} threads; milliseconds "
        f"a chain, median and quartiles of {options.repeats} rounds in turns. Networks as in "
        "configs/model: forward and backward (training), forward (a call of sampling).",
        markdown(["residues", *(f"{n}: training" for n in names), *(f"{n}: a call" for n in names),
                  *(f"{n}: memory, MiB a batch" for n in NETWORKS)], whole),
        "Cost of a chain grows as its length to the power "
        + ", ".join(f"{grows[k]:.2f} ({k})" for k in grows) + ".",
        f"Layers over 16 neighbours, {options.scalars} scalars and {options.vectors} vectors, "
        "forward and backward, milliseconds a chain:",
        markdown(["residues", OURS, FULL, EGNN, f"{FULL} / ours", f"{EGNN} / ours"], parts),
    ])  # fmt: skip


if __name__ == "__main__":
    command(main, options_parser().format_help())
