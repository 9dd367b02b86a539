"""Power-function profiles of averaged weights, and how one is made of others after training.

An average at step t weighs the weights of step tau <= t by its profile (Karras et al. 2024,
arXiv:2312.02696, sec. 3 and appendix C)

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1),    F(tau) = min(tau / t, 1)^(gamma + 1),

whose standard deviation over t is its length, sigma_rel. Averages are linear in their profiles: a
combination of stored averages whose profiles add up to a wanted profile is that average.

Which combination comes nearest is a question of least squares. The paper asks it of the densities
p; here it is asked of 1 - F, with weights that sum to one,

    K_ab = int_0^inf (1 - F_a)(1 - F_b) dtau,

the covariance of two averages of weights that walk at random. So the answer is the best linear
prediction of the wanted average, and its error is known beforehand, relative to how far the
weights have walked. It is as good as the paper's at short lengths and better at long ones, on
random walks and on white noise alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LONGEST = math.sqrt(1 / 12)
"""The length of gamma = 0, the plain mean of all steps."""


def length_of_gamma(gamma: float) -> float:
    """sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of_length(length: float) -> float:
    """The exponent of the profile of this length; 0.05 gives 16.97 and 0.1 gives 6.94.

    Raises:
        ValueError: not in (0, 0.2887], the plain mean of all steps.
    """
    if not 0 < length <= LONGEST + 1e-9:
        raise ValueError(f"the length of an average lies above 0 and up to {LONGEST:.4f}")
    low, high = 0.0, 1 / length  # sigma_rel falls with gamma, and stays below 1 / gamma
    while high - low > 1e-14 * (1 + high):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if length_of_gamma(middle) > length else (low, middle)
    return (low + high) / 2


def covariance(
    step_a: Float[Tensor, "*n"],
    gamma_a: Float[Tensor, "*n"],
    step_b: Float[Tensor, "*n"],
    gamma_b: Float[Tensor, "*n"],
) -> Float[Tensor, "*n"]:
    """K of averages at two steps, in steps; float64, broadcast."""
    first = torch.minimum(step_a, step_b)
    a, b = gamma_a + 1, gamma_b + 1
    share_a, share_b = (first / step_a) ** a, (first / step_b) ** b
    return first * (1 - share_a / (a + 1) - share_b / (b + 1) + share_a * share_b / (a + b + 1))


@dataclass(frozen=True)
class Combination:
    """An average made of others.

    Attributes:
        weights: (n,) of the stored averages, float64; they sum to 1.
        error: to expect where weights walk at random, relative to how far the average has walked.
    """

    weights: Float[Tensor, " n"]
    error: float


def combine(
    steps: Float[Tensor, " n"],
    gammas: Float[Tensor, " n"],
    step: float,
    gamma: float,
    rounding: float = 2.0**-24,
) -> Combination:
    """The average of exponent `gamma` at `step`, of averages at `steps` of exponents `gammas`.

    Args:
        rounding: largest relative error of a stored number: 2^-24 in full precision, 2^-11 in half.
            It counts as noise, so that large weights of both signs do not blow it up.

    Raises:
        ValueError: no averages, or steps under 1.
    """
    t, g = steps.double(), gammas.double()
    if not len(t) or float(t.min()) < 1 or step < 1:
        raise ValueError("give averages at steps of 1 or more")
    wanted = torch.tensor([step, gamma], dtype=torch.float64)
    own = covariance(*wanted, *wanted)
    among = covariance(t[:, None], g[:, None], t, g)
    to = covariance(t, g, *wanted)
    noise = rounding**2 / 3 * among.diagonal()
    scale = among.diagonal().rsqrt()
    n = len(t)
    # Least squares under a sum of 1, each average scaled to unit variance
    one = scale / scale.max()
    matrix = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    matrix[:n, :n] = scale[:, None] * (among + torch.diag(noise)) * scale
    matrix[:n, n] = matrix[n, :n] = one
    right = torch.cat([scale * to, 1 / scale.max().view(1)])
    answer = torch.linalg.lstsq(matrix, right[:, None], rcond=1e-15, driver="gelsd")
    x = answer.solution[:n, 0] * scale
    left = own - 2 * x @ to + x @ among @ x + noise @ x**2
    return Combination(x, math.sqrt(max(float(left / own), 0.0)))
