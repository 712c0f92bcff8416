"""MambaBlockSpecific: the block that Article 1 gives in code. S6 and a gate, with Δ from a single number a token.

    x_in, res = W_in x + b_in,   y = (h C + D ⊙ x_in) ⊙ silu(res),   h_t = exp(Δ_t A) ⊙ h_{t−1} + (Δ_t B_t) x_in
    B_t, C_t, d_t = W_x x_in + b_x,   Δ_t = softplus(w_Δ d_t + b_Δ),   A = −exp(A_log)

Set beside the Mamba block it has no expansion, no short convolution and no projection at its end, Δ is of rank 1,
and A starts from normal numbers (claim HIPPO-18). Source: Article 1, §3; B̄ = ΔB as in its code (claim SEL-26).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Reals, Sequence, Token
from ssm_edu.selective.reference import silu

State = Float[np.ndarray, "width n"]


@dataclass(frozen=True)
class Parameters:
    """Rows of W_x: n for B, n for C, and one for Δ."""

    W_in: Float[np.ndarray, "two_widths width"]
    b_in: Float[np.ndarray, " two_widths"]
    W_x: Float[np.ndarray, "two_n_and_one width"]
    b_x: Float[np.ndarray, " two_n_and_one"]
    w_delta: Float[np.ndarray, " width"]
    b_delta: Float[np.ndarray, " width"]
    A_log: Float[np.ndarray, "width n"]
    D: Float[np.ndarray, " width"]

    @cached_property
    def A(self) -> State:
        return -np.exp(self.A_log)


class Selected(NamedTuple):
    """What the input selects, for one token or, with leading axes, for many."""

    delta: Array
    B: Array
    C: Array


@sized
def init(rng: np.random.Generator, *, width: int = 4, state: int = 8) -> Parameters:
    """A_log = log|N(0, 1)| and D = 1, as given; weights and biases within ±1/√inputs, as nn.Linear draws them."""

    def uniform(inputs: int, *shape: int) -> Reals:
        return rng.uniform(-1, 1, shape) / np.sqrt(inputs)

    return Parameters(
        W_in=uniform(width, 2 * width, width),
        b_in=uniform(width, 2 * width),
        W_x=uniform(width, 2 * state + 1, width),
        b_x=uniform(width, 2 * state + 1),
        w_delta=uniform(1, width),
        b_delta=uniform(1, width),
        A_log=np.log(np.abs(rng.standard_normal((width, state)))),
        D=np.ones(width),
    )


def project(params: Parameters, x: Float[np.ndarray, "*length width"]) -> tuple[Array, Array]:
    """x_in and res, (…, width) each."""
    x_in, res = np.split(x @ params.W_in.T + params.b_in, 2, axis=-1)
    return x_in, res


def select(params: Parameters, x_in: Float[np.ndarray, "*length width"]) -> Selected:
    """Δ (…, width), B and C (…, n)."""
    n = params.A_log.shape[1]
    s = x_in @ params.W_x.T + params.b_x
    delta = np.logaddexp(0, s[..., 2 * n :] * params.w_delta + params.b_delta)
    return Selected(delta, s[..., :n], s[..., n : 2 * n])


def maps(params: Parameters, selected: Selected) -> tuple[Array, Array]:
    """Ā = exp(ΔA) and B̄ = ΔB, (…, width, n)."""
    delta, B, _ = selected
    return np.exp(delta[..., None] * params.A), delta[..., None] * B[..., None, :]


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), as the code has it: all maps at once, then a loop over the tokens."""
    x_in, res = project(params, check_sequence(x, len(params.D)))
    selected = select(params, x_in)
    A_bar, B_bar = maps(params, selected)
    h, y = first_state(params), np.empty_like(x_in)
    for t in range(len(x_in)):
        h = A_bar[t] * h + B_bar[t] * x_in[t, :, None]
        y[t] = h @ selected.C[t]
    return (y + x_in * params.D) * silu(res)


def first_state(params: Parameters) -> State:
    """h_0 = 0."""
    return np.zeros_like(params.A_log)


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and h_t from h_{t−1} and x_t (width,)."""
    check_state(state, first_state(params))
    x_in, res = project(params, check_token(x_t, len(params.D)))
    selected = select(params, x_in)
    A_bar, B_bar = maps(params, selected)
    h = A_bar * state + B_bar * x_in[:, None]
    return (h @ selected.C + x_in * params.D) * silu(res), h


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """a_t = exp(Δ_t A), b_t = (Δ_t B_t) x_in: (width, n, length)."""
    x_in, res = project(params, check_sequence(x, len(params.D)))
    selected = select(params, x_in)
    a, B_bar = (np.moveaxis(one, 0, -1) for one in maps(params, selected))
    b = B_bar * x_in.T[:, None]
    return AffineScan(a, b, lambda h: (np.einsum("dnt,tn->td", h, selected.C) + x_in * params.D) * silu(res))


CARD = Card(
    name="MambaBlockSpecific",
    paper="Article 1",
    year=2024,  # the year that the undated note names
    state_size=lambda *, width, state, **_: width * state,
    # W_in, b_in; W_x, b_x; w_Δ, b_Δ, softplus; ΔA, exp, · h, ΔB, · x, the sum, C h: 8; Dx, its sum; silu 4, the gate
    flops=lambda *, width, state, **_: (
        width * (4 * width + 2) + (2 * state + 1) * (2 * width + 1) + width * (8 * state + 10)
    ),
    memory=lambda *, width, state, **_: (
        width * (2 * width + 2) + (2 * state + 1) * (width + 1) + width * (2 * state + 3)
    ),
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="none in time: maps at once, then token by token",
    complexity="L",
)
