import math

import pytest
import torch

from sciffusion.nn.attention import SelfAttention, attend


def test_attend_is_the_softmax_average_of_each_head():
    torch.manual_seed(0)
    b, n, heads, d = 2, 5, 3, 4
    qkv = torch.randn(b, n, 3 * heads * d, dtype=torch.float64)
    answer = attend(qkv, heads).reshape(b, n, heads, d)
    q, k, v = qkv.reshape(b, n, 3, heads, d).unbind(2)
    for i in range(b):
        for h in range(heads):
            logits = q[i, :, h] @ k[i, :, h].T / math.sqrt(d)
            expected = torch.softmax(logits, -1) @ v[i, :, h]
            torch.testing.assert_close(answer[i, :, h], expected)


def test_masked_tokens_have_no_influence():
    torch.manual_seed(0)
    qkv = torch.randn(2, 6, 3 * 8)
    mask = torch.arange(6) < 4
    short = attend(qkv[:, :4], heads=2)
    padded = attend(qkv, heads=2, mask=mask[None, None, None])
    torch.testing.assert_close(padded[:, :4], short)


def test_permuting_tokens_permutes_the_answer():
    torch.manual_seed(0)
    layer = SelfAttention(8, heads=2)
    torch.nn.init.normal_(layer.out.weight)
    x, order = torch.randn(2, 7, 8), torch.randperm(7)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_starts_at_zero_and_refuses_heads_that_do_not_divide():
    assert not SelfAttention(8, heads=2)(torch.randn(1, 3, 8)).any()
    with pytest.raises(ValueError, match="heads=3"):
        SelfAttention(8, heads=3)
