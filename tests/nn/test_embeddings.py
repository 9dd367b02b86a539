import pytest
import torch

from sciffusion.core.cond import Cond
from sciffusion.nn.embeddings import LOG_SNR_LIMIT, LabelEmbedding, LogSNREmbedding


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_infinite_ends_equal_the_clamped_ones():
    embed = LogSNREmbedding(32)
    ends = embed(torch.tensor([-torch.inf, -LOG_SNR_LIMIT, LOG_SNR_LIMIT, torch.inf]))
    assert ends.isfinite().all()
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[2], ends[3])


def test_levels_are_told_apart_over_the_whole_range():
    level = torch.linspace(-LOG_SNR_LIMIT, LOG_SNR_LIMIT, 401)
    angle = level[:, None] * LogSNREmbedding(8).freqs
    features = torch.cat([angle.cos(), angle.sin()], 1)
    distance = torch.cdist(features, features) + torch.eye(401) * 1e3
    assert distance.min() > 0.05


def test_odd_features_are_refused():
    with pytest.raises(ValueError, match="even"):
        LogSNREmbedding(8, features=7)


def test_dropped_labels_and_no_labels_are_one_answer():
    embed = LabelEmbedding(3, 8)
    label = torch.tensor([0, 1, 2, 1])
    keep = torch.tensor([True, False, True, False])
    kept = embed(Cond(condition={"label": label}), 4)
    some = embed(Cond(condition={"label": label}, keep=keep), 4)
    none = embed(Cond(), 4)
    assert torch.equal(some[keep], kept[keep])
    assert torch.equal(some[~keep], none[~keep])
    assert torch.equal(none[0], none[3])
    assert not torch.equal(kept[1], none[1])


def test_a_table_of_no_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes"):
        LabelEmbedding(0, 8)
