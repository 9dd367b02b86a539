import numpy as np
import pytest

from sciffusion.domains.protein import similarity
from sciffusion.domains.protein.backbone import CA
from sciffusion.domains.protein.geometry import build
from sciffusion.domains.protein.similarity import (
    clusters,
    nearest,
    nearest_steps,
    pairwise_tm,
    rank_scores,
    tm_scores,
)
from sciffusion.errors import InputError

pytest.importorskip("tmtools")


def trace(seed, length=60):
    """CA of helices, strands and turns of random lengths."""
    rng = np.random.default_rng(seed)
    basins = np.array([(-63, -42), (-120, 130), (-75, 150), (60, 40)], float)
    which = np.repeat(rng.choice(4, length, p=[0.4, 0.4, 0.1, 0.1]), rng.integers(2, 12, length))
    phi, psi = np.radians(basins[which[:length]] + rng.normal(0, 8, (length, 2))).T
    return build(phi, psi, np.full(length, np.pi))[:, CA]


def moved(x, seed=0):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return x @ (turn * np.linalg.det(turn)) + [30.0, 2.0, -7.0]


@pytest.fixture(scope="module")
def train():
    rng = np.random.default_rng(0)
    return [trace(k, int(n)) for k, n in enumerate(rng.integers(40, 100, 80))]


def test_tm_score_of_a_chain_with_itself_is_one_wherever_it_lies():
    x = trace(1)
    assert tm_scores(x, moved(x)) == pytest.approx((1, 1), abs=1e-6)
    half = tm_scores(x[:30], moved(x))
    assert half == pytest.approx((1, 0.5), abs=0.02)
    assert tm_scores(x, x * [1, 1, -1])[0] < 0.7


def test_tm_score_by_its_formula_where_the_alignment_is_plain():
    x = trace(2, 80)
    y = x + np.random.default_rng(0).normal(0, 0.5, x.shape)
    near, far = y - y.mean(0), x - x.mean(0)
    u, _, vt = np.linalg.svd(near.T @ far)
    fit = near @ (u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)
    d0 = 1.24 * (80 - 15) ** (1 / 3) - 1.8
    expected = np.mean(1 / (1 + ((fit - far) ** 2).sum(-1) / d0**2))
    assert tm_scores(y, x)[0] == pytest.approx(expected, abs=2e-3)


def test_what_is_no_fold_scores_nothing_and_fragments_are_refused():
    x = trace(3)
    assert tm_scores(x * 1e4, x) == (0, 0)
    for bad in (x[:5], np.full((20, 3), np.nan)):
        with pytest.raises(InputError, match="give 6 or more"):
            tm_scores(bad, x)


def test_pairs_are_symmetric_and_counted():
    done = []
    tm = pairwise_tm([trace(1), moved(trace(1)), trace(5, 50)], progress=done.append)
    np.testing.assert_array_equal(tm, tm.T)
    np.testing.assert_array_equal(np.diag(tm), 1)
    assert tm[0, 1] == pytest.approx(1, abs=1e-6)
    assert tm[0, 2] == pytest.approx(tm[1, 2], abs=0.05)
    assert tm[0, 2] == pytest.approx(np.mean(tm_scores(trace(1), trace(5, 50))), abs=1e-6)
    assert sum(done) == 3


def test_single_linkage_joins_what_a_chain_of_likenesses_joins():
    tm = np.eye(5)
    for i, j, value in ((0, 2, 0.6), (2, 3, 0.51), (1, 4, 0.5)):
        tm[i, j] = tm[j, i] = value
    label = clusters(tm)
    assert label[0] == label[2] == label[3]
    assert len(set(label.tolist())) == 3


def test_a_copy_is_found_among_the_few_that_are_aligned(train):
    rng = np.random.default_rng(1)
    picks = [7, 60, 79]
    copies = [moved(train[k] + rng.normal(0, 0.3, train[k].shape), k) for k in picks]
    long = int(np.argmax([len(x) for x in train]))
    piece = moved(train[long][30:75])
    done = []
    found = nearest([*copies, piece], train, kept=3, progress=done.append)
    assert found.index.tolist() == [*picks, long]
    assert (found.tm > 0.9).all()
    assert sum(done) == nearest_steps(4, len(train), 3)


def test_ranking_knows_hands(train):
    scores = rank_scores([train[9], train[9] * [1, 1, -1]], train)
    assert scores[0].argmax() == 9
    assert scores[1, 9] < 0.75 * scores[0, 9]


def test_few_training_chains_are_all_aligned(train):
    few, query = train[:6], trace(99)
    done = []
    found = nearest([query], few, kept=10, progress=done.append)
    scores = [tm_scores(query, x)[0] for x in few]
    assert found.tm[0] == max(scores)
    assert found.index[0] == np.argmax(scores)
    assert sum(done) == nearest_steps(1, 6, 10) == 6
    with pytest.raises(InputError, match="against 0 chains"):
        nearest([query], [])


def smith_waterman(query, chain):
    score = np.zeros((len(query) + 1, len(chain) + 1))
    for i, a in enumerate(query, 1):
        for j, b in enumerate(chain, 1):
            alike = max(similarity.MATCH - ((a - b) ** 2).sum(), -2 * similarity.MATCH)
            gap = max(score[i - 1, j], score[i, j - 1]) - similarity.GAP
            score[i, j] = max(0, score[i - 1, j - 1] + alike, gap)
    return score.max()


def test_ranking_is_smith_and_waterman_with_linear_gaps():
    x, others = trace(4, 40), [trace(k, 25 + k) for k in (5, 6, 11)]
    known = [similarity.surroundings(y) for y in others]
    middle = np.nanmean(np.concatenate(known), 0)
    query, *chains = (np.nan_to_num(v - middle) for v in (similarity.surroundings(x), *known))
    expected = [smith_waterman(query, chain) for chain in chains]
    np.testing.assert_allclose(rank_scores([x], others)[0], expected, rtol=1e-4)
