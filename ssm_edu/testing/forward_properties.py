"""What y and the last state are, in numbers: against the oracle, and against what stands in the equations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssm_edu.selective.problem import DISCRETIZATIONS
from ssm_edu.selective.reference import silu
from ssm_edu.testing.edits import (
    on_a_grid,
    random,
    without,
)
from ssm_edu.testing.implementation import (
    Failure,
    Implementation,
    assert_close,
    oracle_scan,
    scaled,
    total,
)
from ssm_edu.testing.recipes import Arguments
from ssm_edu.testing.registry import holds

EVERYTHING: dict[str, Any] = {
    "groups_B": 2,
    "groups_C": 1,
    "D": True,
    "z": True,
    "delta_bias": True,
    "delta_softplus": True,
    "initial_state": True,
    "sequences": 2,
    "values": "normal",
}
RAGGED = tuple({"shape": (2, 4, 3, length), **EVERYTHING} for length in (1, 2, 31, 32, 33, 63, 65, 127))
# more channels than a block has lanes, the last block part empty, and more blocks than there are workers
WIDE = tuple(
    {"shape": shape, "groups_B": groups, "groups_C": 1, "z": True, "values": "normal"}
    for shape, groups in (((17, 35, 2, 3), 1), ((2, 131, 3, 5), 1), ((2, 134, 1, 3), 2))
)
LONG = tuple(
    {"shape": (1, 2, 2, length), "values": "normal", "steps": "initial", "initial_state": True, "sequences": packed}
    for length, packed in ((257, 2), (1025, 0), (2049, 3))
) + ({"shape": (1, 1, 1, 10_000), "values": "normal", "steps": "initial"},)
# two whole tiles of 256 and part of one
MANY_STATES = ({"shape": (1, 1, 513, 3), "values": "normal", "initial_state": True},)


@holds(
    "equals the oracle",
    "y and the last state are those of the equations, but for rounding",
    share=4,
    max_length=129,
    corners=RAGGED + WIDE + MANY_STATES,
)
def equals_the_oracle(scan: Implementation, problem: Arguments) -> None:
    assert_close(scan.scan(problem), oracle_scan(problem), scan.scan_tolerance(problem))


@holds(
    "long sequences",
    "what is carried from tile to tile is right past 256, 1024, 2048 and 8192 steps, and the last tile is not dropped",
    share=0,
    corners=LONG,
)
def long_sequences(scan: Implementation, problem: Arguments) -> None:
    equals_the_oracle(scan, problem)


@holds("complex A", "conjugate pairs: y = 2 Re Σ C h, with complex decay, and complex or real B and C", is_complex=True)
def complex_spectrum(scan: Implementation, problem: Arguments) -> None:
    equals_the_oracle(scan, problem)


@holds(
    "tiny steps",
    "B̄ = (ΔA)⁻¹(exp(ΔA) − 1)ΔB and softplus lose all digits near ΔA = 0 where they are formed by subtraction",
    corners=tuple({"shape": (2, 2, 2, 5), "discretization": rule, "values": "normal"} for rule in DISCRETIZATIONS),
    steps="tiny",
    sequences=0,
)
def tiny_steps(scan: Implementation, problem: Arguments) -> None:
    equals_the_oracle(scan, problem)


@holds(
    "signed zeros and subnormals",
    "inputs of ±0 and below the smallest normal number are numbers like others",
    values="subnormal",
)
def subnormals(scan: Implementation, problem: Arguments) -> None:
    equals_the_oracle(scan, problem)


@holds("y alone", "y does not depend on whether the last state is asked for", "last_state")
def y_alone(scan: Implementation, problem: Arguments) -> None:
    given = scan.given(problem)
    y = scan.call("forward", scan.forward, *(given.pop(n) for n in ("u", "delta", "A", "B", "C")), **given)
    found = {"y": scan.read("y", y, problem["u"].shape, scan.dtype)}
    tolerance = scan.scan_tolerance(problem)
    assert_close(found, scan.scan(problem), total(tolerance, tolerance), "y with return_last_state=True")


@holds("causality", "y_t depends on no input after t")
def causality(scan: Implementation, problem: Arguments) -> None:
    length = problem["u"].shape[2]
    at = int(random(problem).integers(0, length))
    later = {
        name: np.concatenate([value[..., :at], np.flip(value[..., at:] * 2 + 1, -1)], axis=-1)
        for name, value in problem.items()
        if name in ("u", "z") or (name in ("B", "C") and value.ndim > 2)
    }
    delta = problem["delta"].copy()
    delta[..., at:] = delta[..., at:][..., ::-1]
    past = {"y": scan.scan(problem)["y"][..., :at]}
    found = {"y": scan.scan({**problem, **later, "delta": delta})["y"][..., :at]}
    # The bound of y_t is made of what stands before t, so that both problems have the same.
    tolerance = {"y": 2 * scan.scan_tolerance(problem)["y"][..., :at]}
    assert_close(found, past, tolerance, f"with other inputs from t = {at} on")


@holds("linearity in u", "for fixed Δ, B, C, D and z, from a zero state, y(2u − v) = 2y(u) − y(v)", initial_state=False)
def linearity(scan: Implementation, problem: Arguments) -> None:
    u, v = on_a_grid(problem["u"]), on_a_grid(problem["u"][..., ::-1])
    parts = [{**problem, "u": x} for x in (2 * u - v, u, v)]
    both, one, other = (scan.scan(part) for part in parts)
    expected = total(scaled(2, one), scaled(-1, other))
    tolerance, t_one, t_other = (scan.scan_tolerance(part) for part in parts)
    assert_close(both, expected, total(tolerance, scaled(2, t_one), t_other), "2y(u) − y(v)")


@holds("the gate multiplies", "y with z is y without it times z σ(z)", z=True)
def gate_multiplies(scan: Implementation, problem: Arguments) -> None:
    plain = without(problem, "z")
    gate = silu(problem["z"].astype(np.float64))
    y = scan.scan(plain)["y"].astype(np.float64) * gate
    bound = np.abs(gate) * scan.scan_tolerance(plain)["y"]
    found = {"y": scan.scan(problem)["y"]}
    assert_close(found, {"y": y}, {"y": bound + scan.scan_tolerance(problem)["y"]}, "y without z, times silu(z)")


@holds(
    "NaN stays where it belongs",
    "a NaN in one row and channel reaches y_t there, and no other row, channel or past",
    "nan",
    values="normal",
)
def nan_stays(scan: Implementation, problem: Arguments) -> None:
    batch, dim, length = problem["u"].shape
    b, d, t = (int(random(problem).integers(0, size)) for size in (batch, dim, length))
    u = problem["u"].copy()
    u[b, d, t] = np.nan
    found, clean, tolerance = scan.scan({**problem, "u": u}), scan.scan(problem), scan.scan_tolerance(problem)
    if not np.isnan(found["y"][b, d, t]):
        raise Failure(f"y[{b}, {d}, {t}] is {found['y'][b, d, t]:.9g}, expected nan: u is nan there")
    found["y"][b, d, t:] = clean["y"][b, d, t:]
    if "last_state" in found:
        found["last_state"][b, d] = clean["last_state"][b, d]
    assert_close(found, clean, total(tolerance, tolerance), f"u[{b}, {d}, {t}] is nan")
