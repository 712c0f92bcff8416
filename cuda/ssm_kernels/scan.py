"""The selective scan and its adjoint on the GPU: by walking where there are such kernels, else by segments.

:mod:`ssm_kernels.choosing` says which of each.
"""

from __future__ import annotations

from typing import Any, no_type_check

from ssm_kernels import segments
from ssm_kernels.description import Allocate, Buffer, Scan, on_16_bytes, variant_of
from ssm_kernels.walking import launching as walking

__all__ = ["MAX_STATE", "Allocate", "Buffer", "Scan", "backward", "forward", "saved_shape"]

MAX_STATE = 256


def saved_shape(scan: Scan) -> tuple[int, ...] | None:
    """Of the float32 states that `forward` saves for `backward`, if it is asked to; None where there are none."""
    v = variant_of(scan)
    return walking.saved_shape(scan) if walking.serve_back(scan, v) else None


@no_type_check
def forward(
    scan: Scan, y: Buffer, last_state: Buffer | None, *, stream: Any, allocate: Allocate, saved: Buffer | None = None
) -> None:
    """y and the last state, on the stream, and states for the way back, if there is a place where they are `saved`.

    All of these begin at 16-byte boundaries.

    Raises:
        ValueError: more than 256 states.
    """
    check_state(scan)
    v = variant_of(scan, y)
    if walking.serve(scan, v):
        walking.forward(scan, v, y, last_state, stream, allocate, saved)
    else:
        assert saved is None
        segments.forward(scan, v, y, last_state, stream, allocate)


@no_type_check
def backward(
    scan: Scan,
    grad_y: Buffer,
    grad_last_state: Buffer | None,
    grads: Any,
    *,
    stream: Any,
    allocate: Allocate,
    saved: Buffer | None = None,
) -> None:
    """Every gradient, on the stream; `grads` has the fields u, delta, A, B, C, D, z, delta_bias and initial_state.

    Those of A and of the initial state begin at 16-byte boundaries. `saved` is what `forward` left there of the same
    arguments: without it, or where it is of no use, the states are worked out again.

    Raises:
        ValueError: more than 256 states.
    """
    check_state(scan)
    v = variant_of(scan, grad_y, grads.u, grads.delta, grads.z)
    if walking.serve_back(scan, v):
        # without saved states what comes back is read number by number
        saved = saved if on_16_bytes(saved, grad_last_state) else None
        walking.backward(scan, v, grad_y, grad_last_state, grads, stream, allocate, saved)
    else:
        segments.backward(scan, v, grad_y, grad_last_state, grads, stream, allocate)


def check_state(scan: Scan) -> None:
    if scan.state > MAX_STATE:
        raise ValueError(f"A has {scan.state} states, expected at most {MAX_STATE} on the cuda backend")
