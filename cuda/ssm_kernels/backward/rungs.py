"""What the rungs share: the functions of one step, the launcher's frame, and the sums over parts in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, no_type_check

import numpy as np

from ssm_kernels._target import cuda, jit
from ssm_kernels.ladder import Sizes, check

ZERO, ONE = np.float32(0), np.float32(1)
THREADS = 128


class Gradients(NamedTuple):
    """Where a launch writes: arrays in the shapes of the inputs."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    z: Any
    delta_bias: Any


class Inputs(NamedTuple):
    """A launch's inputs."""

    grad_y: Any
    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    z: Any
    delta_bias: Any

    def sizes(self, grads: Any) -> Sizes:
        """The sizes on which inputs and gradients agree, or a ValueError or TypeError that names who does not."""
        outputs = {f"grad_{name}": array for name, array in grads._asdict().items()}
        return check(**self._asdict(), **outputs)


def launcher(run: Callable[[Inputs, Any, Sizes, Any], None]) -> Callable[..., None]:
    """The launch function that all rungs have, around what is the rung's own: run(inputs, grads, sizes, stream)."""

    def launch(
        grad_y: Any,
        u: Any,
        delta: Any,
        A: Any,
        B: Any,
        C: Any,
        D: Any,
        z: Any,
        delta_bias: Any,
        grads: Any,
        *,
        stream: Any = 0,
    ) -> None:
        """Write the gradients of all inputs into `grads`.

        Args:
            grad_y: (batch, dim, length), as u, delta and z; A is (dim, state), B and C (batch, state, length), D and
                delta_bias (dim,); all float32, device arrays or NumPy arrays.
            grads: :class:`Gradients`, or a NamedTuple with its fields, of the arrays to write.
            stream: a CUDA stream.

        Raises:
            ValueError, TypeError: as :func:`ssm_kernels.ladder.check`.
        """
        inputs = Inputs(grad_y, u, delta, A, B, C, D, z, delta_bias)
        run(inputs, grads, inputs.sizes(grads), stream)

    return launch


Count = Callable[[float, float], float]


def costs(words: Count, exponentials: Count, flops: Count) -> dict[str, Any]:
    """A :class:`ssm_kernels.ladder.Rung`'s counts, from those of one element (b, d, t) for so many states and channels.

    They are what each further tile of the length costs: the first and the last one save what crosses their borders.
    """

    def whole(count: Count, unit: int) -> Callable[[int, int, int, int], float]:
        return lambda batch, dim, length, state: unit * batch * dim * length * count(state, dim)

    return {"bytes": whole(words, 4), "exponentials": whole(exponentials, 1), "flops": whole(flops, 1)}


def scratch(*shape: int) -> Any:
    """Uninitialised float32 device memory."""
    return cuda.device_array(shape, np.float32)


def ceil(n: int, per: int) -> int:
    return -(-n // per)


@jit(device=True, forceinline=True)
@no_type_check
def softplus(x):
    """log(1 + eˣ), without overflow."""
    return max(x, ZERO) + math.log1p(math.exp(-abs(x)))


@jit(device=True, forceinline=True)
@no_type_check
def sigmoid(x):
    w = math.exp(-abs(x))
    return (w if x < ZERO else ONE) / (ONE + w)


@jit(device=True, forceinline=True)
@no_type_check
def silu(x):
    return x * sigmoid(x)


@jit(device=True, forceinline=True)
@no_type_check
def dsilu(x):
    return sigmoid(x) * (ONE + x * sigmoid(-x))


@jit
@no_type_check
def sum_maps(B_parts, C_parts, dB, dC):
    """dB and dC (batch, state, length) from their parts (batch, part, state, length), a thread for each element."""
    batch, state, length = dB.shape
    i = cuda.grid(1)
    if i < batch * state * length:
        t = i % length
        n = i // length % state
        b = i // length // state
        dB_t = ZERO
        dC_t = ZERO
        for part in range(B_parts.shape[1]):
            dB_t += B_parts[b, part, n, t]
            dC_t += C_parts[b, part, n, t]
        dB[b, n, t] = dB_t
        dC[b, n, t] = dC_t


@jit
@no_type_check
def sum_channels(A_parts, D_parts, bias_parts, dA, dD, dbias):
    """dA (dim, state), dD and the bias' gradient (dim,) from parts with one more axis in front."""
    dim, state = dA.shape
    i = cuda.grid(1)
    if i < dim * state:
        n = i % state
        d = i // state
        dA_n = ZERO
        for part in range(A_parts.shape[0]):
            dA_n += A_parts[part, d, n]
        dA[d, n] = dA_n
        if n == 0:
            dD_d = ZERO
            dbias_d = ZERO
            for part in range(A_parts.shape[0]):
                dD_d += D_parts[part, d]
                dbias_d += bias_parts[part, d]
            dD[d] = dD_d
            dbias[d] = dbias_d


@no_type_check
def sum_parts(maps, channels, grads, stream):
    """Both sums: `maps` are the parts of B and C, `channels` those of A, D and delta_bias."""
    (dim, state), length = channels[0].shape[1:], maps[0].shape[3]
    batch = maps[0].shape[0]
    sum_maps[ceil(batch * state * length, THREADS), THREADS, stream](*maps, grads.B, grads.C)
    sum_channels[ceil(dim * state, THREADS), THREADS, stream](*channels, grads.A, grads.D, grads.delta_bias)
