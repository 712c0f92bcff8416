"""The Mamba block: the selective scan between two projections, after a short convolution, before a gate.

    u, z = W_in x,   s = silu(conv(u)),   y = W_out (S6(s) ⊙ silu(z))

All but the scan acts on single tokens, or on the last few of them. Source: Mamba, §3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ssm_edu.atlas import s6
from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Array, Card, Sequence, Token, linear, tapped
from ssm_edu.selective.reference import silu


@dataclass(frozen=True)
class Parameters:
    """inner = expand · width channels in the block; `conv` meets u_t, u_{t−1}, …"""

    W_in: Float[np.ndarray, "two_inner width"]
    conv: Float[np.ndarray, "inner taps"]
    conv_bias: Float[np.ndarray, " inner"]
    ssm: s6.Parameters
    W_out: Float[np.ndarray, "width inner"]


class State(NamedTuple):
    """What the short convolution looks back on, newest first, and the state of the scan."""

    recent: Float[np.ndarray, "taps inner"]
    h: s6.State


@sized
def init(
    rng: np.random.Generator, *, width: int = 4, state: int = 8, rank: int = 2, expand: int = 2, taps: int = 4
) -> Parameters:
    """As S6, with the released block's expansion and taps by default."""
    inner = expand * width
    return Parameters(
        W_in=linear(rng, 2 * inner, width),
        conv=linear(rng, inner, taps),
        conv_bias=rng.standard_normal(inner),
        ssm=s6.init(rng, width=inner, state=state, rank=rank),
        W_out=linear(rng, width, inner),
    )


def before_the_scan(params: Parameters, x: Sequence) -> tuple[Array, Array]:
    """s and the gate silu(z), (length, inner) each."""
    u, z = np.split(x @ params.W_in.T, 2, axis=1)
    return silu(tapped(u, params.conv) + params.conv_bias), silu(z)


def parallel(params: Parameters, x: ArrayLike) -> Sequence:
    """y (length, width) of x (length, width), by Blelloch's scan."""
    return as_affine_scan(params, x).outputs("blelloch")


def first_state(params: Parameters) -> State:
    """Both zero."""
    return State(np.zeros(params.conv.T.shape), s6.first_state(params.ssm))


def step(params: Parameters, state: State, x_t: ArrayLike) -> tuple[Token, State]:
    """y_t and the next state from the last one and x_t (width,)."""
    check_state(state, first_state(params))
    u, z = np.split(params.W_in @ check_token(x_t, len(params.W_out)), 2)
    recent = np.concatenate([u[None], state.recent[:-1]])
    s = silu((params.conv.T * recent).sum(axis=0) + params.conv_bias)
    y, h = s6.step(params.ssm, state.h, s)
    return params.W_out @ (y * silu(z)), State(recent, h)


def as_affine_scan(params: Parameters, x: ArrayLike) -> AffineScan:
    """That of S6, on the convolved input: (inner, n, length)."""
    s, gate = before_the_scan(params, check_sequence(x, len(params.W_out)))
    inner = s6.as_affine_scan(params.ssm, s)
    return AffineScan(inner.a, inner.b, lambda h: (inner.read_out(h) * gate) @ params.W_out.T)


CARD = Card(
    name="Mamba block",
    paper="Mamba",
    year=2023,
    state_size=lambda *, width, expand, taps, state, **_: expand * width * (state + taps),
    # W_in, W_out: 6 a pair; the taps, their bias, silu twice at 4, the gate; S6
    flops=lambda *, width, expand, taps, state, rank, **_: (
        expand * width * (6 * width + 2 * taps + 10) + s6.CARD.flops(width=expand * width, state=state, rank=rank)
    ),
    memory=lambda *, width, expand, taps, state, rank, **_: (
        expand * width * (3 * width + 2 * taps + 1) + s6.CARD.memory(width=expand * width, state=state, rank=rank)
    ),
    time_invariant=False,
    input_dependent_decay=True,
    parallel_form="parallel scan",
    complexity="L",
)
