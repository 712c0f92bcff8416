"""The scans over segments of time, launched: of every dtype, rule and shape."""

from __future__ import annotations

from typing import no_type_check

from ssm_kernels import description
from ssm_kernels.choosing import Compilable, backward_kernel, forward_kernel
from ssm_kernels.description import Scan, either, options_of
from ssm_kernels.shares import add_up, of_channels
from ssm_kernels.variant import Variant, staged_dtype


def blocks_of(scan: Scan, v: Variant) -> int:
    """Thread blocks for one batch entry: none crosses a span."""
    return scan.dim // scan.span * -(-scan.span // (v.channels * v.warps))


@no_type_check
def forward(scan, v, y, last_state, stream, allocate):
    v, kernel = forward_kernel(v, scan.state, False, description.capability())
    last = last_state if last_state is not None else allocate((scan.batch, scan.dim, scan.state), v.number)
    launch(scan, v, kernel, y, last, None, stream, allocate)


@no_type_check
def launch(scan, v, kernel: Compilable, y, last, borders, stream, allocate):
    nothing = scan.u
    arguments = (
        scan.u, scan.delta, scan.A, scan.B, scan.C, either(scan.D, nothing), either(scan.z, nothing),
        either(scan.delta_bias, nothing), either(scan.initial_state, nothing), either(scan.seq_idx, nothing),
        either(y, nothing), last, either(borders, nothing), options_of(scan, scan.initial_state is not None),
        scan.batch, scan.dim, scan.length, scan.state, scan.span, *scan.per_group,
    )  # fmt: skip
    kernel.compiled()((scan.batch * blocks_of(scan, v), 1, 1), (v.threads, 1, 1), stream, arguments)


@no_type_check
def backward(scan, v, grad_y, grad_last_state, grads, stream, allocate):
    back, kernel = backward_kernel(v, scan.state, description.capability())

    # the states before each of its tiles, from a pass in which nothing is read out
    first, before = forward_kernel(back, scan.state, True, description.capability())
    assert first.tile == back.tile
    states = (scan.batch, scan.dim, scan.state)
    tiles = -(-scan.length // back.tile)
    borders = allocate((tiles, scan.batch, scan.state, scan.dim), v.number)
    launch(scan, first, before, None, allocate(states, v.number), borders, stream, allocate)

    blocks = blocks_of(scan, back)
    staged = staged_dtype(v.map_B, v.precision), staged_dtype(v.map_C, v.precision)
    along = (scan.batch * blocks, scan.state, scan.length)
    shares_B, shares_C = (
        allocate(states if constant else along, dtype)
        for constant, dtype in zip((v.constant_B, v.constant_C), staged, strict=True)
    )
    (shares_A, shares_D, shares_bias), sums = of_channels(
        grads, scan.batch, scan.dim, scan.state, v.number, v.precision, allocate
    )
    leaving = allocate(states, v.number) if grads.initial_state is None else grads.initial_state
    nothing = scan.u
    arguments = (
        grad_y, scan.u, scan.delta, scan.A, scan.B, scan.C, either(scan.D, nothing), either(scan.z, nothing),
        either(scan.delta_bias, nothing), either(scan.seq_idx, nothing), borders, either(grad_last_state, nothing),
        grads.u, grads.delta, either(grads.z, nothing), shares_A, shares_B, shares_C, shares_D, shares_bias, leaving,
        options_of(scan, grad_last_state is not None),
        scan.batch, scan.dim, scan.length, scan.state, scan.span, *scan.per_group,
    )  # fmt: skip
    kernel.compiled()((scan.batch * blocks, 1, 1), (back.threads, 1, 1), stream, arguments)

    each = scan.dim * scan.state
    pending = [
        (dtype, M, shares, target, 1, scan.batch, each)
        if group is None
        else (dtype, M, shares, target, scan.batch * group, blocks // group, scan.state * scan.length)
        for shares, dtype, target, M, group in (
            (shares_B, staged[0], grads.B, v.map_B, scan.group_B),
            (shares_C, staged[1], grads.C, v.map_C, scan.group_C),
        )
    ]
    add_up([*sums, *pending], stream)
