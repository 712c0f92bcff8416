"""Small scans that launch every kernel of `ssm_kernels/catalogue.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from math import lcm
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from tests.problems import random_arguments


class Case(NamedTuple):
    """Forced are the variant, and the compute capability for which its kernels are chosen; None: the problem's own.

    By walking, in chunks of so many steps, if `chunk` is given, forward by such a `team` or `band`, if there is one,
    and back from states that are saved, if it is `saving`, or over chunks that a launch has `carried` over. With `step`
    a step of decoding, these the dtypes of its arrays.
    """

    title: str
    variant: Any
    capability: tuple[int, int] | None
    options: dict[str, Any]
    chunk: int | None = None
    team: Any = None
    saving: bool = False
    carried: bool = False
    step: tuple[str, ...] | None = None
    band: Any = None


def cases() -> Iterator[Case]:
    """One for each row of the catalogue, and by walking over one chunk of time and over two.

    Over one tile of time and into the next, over one block of channels and into the next.
    """
    from ssm_kernels import catalogue, choosing
    from ssm_kernels.intrinsics import ITEMSIZE
    from ssm_kernels.walking.bands import BANDS
    from ssm_kernels.walking.parts import WARPS, channels
    from ssm_kernels.walking.teams import teams_for

    rows = [given for table in (catalogue.FORWARD, catalogue.BORDERS, catalogue.BACKWARD) for given in table.values()]
    for given in [row for i, row in enumerate(rows) if row not in rows[:i]]:
        row = catalogue.ORDINARY | catalogue.split(given)[0]
        v = choosing.choose(**row)
        options = {
            "dim": 2 * (v.channels * v.warps + 1),
            "length": v.tile + (16 // ITEMSIZE[v.dtype] if v.aligned else 1),
            "groups_B": None if v.constant_B else 2,
            "groups_C": None if v.constant_C else 1,
            "complex_maps": row["complex_B"],
        } | {name: row[name] for name in ("state", "dtype", "is_complex", "discretization", "packed")}
        yield Case(str(given), v, given.get("capability"), options)
    for dtype in catalogue.WALKING:
        in_chunks = [(64, None, False)]
        if ITEMSIZE[dtype] == 4:  # of 16-bit numbers states are saved for one chunk alone
            in_chunks.append((64, None, True))
        for chunk, team, saving in [*in_chunks, *product([1024], [None, *teams_for(ITEMSIZE[dtype])], [False, True])]:
            options = {"dim": 128, "length": 136, "state": 16, "groups_B": 2, "dtype": dtype}
            title = f"by walking, {dtype}, chunks of {chunk}"
            title += f", helped by {team.warps}, {team.held} states a lane, tiles of {team.steps}" if team else ""
            title += ", from saved states" if saving else ""
            yield Case(title, None, None, options, chunk, team, saving)
            if chunk == 64 and not saving:
                yield Case(f"{title}, carried over", None, None, options, chunk, carried=True)
        for band in BANDS:
            of_group, length = lcm(channels(WARPS), band.channels), 2 * band.tile + 16
            options = {"dim": 2 * of_group, "length": length, "state": 16, "groups_B": 2, "dtype": dtype}
            title = f"by walking, {dtype}, time abreast, {band.channels} channels a block"
            yield Case(title, None, None, options, 1024, band=band)
    for dtypes in catalogue.STEPS:
        yield Case(f"a step of {' '.join(dtypes)}", None, None, {}, step=dtypes)


def arrays_of(dtype: str, **options: Any) -> dict[str, Any]:
    if dtype != "bfloat16":
        return random_arguments(0, dtype=dtype, **options)
    from ml_dtypes import bfloat16

    found = random_arguments(0, dtype="float32", **options)
    inputs = {name: found[name] for name in ("u", "delta", "z", "B", "C")}
    narrow = {name: x.astype(bfloat16) for name, x in inputs.items() if x.ndim > 2 and not np.iscomplexobj(x)}
    return found | narrow


@contextmanager
def chosen(case: Case) -> Iterator[None]:
    from ssm_kernels import description
    from ssm_kernels.walking import carry, launching

    with ExitStack() as stack:
        for module, name, value in (
            (description, "choose", case.variant),
            (description, "capability", case.capability),
            (launching, "chunk_for", case.chunk),
        ):
            if value is not None:
                stack.enter_context(mock.patch.object(module, name, return_value=value))
        if case.carried:
            stack.enter_context(mock.patch.object(carry, "MOST_BY_THEMSELVES", 1))
        if case.chunk is not None:
            stack.enter_context(mock.patch.object(launching, "team_for", return_value=case.team))
            stack.enter_context(mock.patch.object(launching, "band_for", return_value=case.band))
        yield


def launch(case: Case) -> None:
    """Forward and backward, from NumPy's arrays to NumPy's arrays.

    Raises:
        ArithmeticError: a result is not finite, or of a step not what it should be.
    """
    import ssm_edu

    if case.step is not None:
        launch_step(case.step)
        return
    arrays = arrays_of(**case.options)
    with chosen(case):
        if case.saving:
            y, last, gradients = from_saved_states(arrays)
        else:
            y, last = ssm_edu.selective_scan(**arrays, return_last_state=True, backend="cuda")
            gradients = ssm_edu.selective_scan_backward(y, **arrays, grad_last_state=last, backend="cuda")
    for name, array in (gradients._asdict() | {"y": y, "last_state": last}).items():
        if array is not None and not np.isfinite(array).all():
            raise ArithmeticError(f"{name} is not finite: {case.title}")


def from_saved_states(arrays: dict[str, Any]) -> tuple[Any, Any, Any]:
    """y, the last state and the gradients, as autograd has them launched."""
    from ssm_edu import gpu
    from ssm_edu.selective.problem import make_problem

    problem = make_problem(**arrays)
    y, last, saved = gpu._forward(*gpu._read_problem(problem), True, saving=True)
    library, views, p = gpu._read_problem(problem, grad_y=y, grad_last_state=last)
    return y, last, gpu._backward(library, views, p, library.view("saved", saved, 0))


def launch_step(dtypes: tuple[str, ...]) -> None:
    """Of more channels than a block has, in two groups. Raises as :func:`launch`."""
    from ssm_kernels import decoding

    import ssm_edu
    from ssm_edu.gpu import runtime

    sizes = decoding.Sizes(batch=2, dim=34, state=16, group_B=2, group_C=1)
    batch, dim, state, *_ = sizes
    shapes: dict[str, tuple[int, ...]] = {
        "h": (batch, dim, state), "A": (dim, state), "D": (dim,), "delta_bias": (dim,),
        "B": (batch, 2, state), "C": (batch, 1, state), **dict.fromkeys(("u", "delta", "z", "y"), (batch, dim)),
    }  # fmt: skip
    held = dict(zip(decoding.NAMES, dtypes, strict=True)) | {"y": dtypes[1]}
    arrays = {n: runtime.device_array(shape, runtime.BITS.get(held[n], held[n]), 0) for n, shape in shapes.items()}
    exact = {name: np.full(shapes[name], -0.5, complex if "c" in held[name] else float) for name in decoding.NAMES}
    for name, array in exact.items():
        runtime.upload(array, held[name], runtime.address(arrays[name]))
    rows = {"u": (dim,), "delta": (dim,), "z": (dim,), "B": (2 * state, state), "C": (state, 0)}
    operands = {n: decoding.Operand(runtime.address(arrays[n]), held[n], *rows.get(n, ())) for n in decoding.NAMES}
    decoding.step(sizes, operands, runtime.address(arrays["y"]), True, stream=0)
    y, h = ssm_edu.selective_step(*(exact[name] for name in decoding.NAMES), delta_softplus=True)
    for name, right in (("y", y), ("h", h)):
        found = runtime.download(shapes[name], held[name], runtime.address(arrays[name]))
        if not np.allclose(found, right, rtol=2**-7):  # bfloat16 rounds by 2⁻⁹
            raise ArithmeticError(f"{name} is not finite, or not what it should be: a step of {' '.join(dtypes)}")
