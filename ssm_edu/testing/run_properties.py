"""What holds of every run, whatever it computes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_edu.testing.backward_properties import cotangents
from ssm_edu.testing.implementation import Failure, Implementation, Outputs, assert_close, total
from ssm_edu.testing.recipes import Arguments, Array
from ssm_edu.testing.registry import holds


def run(scan: Implementation, problem: Arguments) -> Outputs:
    """All outputs, of the forward scan and of its adjoint."""
    found = scan.scan(problem)
    return found if scan.backward is None else found | scan.gradients(problem, *cotangents(scan, problem))


@holds("inputs unchanged", "not a bit of the arguments is written to")
def inputs_unchanged(scan: Implementation, problem: Arguments) -> None:
    given = scan.given(problem)
    scan.scan_given(given, problem)
    assert_unchanged(scan, given, problem, "forward")
    if scan.backward is None:
        return
    grad_y, grad_last = cotangents(scan, problem)
    arrays = {"grad_y": grad_y, **problem} | ({} if grad_last is None else {"grad_last_state": grad_last})
    given = scan.given(arrays)
    scan.gradients_given(given, problem)
    assert_unchanged(scan, given, arrays, "backward")


@holds("strided inputs", "arguments that are views of larger arrays, with gaps between rows, are read right", "strided")
def strided_inputs(scan: Implementation, problem: Arguments) -> None:
    expected, found = scan.scan(problem), scan.scan_given(with_gaps(scan, problem), problem)
    tolerance = scan.scan_tolerance(problem)
    assert_close(found, expected, total(tolerance, tolerance), "of contiguous arrays")
    if scan.backward is None:
        return
    grad_y, grad_last = cotangents(scan, problem)
    arrays = {"grad_y": grad_y, **problem} | ({} if grad_last is None else {"grad_last_state": grad_last})
    found, expected = scan.gradients_given(with_gaps(scan, arrays), problem), scan.gradients(problem, grad_y, grad_last)
    tolerance = scan.gradients_tolerance(problem, grad_y, grad_last)
    assert_close(found, expected, total(tolerance, tolerance), "of contiguous arrays")


def with_gaps(scan: Implementation, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arguments, each array a slice of one with twice as long rows that end in numbers of no use."""
    wide = {n: np.concatenate([x, x + 1], axis=-1) for n, x in arrays.items() if isinstance(x, np.ndarray)}
    given = scan.given({**arrays, **wide})
    return {name: given[name][..., : arrays[name].shape[-1]] if name in wide else x for name, x in given.items()}


def assert_unchanged(scan: Implementation, given: dict[str, Any], arrays: dict[str, Any], what: str) -> None:
    for name, array in arrays.items():
        if isinstance(array, np.ndarray):
            after, _ = scan.framework.to_numpy(name, given[name])
            changed = np.argwhere(_bits(after) != _bits(array.astype(after.dtype)))
            if len(changed):
                at = tuple(int(i) for i in changed[0])
                raise Failure(f"{what} changed {name}[{', '.join(map(str, at))}] from {array[at]!s} to {after[at]!s}")


@holds("determinism", "two runs give the same bits", "deterministic")
def determinism(scan: Implementation, problem: Arguments) -> None:
    first, second = run(scan, problem), run(scan, problem)
    for name, array in first.items():
        changed = np.argwhere(_bits(array) != _bits(second[name]))
        if len(changed):
            at = tuple(int(i) for i in changed[0])
            raise Failure(f"{name}[{', '.join(map(str, at))}] is {array[at]!s} and then {second[name][at]!s}")


@holds("nothing unwritten", "every element of every output is written, even where old memory holds NaN")
def nothing_unwritten(scan: Implementation, problem: Arguments) -> None:
    """Fill with NaN what memory can be filled, and run.

    It reaches all that the framework's `empty` and `empty_like` give to Python code, and of the rest what the
    allocator makes of freed memory of the outputs' sizes, as the caching allocators of PyTorch and CuPy do, and malloc
    for small sizes; not memory that the system hands out as zeros, nor a buffer that the implementation keeps.
    """
    expected = run(scan, problem)
    freed = [
        scan.framework.from_numpy(np.full(array.shape, np.nan, array.dtype), array.dtype.name)
        for array in (*expected.values(), *expected.values())
    ]
    del freed
    with scan.framework.nan_for_empty():
        found = run(scan, problem)
    for name, array in found.items():
        unwritten = np.argwhere(np.isnan(array) & ~np.isnan(expected[name]))
        if len(unwritten):
            at = ", ".join(str(int(i)) for i in unwritten[0])
            raise Failure(f"{name}[{at}] is nan where memory was filled with nan before the run")
    tolerance = scan.scan_tolerance(problem)
    if scan.backward is not None:
        tolerance |= scan.gradients_tolerance(problem, *cotangents(scan, problem))
    assert_close(found, expected, total(tolerance, tolerance), "the run before")


def _bits(array: Array) -> Array:
    """The bytes of each element, so that −0 is not 0 and NaN is itself."""
    return np.ascontiguousarray(array).view(f"V{array.itemsize}")
