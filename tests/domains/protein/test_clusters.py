"""Clusters: families are found, strangers kept apart, and the filters lose nothing."""

import numpy as np
import pytest

from sciffusion.domains.protein import clusters
from sciffusion.domains.protein.clusters import cluster, identity_of
from sciffusion.errors import InputError

LETTERS = list("ACDEFGHIKLMNPQRSTVWY")


def drawn(rng, length):
    return "".join(rng.choice(LETTERS, length))


def mutated(rng, sequence, share):
    """A share of the residues changed for others, for sure."""
    out = list(sequence)
    for i in rng.choice(len(out), round(share * len(out)), replace=False):
        out[i] = rng.choice([k for k in LETTERS if k != out[i]])
    return "".join(out)


@pytest.fixture(scope="module")
def families():
    """Eight families of six: an ancestor, copies with 30% changed, one of them cut short."""
    rng = np.random.default_rng(0)
    sequences, family = [], []
    for k in range(8):
        ancestor = drawn(rng, 60 + 15 * k)
        kin = [mutated(rng, ancestor, 0.3 * (j > 0)) for j in range(5)]
        sequences += [*kin, kin[1][5:45]]
        family += [k] * 6
    return sequences, np.array(family)


def test_identity_counts_what_was_left():
    rng = np.random.default_rng(1)
    one = drawn(rng, 120)
    for share in (0.0, 0.1, 0.3, 0.5):
        other = mutated(rng, one, share)
        assert identity_of(one, other) == pytest.approx(1 - share, abs=0.04)
        assert identity_of(other, one) == identity_of(one, other)
    assert identity_of(one, one[30:80]) == 1.0
    assert identity_of(one, one[:60] + one[70:]) > 0.97
    assert identity_of("X" * 50, "X" * 50) == 0.0


def test_families_are_clusters_in_any_order(families):
    sequences, family = families
    found = np.array(cluster(sequences, 0.4))
    assert ((found[:, None] == found) == (family[:, None] == family)).all()
    assert found.tolist() == family.tolist()  # numbered as they first occur
    order = np.random.default_rng(2).permutation(len(sequences))
    shuffled = np.array(cluster([sequences[i] for i in order], 0.4))
    assert ((shuffled[:, None] == shuffled) == (found[order][:, None] == found[order])).all()


@pytest.mark.parametrize("identity", [0.4, 0.6, 0.9])
def test_the_filters_lose_nothing(identity, families, monkeypatch):
    sequences, _ = families
    found = cluster(sequences[:24], identity)
    monkeypatch.setattr(clusters, "SCORE", -9.0)
    monkeypatch.setattr(
        clusters, "_candidates", lambda s, _: (list(range(i)) for i in range(len(s)))
    )
    slow = cluster(sequences[:24], identity)
    assert len(set(found)) == len(set(slow))


def test_edges():
    assert cluster([]) == []
    assert cluster(["ACDEFGHIKL"] * 3) == [0, 0, 0]
    assert cluster(["XXXXXXXXXX", "X", "AC"]) == [0, 1, 2]
    for identity in (0, 1.5, -1):
        with pytest.raises(InputError, match="identity"):
            cluster(["AC"], identity)
