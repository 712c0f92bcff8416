"""The oracle's adjoint against a complex-step derivative of another forward scan, and wrong adjoints that fail it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.selective import Gradients, reference, selective_scan, selective_scan_backward
from ssm_edu.selective.problem import make_problem
from tests.problems import arguments, random_arguments

DIFFERENTIABLE = Gradients._fields
STEP = 1e-30


class Pair:
    """x + iy for x and y that are themselves complex: every operation is holomorphic in x and in y."""

    def __init__(self, re: Any, im: Any = 0.0) -> None:
        self.re, self.im = re, im

    def __add__(self, other: Pair) -> Pair:
        return Pair(self.re + other.re, self.im + other.im)

    def __mul__(self, other: Pair) -> Pair:
        return Pair(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __truediv__(self, other: Pair) -> Pair:
        norm = other.re**2 + other.im**2
        return self * Pair(other.re / norm, -other.im / norm)

    def __getitem__(self, key: Any) -> Pair:
        return Pair(*(x[key] if isinstance(x, np.ndarray) else x for x in (self.re, self.im)))

    def exp(self) -> Pair:
        return Pair(np.exp(self.re) * np.cos(self.im), np.exp(self.re) * np.sin(self.im))


def alpha_and_p(z: Pair, discretization: str) -> tuple[Pair, Pair]:
    one = Pair(1.0)
    match discretization:
        case "mamba":
            return z.exp(), one
        case "zoh":
            return z.exp(), (z.exp() + Pair(-1.0)) / z
        case _:
            half = z * Pair(0.5)
            inverse = one / (one + half * Pair(-1.0))
            return (one + half) * inverse, inverse


def holomorphic_scan(pairs: dict[str, Pair], kwargs: dict[str, Any]) -> tuple[np.ndarray, Pair]:
    """y and the last state for inputs with any leading axes, holomorphic in every real number of them."""
    u, A = pairs["u"].re, pairs["A"][..., None, :, :]
    dim, length = u.shape[-2:]
    delta = pairs["delta"].re
    if "delta_bias" in pairs:
        delta = delta + pairs["delta_bias"].re[..., None, :, None]
    if kwargs["delta_softplus"]:
        delta = np.log(1 + np.exp(delta))

    def map_at(name: str, t: int) -> Pair:
        if kwargs[name].ndim == 2:
            return pairs[name][..., None, :, :]
        M, each = pairs[name][..., t], dim // kwargs[name].shape[1]
        return Pair(*(np.repeat(x, each, axis=-2) if isinstance(x, np.ndarray) else x for x in (M.re, M.im)))

    h = pairs.get("initial_state", Pair(np.zeros((*kwargs["u"].shape[:2], kwargs["A"].shape[1]))))
    y = []
    for t in range(length):
        step = Pair(delta[..., t, None])
        alpha, p = alpha_and_p(step * A, kwargs["discretization"])
        if t and "seq_idx" in kwargs:
            same = kwargs["seq_idx"][:, t] == kwargs["seq_idx"][:, t - 1]
            h = h * Pair(same.astype(float)[:, None, None])
        h = alpha * h + step * p * map_at("B", t) * Pair(u[..., t, None])
        y.append((map_at("C", t) * h).re.sum(-1) * (2 if np.iscomplexobj(kwargs["A"]) else 1))
    out = np.stack(y, axis=-1)
    if "D" in pairs:
        out = out + pairs["D"].re[..., None, :, None] * u
    if "z" in pairs:
        out = out * pairs["z"].re / (1 + np.exp(-pairs["z"].re))
    return out, h


def as_pairs(kwargs: dict[str, Any]) -> dict[str, Pair]:
    return {name: Pair(kwargs[name].real, kwargs[name].imag) for name in DIFFERENTIABLE if name in kwargs}


def complex_step(kwargs: dict[str, Any], grad_y: np.ndarray, grad_last: np.ndarray) -> dict[str, np.ndarray]:
    """∂ℓ/∂Re + i ∂ℓ/∂Im of ℓ = Σ ȳ y + Re Σ conj(h̄) h_L, every element of an input perturbed at once."""

    def slope(name: str, re: Any, im: Any) -> np.ndarray:
        pairs, base = as_pairs(kwargs), kwargs[name]
        pairs[name] = Pair(base.real + STEP * 1j * re, base.imag + STEP * 1j * im)
        y, last = holomorphic_scan(pairs, kwargs)
        loss = (grad_y * y).sum((-3, -2, -1)) + (grad_last.real * last.re + grad_last.imag * last.im).sum((-3, -2, -1))
        return (loss.imag / STEP).reshape(base.shape)

    found = {}
    for name in as_pairs(kwargs):
        unit = np.eye(kwargs[name].size).reshape(-1, *kwargs[name].shape)
        found[name] = slope(name, unit, 0 * unit)
        if np.iscomplexobj(kwargs[name]):
            found[name] = found[name] + 1j * slope(name, 0 * unit, unit)
    return found


def cotangents(kwargs: dict[str, Any], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    batch, dim, _ = kwargs["u"].shape
    shape = (batch, dim, kwargs["A"].shape[1])
    grad_last = rng.normal(size=shape) + (1j * rng.normal(size=shape) if np.iscomplexobj(kwargs["A"]) else 0)
    return rng.normal(size=kwargs["u"].shape), grad_last


def check_gradients(backward: Callable[..., Gradients], kwargs: dict[str, Any]) -> None:
    """To 1e-10 of the largest gradient of an input: complex steps are exact, zoh's (eᶻ − 1)/z loses a few digits."""
    grad_y, grad_last = cotangents(kwargs)
    found = backward(make_problem(**kwargs), grad_y, grad_last)._asdict()
    for name, expected in complex_step(kwargs, grad_y, grad_last).items():
        scale = np.abs(expected).max(initial=1e-3)
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-10 * scale, err_msg=name)


@given(arguments())
def test_every_gradient_equals_the_complex_step(kwargs: dict[str, Any]) -> None:
    """ADJ-1, ADJ-2, ADJ-3, ADJ-6."""
    check_gradients(reference.selective_scan_backward, kwargs)


@pytest.mark.parametrize("discretization", ["mamba", "zoh", "bilinear"])
@pytest.mark.parametrize("is_complex", [False, True])
def test_with_every_option_on(discretization: str, is_complex: bool) -> None:
    kwargs = random_arguments(
        2, length=11, groups_B=2, groups_C=4, packed=True, is_complex=is_complex, discretization=discretization
    )
    check_gradients(reference.selective_scan_backward, kwargs)


@given(arguments(max_length=40), st.integers(0, 2**32 - 1))
def test_adjoint_identity(kwargs: dict[str, Any], seed: int) -> None:
    """⟨g, J v⟩ = ⟨Jᵀ g, v⟩ for a direction v in all inputs at once (ADJ-8), by the slopes of ADJ-5 and ADJ-7."""
    rng = np.random.default_rng(seed)
    grad_y, grad_last = cotangents(kwargs, seed)
    directions, pairs = {}, as_pairs(kwargs)
    for name, pair in pairs.items():
        v = rng.normal(size=kwargs[name].shape) + 1j * rng.normal(size=kwargs[name].shape)
        directions[name] = v if np.iscomplexobj(kwargs[name]) else v.real
        pairs[name] = Pair(pair.re + STEP * 1j * directions[name].real, pair.im + STEP * 1j * directions[name].imag)
    y, last = holomorphic_scan(pairs, kwargs)
    terms_out = [grad_y * y.imag, grad_last.real * last.re.imag, grad_last.imag * np.imag(last.im)]
    gradients = selective_scan_backward(grad_y, **kwargs, grad_last_state=grad_last)._asdict()
    terms_in = [np.real(np.conj(gradients[name]) * v) for name, v in directions.items()]
    left, right = sum(term.sum() for term in terms_out) / STEP, sum(term.sum() for term in terms_in)
    size = sum(np.abs(term).sum() for term in terms_in)
    assert abs(left - right) <= 1e-12 * size  # 40 steps of some ten roundings each, and zoh's (eᶻ − 1)/z


@given(arguments(max_length=9), st.integers(0, 9))
def test_splits_with_the_gradient_of_the_state_carried_back(kwargs: dict[str, Any], at: int) -> None:
    """ADJ-9: the states at the borders, and the gradients there, are all that two chunks exchange."""
    kwargs.pop("seq_idx", None)
    grad_y, grad_last = cotangents(kwargs)
    at = min(at, grad_y.shape[2])
    whole = selective_scan_backward(grad_y, **kwargs, grad_last_state=grad_last)

    def part(window: slice) -> dict[str, Any]:
        timed = [n for n in ("u", "delta", "z", "B", "C") if n in kwargs and kwargs[n].ndim > 2]
        return kwargs | {name: kwargs[name][..., window] for name in timed}

    first, second = part(slice(0, at)), part(slice(at, None))
    second["initial_state"] = selective_scan(**first, return_last_state=True, backend="reference")[1]
    right = selective_scan_backward(grad_y[..., at:], **second, grad_last_state=grad_last)
    left = selective_scan_backward(grad_y[..., :at], **first, grad_last_state=right.initial_state)
    for name, expected in whole._asdict().items():
        if expected is not None:
            a, b = getattr(left, name), getattr(right, name)
            summed = name in ("A", "D", "delta_bias") or (name in ("B", "C") and kwargs[name].ndim == 2)
            found = a if name == "initial_state" else a + b if summed else np.concatenate([a, b], axis=-1)
            scale = max(np.abs(expected).max(), 1)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * scale, err_msg=name)


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"dim": 0}, {"length": 0}, {"state": 0}])
def test_empty_axes(sizes: dict[str, int]) -> None:
    kwargs = random_arguments(5, **sizes)
    grad_y, grad_last = cotangents(kwargs)
    gradients = selective_scan_backward(grad_y, **kwargs, grad_last_state=grad_last)
    for name in DIFFERENTIABLE:
        assert getattr(gradients, name).shape == kwargs[name].shape
    if "length" in sizes:
        assert np.array_equal(gradients.initial_state, grad_last)


def mutant(*changes: tuple[str, str]) -> Callable[..., Gradients]:
    """The oracle's backward with pieces of its source replaced, each of which must stand there exactly once."""
    source = inspect.getsource(reference)
    for old, new in changes:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    module = ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module.selective_scan_backward


FLIPPED_SIGN = [("np.conj(C_t) * e + carried", "np.conj(C_t) * e - carried")]
DECAY_FROM_T = [
    ("np.conj(C_t) * e + carried", "np.conj(C_t) * e + np.conj(method.alpha(z)) * carried"),
    ("0, np.conj(method.alpha(z)) * g)", "0, g)"),
]
WRONG = {
    "flipped sign": FLIPPED_SIGN,
    "decay from t instead of t + 1": DECAY_FROM_T,
    "decay not conjugated": [("0, np.conj(method.alpha(z)) * g)", "0, method.alpha(z) * g)")],
    "C not conjugated": [("g = np.conj(C_t) * e", "g = C_t * e")],
    "h not conjugated": [("add_to_map(dC, t, np.conj(h) * e)", "add_to_map(dC, t, h * e)")],
    "no factor 2": [("states[t], multiplicity(states[0]) * grad_s", "states[t], grad_s")],
    "h_t for h_{t−1}": [("g * np.conj(h_before)", "g * np.conj(h)")],
    "Ā₀h₀ across a sequence border": [("grad_A_bar = np.where(fresh[:, t, None, None], 0, ", "grad_A_bar = (")],
    "state across a sequence border": [("carried = np.where(fresh[:, t, None, None], 0, np", "carried = (np")],
    "B̄ taken as constant in Δ": [("+ np.conj(method.dzp(z)) * grad_weight", "")],
    "Mamba's ∂B̄/∂Δ for all rules": [("np.conj(method.dzp(z))", "1.0")],
    "B̄ taken as constant in A": [("+ np.conj(delta_t**2 * method.dp(z)) * grad_weight", "")],
    "no softplus in the gradient": [("if p.delta_softplus:\n        ddelta", "if False:\n        ddelta")],
    "D before the gate": [("grad_s * p.D[:, None]", "grad_y * p.D[:, None]")],
    "silu' without its second term": [("(1 + x * sigmoid(-x))", "1")],
    "no gradient from the last state": [("is None else grad_last_state", "is None else 0 * grad_last_state")],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_adjoint_fails_the_check(wrong: str) -> None:
    kwargs = random_arguments(6, is_complex=True, packed=True, discretization="zoh")
    check_gradients(mutant(), kwargs)
    with pytest.raises(AssertionError):
        check_gradients(mutant(*WRONG[wrong]), kwargs)


@pytest.mark.parametrize("wrong", [FLIPPED_SIGN, DECAY_FROM_T])
def test_a_wrong_adjoint_fails_on_a_real_scan_too(wrong: list[tuple[str, str]]) -> None:
    with pytest.raises(AssertionError):
        check_gradients(mutant(*wrong), random_arguments(7))


SUBTRACTED = ("g * np.conj(h_before)", "g * np.conj((h - weight * B_t * u_t) / method.alpha(z))")
SUMMED = ("np.conj(method.dzp(z))", "np.conj(method.p(z) + z * method.dp(z))")


@pytest.mark.parametrize(("name", "cancelling"), [("A", SUBTRACTED), ("delta", SUMMED)])
def test_under_strong_decay_gradients_keep_their_digits(name: str, cancelling: tuple[str, str]) -> None:
    """At ΔA = −40 no digit of e⁻⁴⁰ is left in h − B̄u (ADJ-11, ADJ-12), nor in p + z p′ (ADJ-13, ADJ-4)."""
    one = np.ones((1, 1, 1))
    kwargs = {"u": one, "delta": 40 * one, "A": -one[0], "B": 3 * one[0], "C": one[0]}
    if name == "A":
        kwargs |= {"initial_state": 7 * one, "discretization": "mamba"}
        expected = 40 * np.exp(-40.0) * 7
    else:
        kwargs |= {"discretization": "zoh"}
        expected = np.exp(-40.0) * 3

    def error(backward: Callable[..., Gradients]) -> float:
        return abs(getattr(backward(make_problem(**kwargs), one), name).item() / expected - 1)

    assert error(reference.selective_scan_backward) <= 1e-15
    assert error(mutant(cancelling)) > 1e-3
