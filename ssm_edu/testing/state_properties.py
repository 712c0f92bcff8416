"""What the state does: it carries on, adds up, holds, forgets and stops at the border of a sequence.

The exact scan has each property exactly; two outputs of one implementation may differ by the sum of their bounds.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ssm_edu.testing.edits import (
    exact_maps,
    random,
    rows,
    seamless,
    window,
    without,
)
from ssm_edu.testing.implementation import (
    Arrays,
    Implementation,
    Outputs,
    WrongForm,
    assert_close,
    scaled,
    total,
)
from ssm_edu.testing.recipes import IDS, Arguments
from ssm_edu.testing.registry import holds


@holds("superposition", "y from a state and an input is the sum of y from each alone", initial_state=True)
def superposition(scan: Implementation, problem: Arguments) -> None:
    parts = [problem, {**problem, "u": 0 * problem["u"]}, without(problem, "initial_state")]
    whole, free, forced = (scan.scan(part) for part in parts)
    expected = {name: scaled(1, free)[name] + scaled(1, forced)[name] for name in whole}
    assert_close(whole, expected, total(*(scan.scan_tolerance(p) for p in parts)), "state alone + input alone")


@holds(
    "splits anywhere",
    "the last state of a first part, given to the second, makes the whole",
    "initial_state",
    "last_state",
)
def splits_anywhere(scan: Implementation, problem: Arguments) -> None:
    length = problem["u"].shape[2]
    at = int(random(problem).integers(min(1, length - 1), length))
    whole = seamless(problem, at)
    expected, tolerance = scan.scan(whole), scan.scan_tolerance(whole)
    first = scan.scan(window(whole, 0, at)) if at else start(whole)
    second = scan.scan(window(whole, at, length, initial_state=first["last_state"]))
    found = {"y": np.concatenate([first["y"], second["y"]], axis=-1), "last_state": second["last_state"]}
    # In two parts it is still a scan in the sense of the bound, which therefore holds of both.
    assert_close(found, expected, total(tolerance, tolerance), f"not split at {at}")


def start(kwargs: Arrays) -> Outputs:
    """The outputs of no step at all."""
    batch, dim, _ = kwargs["u"].shape
    A = kwargs["A"]
    return {
        "y": kwargs["u"][..., :0],
        "last_state": kwargs.get("initial_state", np.zeros((batch, dim, A.shape[1]), A.dtype)),
    }


@holds(
    "steps make the scan",
    "scans of length 1 that hand on their state, as in decoding, make the whole",
    "initial_state",
    "last_state",
    max_length=11,
    sequences=0,
)
def steps_make_the_scan(scan: Implementation, problem: Arguments) -> None:
    problem = Arguments(problem.recipe, {**problem, **exact_maps(problem)})
    expected, tolerance = scan.scan(problem), scan.scan_tolerance(problem)
    for advance in (one_by_one, *([by_step] if scan.step else [])):
        y, state = [], start(problem)["last_state"]
        for t in range(problem["u"].shape[2]):
            out = advance(scan, window(problem, t, t + 1, initial_state=state))
            y.append(out["y"])
            state = out["last_state"]
        found = {"y": np.concatenate(y, axis=-1), "last_state": state}
        assert_close(found, expected, total(tolerance, tolerance), "the whole at once")


def one_by_one(scan: Implementation, kwargs: Arrays) -> Outputs:
    return scan.scan(kwargs)


def by_step(scan: Implementation, kwargs: Arrays) -> Outputs:
    """The step function on a problem of length 1."""
    assert scan.step is not None
    batch, dim, _ = kwargs["u"].shape
    now = {f"{name}_t": kwargs[name][..., 0] for name in ("u", "delta", "z") if name in kwargs}
    for name in ("B", "C"):
        M = kwargs[name]
        M = np.broadcast_to(M, (batch, *M.shape)) if M.ndim == 2 else M[..., 0]
        now[f"{name}_t"] = M if M.dtype.kind == "c" else M.astype(kwargs["u"].dtype)
    dtypes = {"u_t": scan.dtype, "delta_t": scan.dtype, "z_t": scan.dtype} | {
        name: scan.dtype for name in ("B_t", "C_t") if now[name].dtype.kind != "c"
    }
    fixed = {name: kwargs[name] for name in ("A", "D", "delta_bias") if name in kwargs}
    arrays = {"h": kwargs["initial_state"], **now, **fixed}
    given = {n: scan.framework.from_numpy(a, dtypes.get(n, a.dtype.name)) for n, a in arrays.items()}
    options = {name: kwargs[name] for name in ("delta_softplus", "discretization") if name in kwargs}
    first = ("h", "u_t", "delta_t", "A", "B_t", "C_t")
    returned = scan.call("step", scan.step, *(given.pop(n) for n in first), **given, **options)
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise WrongForm(f"step returned a {type(returned).__name__}, expected (y_t, h)")
    y = scan.read("y_t", returned[0], (batch, dim), scan.dtype)
    state = kwargs["initial_state"]
    return {"y": y[..., None], "last_state": scan.read("h", returned[1], state.shape, state.dtype.name)}


@holds(
    "a zero step holds",
    "Δ = 0 keeps the state and writes nothing",
    delta_bias=False,
    delta_softplus=False,
    initial_state=True,
    sequences=0,
)
def zero_step_holds(scan: Implementation, problem: Arguments) -> None:
    delta = problem["delta"].copy()
    at = int(random(problem).integers(0, delta.shape[2]))
    delta[..., at:] = np.where(random(problem).random(delta[..., at:].shape) < 0.5, 0.0, -0.0)
    held = {**without(problem, "D"), "delta": delta}
    before = scan.scan(window(held, 0, at)) if at else start(problem)
    found, tolerance = scan.scan(held), scan.scan_tolerance(held)
    if "last_state" in found and "last_state" in before:
        was = {"last_state": before["last_state"]}
        bound = {"last_state": 2 * tolerance["last_state"]}
        assert_close({"last_state": found["last_state"]}, was, bound, f"the state at t = {at}")
    silent = scan.scan({**held, "u": np.concatenate([held["u"][..., :at], 0 * held["u"][..., at:]], axis=-1)})
    assert_close(found, silent, total(tolerance, tolerance), f"with u = 0 from t = {at} on")


@holds("a huge step forgets", "Δ A ≪ −1 forgets all before it", delta_bias=False, delta_softplus=False, sequences=0)
def huge_step_forgets(scan: Implementation, problem: Arguments) -> None:
    if problem.recipe.discretization == "bilinear":
        return  # whose Ā tends to −1
    at = int(random(problem).integers(0, problem["u"].shape[2]))
    A, delta, u = problem["A"].copy(), problem["delta"].copy(), problem["u"].copy()
    A.real = np.minimum(A.real, -0.25)
    delta[..., at] = 1e4
    u[..., :at] = -u[..., :at]
    one = {**problem, "A": A, "delta": delta}
    other = {**without(one, "initial_state"), "u": u}
    outs = [{n: v[..., at:] if n == "y" else v for n, v in scan.scan(p).items()} for p in (one, other)]
    bounds = [{n: v[..., at:] if n == "y" else v for n, v in scan.scan_tolerance(p).items()} for p in (one, other)]
    assert_close(outs[0], outs[1], total(*bounds), f"another past before t = {at}")


@holds(
    "packed equals separate",
    "no state flows from one sequence of a row into the next, whatever their numbers",
    corners=tuple({"shape": (2, 2, 2, 9), "ids": ids} for ids in IDS),
    sequences=3,
)
def packed_equals_separate(scan: Implementation, problem: Arguments) -> None:
    found, tolerance = scan.scan(problem), scan.scan_tolerance(problem)
    for row, idx in enumerate(problem["seq_idx"]):
        edges = [0, *(np.flatnonzero(np.diff(idx)) + 1).tolist(), len(idx)]
        for first, stop in pairwise(edges):
            one = rows(window(problem, first, stop), slice(row, row + 1))
            one = without(one, "seq_idx", *(["initial_state"] if first else []))
            expected = scan.scan(one)
            mine, bound = ({"y": out["y"][row : row + 1, :, first:stop]} for out in (found, tolerance))
            if stop == len(idx) and "last_state" in found:
                mine["last_state"] = found["last_state"][row : row + 1]
                bound["last_state"] = tolerance["last_state"][row : row + 1]
            what = f"row {row}, {first} ≤ t < {stop} alone"
            assert_close(mine, expected, total(bound, scan.scan_tolerance(one)), what)
