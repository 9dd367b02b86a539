"""The training stream: a fresh permutation each pass, whoever reads it."""

import torch

from sciffusion.data.order import Ordered, Steps, loader


class Records:
    """A data set that gathers its own record numbers."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def gather(self, rows):
        return {"row": rows}


N, BATCH = 37, 8  # a batch straddles two passes


def stream(first=0, last=20, seed=0, world=1, workers=0):
    """The records of the global batches first, ..., last - 1, put together from all processes."""
    parts = [
        list(
            loader(
                Records(N), seed, BATCH, lambda r=r: Steps(first, last, BATCH, r, world), workers
            )
        )
        for r in range(world)
    ]
    assert all(len(p) == last - first for p in parts)
    return [
        (torch.cat([b["row"] for b in step]), torch.cat([b["place"] for b in step]))
        for step in zip(*parts, strict=True)
    ]


def same(a, b):
    return all(
        torch.equal(x, y) for s, t in zip(a, b, strict=True) for x, y in zip(s, t, strict=True)
    )


def test_each_pass_is_a_permutation_of_its_own():
    rows = torch.cat([r for r, _ in stream()])
    passes = rows[: 4 * N].view(4, N)
    assert (passes.sort(dim=1).values == torch.arange(N)).all()
    assert len({tuple(p.tolist()) for p in passes}) == 4


def test_places_number_the_global_batch():
    assert all(torch.equal(p, torch.arange(BATCH)) for _, p in stream())


def test_any_number_of_processes_and_workers_reads_the_same():
    assert same(stream(), stream(world=2))
    assert same(stream(), stream(world=4))
    assert same(stream(), stream(workers=2))


def test_a_resumed_stream_goes_on():
    assert same(stream()[13:], stream(first=13))


def test_seeds_give_other_orders():
    assert not same(stream(), stream(seed=1))


def test_every_record_comes_first_equally_often():
    """Over many seeds the first record is uniform: a chi-square with 4 degrees of freedom."""
    draws = [int(Ordered(Records(5), seed, 1)[0]["row"]) for seed in range(1000)]
    counts = torch.bincount(torch.tensor(draws), minlength=5).double()
    assert float(((counts - 200) ** 2 / 200).sum()) < 23.5  # p = 1e-4
