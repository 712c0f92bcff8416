"""The three formulas that every rung calls by name."""

from __future__ import annotations

import math
from typing import no_type_check

from ssm_kernels._target import jit, types

float32 = types.float32


@jit(device=True)
@no_type_check
def softplus(x):
    """log(1 + eˣ); above 20 it is x to the last bit of a float32."""
    return x if x > float32(20) else math.log1p(math.exp(x))


@jit(device=True)
@no_type_check
def silu(z):
    """z σ(z), with an exponential that cannot overflow."""
    decay = math.exp(-math.fabs(z))
    return z * ((float32(1) if z >= 0 else decay) / (float32(1) + decay))


@jit(device=True)
@no_type_check
def compose(a2, b2, a1, b1):
    """The map h ↦ a₂(a₁h + b₁) + b₂ of two steps (SCAN-1)."""
    return a2 * a1, a2 * b1 + b2
