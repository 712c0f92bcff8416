"""The same problem told in another way: in another order, with copies, as a complex one.

Two outputs of one implementation may differ by the sum of their bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_edu.selective.reference import step_size
from ssm_edu.testing.edits import (
    exact_maps,
    random,
    rows,
    varying_maps,
    without,
)
from ssm_edu.testing.implementation import (
    Arrays,
    Implementation,
    assert_close,
    total,
)
from ssm_edu.testing.recipes import Arguments, rounded
from ssm_edu.testing.registry import holds


def same_as(scan: Implementation, one: Arrays, other: Arrays, what: str = "") -> None:
    """The scans of two problems that have the same exact outputs."""
    assert_close(scan.scan(one), scan.scan(other), total(scan.scan_tolerance(one), scan.scan_tolerance(other)), what)


@holds("rows of a batch", "each row of a batch is a problem of its own")
def rows_of_a_batch(scan: Implementation, problem: Arguments) -> None:
    order = random(problem).permutation(problem["u"].shape[0])
    permuted = rows(problem, order)
    expected, tolerance = scan.scan(problem), scan.scan_tolerance(problem)
    expected, tolerance = ({name: array[order] for name, array in out.items()} for out in (expected, tolerance))
    assert_close(scan.scan(permuted), expected, total(tolerance, tolerance), f"row {order.tolist()} of the batch")


@holds("order of channels", "channels in reverse order, groups too, give the same in reverse order")
def order_of_channels(scan: Implementation, problem: Arguments) -> None:
    def reverse(name: str, value: Any) -> Any:
        if name in ("u", "delta", "z", "initial_state") or (name in ("B", "C") and value.ndim == 4):
            return value[:, ::-1]
        constant = name in ("A", "D", "delta_bias") or (name in ("B", "C") and value.ndim == 2)
        return value[::-1] if constant else value

    expected, tolerance = scan.scan(problem), scan.scan_tolerance(problem)
    expected, tolerance = ({name: array[:, ::-1] for name, array in out.items()} for out in (expected, tolerance))
    found = scan.scan({name: reverse(name, value) for name, value in problem.items()})
    assert_close(found, expected, total(tolerance, tolerance), "channels reversed")


@holds(
    "order of states",
    "y is a sum over the states, in any order",
    corners=tuple({"shape": (1, 2, state, 3), "initial_state": True} for state in (16, 17, 33, 256)),
)
def order_of_states(scan: Implementation, problem: Arguments) -> None:
    axes = {"A": -1, "initial_state": -1} | {name: -1 if problem[name].ndim == 2 else -2 for name in ("B", "C")}
    flipped = {name: np.flip(v, axes[name]) if name in axes else v for name, v in problem.items()}
    expected, tolerance = scan.scan(problem), scan.scan_tolerance(problem)
    for out in (expected, tolerance):
        out["last_state"] = out["last_state"][..., ::-1] if "last_state" in out else out["y"]
    assert_close(scan.scan(flipped), expected, total(tolerance, tolerance), "states reversed")


@holds(
    "groups are copies",
    "channels that share a B or C have it as if each had its own",
    "variable_B",
    "variable_C",
    groups_B=2,
    groups_C=2,
)
def groups_are_copies(scan: Implementation, problem: Arguments) -> None:
    dim = problem["u"].shape[1]
    copies = {name: np.repeat(problem[name], dim // problem[name].shape[1], axis=1) for name in ("B", "C")}
    same_as(scan, problem, {**problem, **copies}, "one group a channel")


@holds(
    "constant maps",
    "a constant B or C is one that does not vary",
    "variable_B",
    "variable_C",
    "groups",
    groups_B=None,
    groups_C=None,
)
def constant_maps(scan: Implementation, problem: Arguments) -> None:
    constant = {**problem, **exact_maps(problem)}
    same_as(scan, constant, {**constant, **varying_maps(constant)}, "the same at every t")


@holds(
    "a real A as a complex one",
    "with no imaginary part anywhere, y is twice that of the real scan",
    "complex",
    is_complex=False,
)
def real_as_complex(scan: Implementation, problem: Arguments) -> None:
    states = np.result_type(problem["A"].dtype, np.complex64)
    lifted = {name: problem[name].astype(states) for name in ("A", "initial_state") if name in problem}
    real, imaginary = without(problem, "D"), without({**problem, **lifted}, "D")
    expected, t_real, t_imaginary = scan.scan(real), scan.scan_tolerance(real), scan.scan_tolerance(imaginary)
    for out in (expected, t_real):
        out["y"] = 2 * out["y"].astype(np.float64)
    assert_close(scan.scan(imaginary), expected, total(t_real, t_imaginary), "that of the real scan, doubled")


@holds(
    "the bias is added first",
    "Δ = softplus(delta + bias), not softplus(delta) + bias, and both are optional",
    delta_bias=True,
    values="simple",
)
def bias_is_added_first(scan: Implementation, problem: Arguments) -> None:
    # On a grid of 2⁻³ the sum is exact.
    delta = rounded(np.round(np.clip(problem["delta"].astype(np.float64), -4, 4) * 8) / 8, problem.recipe)
    apart = {**problem, "delta": delta}
    together = {
        **without(apart, "delta_bias"),
        "delta": rounded(step_size(delta.astype(np.float64), problem["delta_bias"], False), problem.recipe),
    }
    same_as(scan, apart, together, "the bias added beforehand")
