"""What holds of every adjoint of a selective scan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssm_edu.selective.reference import sigmoid, step_size
from ssm_edu.testing.edits import IN_TIME, exact_maps, random, seamless, varying_maps, window
from ssm_edu.testing.forward_properties import LONG, MANY_STATES, RAGGED, WIDE
from ssm_edu.testing.implementation import (
    Arrays,
    Failure,
    Implementation,
    Outputs,
    assert_close,
    oracle_gradients,
    scaled,
    total,
)
from ssm_edu.testing.recipes import Arguments, Array, draw_values, rounded
from ssm_edu.testing.registry import holds

Cotangents = tuple[Array, Array | None]


def cotangents(scan: Implementation, problem: Arguments) -> Cotangents:
    """Gradients of y and, with the feature, of the last state."""
    r = problem.recipe
    batch, dim, state, length = r.shape
    grad_y = rounded(draw_values(r, "grad_y", (batch, dim, length)), r)
    if "grad_last_state" not in scan.features:
        return grad_y, None
    return grad_y, draw_values(r, "grad_last_state", (batch, dim, state), problem["A"].dtype)


def equals_the_oracles(scan: Implementation, problem: Arguments) -> None:
    """The gradient of every input against the reference's."""
    seen = cotangents(scan, problem)
    assert_close(
        scan.gradients(problem, *seen), oracle_gradients(problem, *seen), scan.gradients_tolerance(problem, *seen)
    )


holds(
    "gradients equal the oracle's",
    "the gradient of every input is that of the adjoint equations, but for rounding",
    backward=True,
    share=3,
    max_length=65,
    corners=RAGGED + WIDE + MANY_STATES,
)(equals_the_oracles)

holds(
    "gradients of long sequences",
    "what is carried back from tile to tile is right past 256, 1024, 2048 and 8192 steps",
    backward=True,
    share=0,
    corners=LONG,
)(equals_the_oracles)

holds(
    "gradients by a complex A",
    "the adjoint of a product is with the conjugate: ∂ℓ/∂Re + i ∂ℓ/∂Im",
    backward=True,
    max_length=17,
    is_complex=True,
)(equals_the_oracles)

holds(
    "gradients under strong decay",
    "Ā h of the step before is a product; formed as h − B̄u it cancels where ΔA ≪ −1",
    backward=True,
    max_length=17,
    steps="strong",
    is_complex=False,
    values="normal",
)(equals_the_oracles)


@holds(
    "adjoint identity",
    "⟨ȳ, Jv⟩ = ⟨Jᵀȳ, v⟩: the scan is linear in (u, h₀), so that Jv at v = (u, h₀) is the scan itself",
    "last_state",
    backward=True,
)
def adjoint_identity(scan: Implementation, problem: Arguments) -> None:
    balance(scan, problem, ("u", "initial_state"), "of u and of the initial state, with those")


@holds(
    "adjoint identity of C and D",
    "⟨ȳ, Jv⟩ = ⟨Jᵀȳ, v⟩: y is linear in (C, D), so that Jv at v = (C, D) is y itself",
    backward=True,
)
def adjoint_identity_of_the_readout(scan: Implementation, problem: Arguments) -> None:
    balance(scan, problem, ("C", "D"), "of C and D, with those", last_state=False)


def balance(
    scan: Implementation, problem: Arguments, inputs: tuple[str, ...], what: str, last_state: bool = True
) -> None:
    """Σ of output · its gradient = Σ of input · its gradient, for inputs in which the outputs are linear."""
    grad_y, grad_last = cotangents(scan, problem)
    if not last_state:
        grad_last = None
    out, out_bound = scan.scan(problem), scan.scan_tolerance(problem)
    found, bound = scan.gradients(problem, grad_y, grad_last), scan.gradients_tolerance(problem, grad_y, grad_last)
    pairs = [(out["y"], grad_y, out_bound["y"], 1)]
    if grad_last is not None:
        pairs.append((out["last_state"], grad_last, out_bound["last_state"], 1))
    pairs += [
        (found[f"gradient of {name}"], problem[name], bound[f"gradient of {name}"], -1)
        for name in inputs
        if name in problem
    ]
    assert_balanced(pairs, f"⟨gradients of the outputs, the outputs⟩ is not ⟨the gradients {what}⟩")


@holds(
    "scale of time",
    "the scan sees ΔA and ΔB alone: ⟨Δ, ∂Δ⟩ = ⟨A, ∂A⟩ + ⟨B, ∂B⟩",
    backward=True,
    delta_bias=False,
)
def scale_of_time(scan: Implementation, problem: Arguments) -> None:
    seen = cotangents(scan, problem)
    found, bound = scan.gradients(problem, *seen), scan.gradients_tolerance(problem, *seen)
    delta = problem["delta"].astype(np.float64)
    if problem.get("delta_softplus"):
        # dΔ is the gradient of delta over σ(delta), which must not be too small to divide by.
        slope = sigmoid(delta)
        if slope.min(initial=1) < 1e-6:
            return
        delta = step_size(delta, None, True) / slope
    signs = {"delta": 1, "A": -1, "B": -1}
    weights = {"delta": delta, "A": problem["A"], "B": problem["B"]}
    pairs = [(found[f"gradient of {n}"], weights[n], bound[f"gradient of {n}"], sign) for n, sign in signs.items()]
    assert_balanced(pairs, "⟨Δ, gradient of Δ⟩ is not ⟨A, gradient of A⟩ + ⟨B, gradient of B⟩")


def assert_balanced(pairs: list[tuple[Array, Array, Array, int]], what: str) -> None:
    """Σ ± Re⟨x, w⟩ = 0 for x within their bounds."""
    terms, tolerance = [], []
    for array, weight, bound, sign in pairs:
        wide = array.astype(np.promote_types(array.dtype, np.float64))
        terms += (sign * (wide.conj() * weight).real).ravel().tolist()
        tolerance += (bound * np.abs(weight)).ravel().tolist()
    allowed = math.fsum(tolerance) + 2**-50 * math.fsum(map(abs, terms))
    if not math.isfinite(allowed):
        return
    off = math.fsum(terms) if all(map(math.isfinite, terms)) else math.nan
    if not abs(off) <= allowed:
        raise Failure(f"{what}: they differ by {off:.3g}, expected 0 ± {allowed:.2g}")


@holds(
    "gradients add up",
    "the adjoint is linear: from the gradients of y and of the last state together it is the sum of each alone",
    "last_state",
    "grad_last_state",
    backward=True,
    max_length=17,
)
def gradients_add_up(scan: Implementation, problem: Arguments) -> None:
    grad_y, grad_last = cotangents(scan, problem)
    parts: list[Cotangents] = [(grad_y, grad_last), (grad_y, None), (0 * grad_y, grad_last)]
    both, *each = (scan.gradients(problem, *part) for part in parts)
    tolerance = total(*(scan.gradients_tolerance(problem, *part) for part in parts))
    assert_close(both, total(*(scaled(1, one) for one in each)), tolerance, "of y alone + of the last state alone")


@holds(
    "gradients split anywhere",
    "the gradient of a second part's initial state, given to the first as that of its last state, makes the whole",
    "initial_state",
    "last_state",
    "grad_last_state",
    backward=True,
    initial_state=True,
)
def gradients_split_anywhere(scan: Implementation, problem: Arguments) -> None:
    length = problem["u"].shape[2]
    if length < 2:
        return
    at = int(random(problem).integers(1, length))
    grad_y, grad_last = cotangents(scan, problem)
    whole = seamless(problem, at)
    expected, tolerance = scan.gradients(whole, grad_y, grad_last), scan.gradients_tolerance(whole, grad_y, grad_last)
    middle = scan.scan(window(whole, 0, at))["last_state"]
    second = scan.gradients(window(whole, at, length, initial_state=middle), grad_y[..., at:], grad_last)
    carried = second["gradient of initial_state"]
    first = scan.gradients(window(whole, 0, at), grad_y[..., :at], carried)
    found: Outputs = {}
    for name, gradient in first.items():
        of = name.removeprefix("gradient of ")
        if of == "initial_state":
            found[name] = gradient
        elif of in IN_TIME or (of in ("B", "C") and problem[of].ndim > 2):
            found[name] = np.concatenate([gradient, second[name]], axis=-1)
    assert_close(found, expected, total(tolerance, tolerance), f"not split at {at}")


@holds(
    "gradients of shared maps",
    "what channels share has the sum of their gradients",
    "variable_B",
    "variable_C",
    backward=True,
    max_length=17,
    groups_B=1,
    groups_C=2,
)
def gradients_of_shared_maps(scan: Implementation, problem: Arguments) -> None:
    dim = problem["u"].shape[1]
    copies = {name: np.repeat(problem[name], dim // problem[name].shape[1], axis=1) for name in ("B", "C")}

    def gather(name: str, M: Array) -> Array:
        batch, groups, state, length = problem[name].shape
        return M.reshape(batch, groups, dim // groups, state, length).sum(axis=2)

    same_gradients(scan, problem, {**problem, **copies}, gather, "summed over copies of the map")


@holds(
    "gradients of constant maps",
    "a constant B or C has the sum over the batch and all times",
    "variable_B",
    "variable_C",
    "groups",
    backward=True,
    max_length=17,
    groups_B=None,
    groups_C=None,
)
def gradients_of_constant_maps(scan: Implementation, problem: Arguments) -> None:
    constant = {**problem, **exact_maps(problem)}
    varying = {**constant, **varying_maps(constant)}
    same_gradients(scan, constant, varying, lambda name, M: M.sum(axis=(0, 3)), "summed over rows and times")


def same_gradients(scan: Implementation, shared: Arrays, apart: Arrays, gather: Any, what: str) -> None:
    """The gradients of a problem are those of the same problem with its maps copied, gathered again."""
    batch, dim, length = shared["u"].shape
    grad_y = np.ones((batch, dim, length), shared["u"].dtype)
    expected, bound = scan.gradients(apart, grad_y), scan.gradients_tolerance(apart, grad_y)
    for out in (expected, bound):
        for name in ("B", "C"):
            key = f"gradient of {name}"
            out[key] = gather(name, out[key].astype(np.promote_types(out[key].dtype, np.float64)))
    found = scan.gradients(shared, grad_y)
    assert_close(found, expected, total(bound, scan.gradients_tolerance(shared, grad_y)), what)
