"""What must hold of every model of the atlas, and a count of what it computes and keeps.

`check_model(module, seed, length, **sizes)` runs all of it. `numbers_in` and `flops_of_a_step` count, for the cards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from ssm_edu.scan import SCANS
from ssm_edu.sources import SOURCES

lengths = st.integers(1, 17)
seeds = st.integers(0, 2**32 - 1)

# Two forms of a model differ by rounding alone. With sizes below 32 an output is a sum of fewer than 10⁴ products,
# each of at most 10² factors, and 10⁶ roundings of 1.1e-16 make 1.1e-10 if all of them go one way; the inputs and
# weights are of size 1, and so is what is summed. A form that divides by something small uses up some of this
# margin, and its tests say how much.
TOLERANCE = 1e-10


def assert_close(found, expected, what):
    """Agreement to TOLERANCE, relative to the largest expected output, or to 1 where all are smaller."""
    assert found.shape == expected.shape, what
    error = np.abs(found - expected).max(initial=0.0)
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    assert error <= TOLERANCE * scale, f"{what}: they differ by {error:.2g}, outputs are up to {scale:.2g}"


def run_steps(model, params, x):
    """y (length, width), token by token, and the last state."""
    state, y = model.first_state(params), []
    for x_t in x:
        y_t, state = model.step(params, state, x_t)
        y.append(y_t)
    return np.array(y), state


def default_sizes(model) -> dict[str, Any]:
    """The sizes that `init` takes, at their defaults."""
    return {name: p.default for name, p in signature(model.init).parameters.items() if name != "rng"}


def draw(model, seed, length, **sizes):
    """Parameters, without a D of ones, which would hide D; and an x of standard normal numbers."""
    rng = np.random.default_rng(seed)
    params = with_any_skip(model.init(rng, **sizes), rng)
    return params, rng.standard_normal((length, (default_sizes(model) | sizes)["width"]))


def with_any_skip(params, rng):
    """The parameters with a normal D, where they have one."""
    if hasattr(params, "ssm"):
        return replace(params, ssm=with_any_skip(params.ssm, rng))
    return replace(params, D=rng.standard_normal(params.D.shape)) if hasattr(params, "D") else params


def check_forms_agree(model, seed, length, **sizes):
    """`parallel`, the steps and, where the model is one, the affine scan by every scan there is."""
    params, x = draw(model, seed, length, **sizes)
    y = model.parallel(params, x)
    assert y.shape == x.shape
    assert y.dtype == np.float64
    assert hasattr(model, "as_affine_scan") != hasattr(model, "NOT_A_SCAN")
    assert np.isfinite(y).all()
    assert_close(run_steps(model, params, x)[0], y, "steps and parallel")
    if hasattr(model, "as_affine_scan"):
        affine = model.as_affine_scan(params, x)
        assert affine.a.shape[-1] == affine.b.shape[-1] == length
        for scan in SCANS:
            assert_close(affine.outputs(scan), y, f"the {scan} affine scan and parallel")


def check_causality(model, seed, length, **sizes):
    """No y_s with s < t moves, by `parallel` or the affine scan, when x_t and all after it are drawn anew."""
    params, x = draw(model, seed, length, **sizes)
    rng = np.random.default_rng(seed + 1)
    t = int(rng.integers(length))
    other = np.concatenate([x[:t], rng.standard_normal(x[t:].shape)])
    assert_close(model.parallel(params, other)[:t], model.parallel(params, x)[:t], f"parallel before t = {t}")
    if hasattr(model, "as_affine_scan"):
        y, changed = (model.as_affine_scan(params, z).outputs() for z in (x, other))
        assert_close(changed[:t], y[:t], f"the affine scan before t = {t}")


WINDOW = 8
"""More tokens than any short convolution of the atlas, at the sizes that are tested, looks back on."""


def check_scan_is_one(model, seed, length, **sizes):
    """a_t and b_t see no more than the last few tokens, and y_t of the states no other than h_t.

    Without this every recurrence would be an affine scan: with a_t = 0 and its own state, run beforehand, as b_t.
    """
    params, x = draw(model, seed, length, **sizes)
    rng = np.random.default_rng(seed + 2)
    t = int(rng.integers(length))
    other = rng.standard_normal(x.shape)
    seen = slice(max(0, t + 1 - WINDOW), t + 1)
    other[seen] = x[seen]
    affine, changed = (model.as_affine_scan(params, z) for z in (x, other))
    assert_close(changed.a[..., t], affine.a[..., t], f"a_t at t = {t}, with other tokens before and after")
    assert_close(changed.b[..., t], affine.b[..., t], f"b_t at t = {t}, with other tokens before and after")
    states = affine.states()
    shuffled = states[..., rng.permutation(length)]
    shuffled[..., t] = states[..., t]
    assert_close(affine.read_out(shuffled)[t], affine.read_out(states)[t], f"y_t at t = {t}, with other states around")


def check_inputs_unchanged(model, seed, length, **sizes):
    """Neither x, nor the parameters, nor the state given to `step` is written to."""
    params, x = draw(model, seed, length, **sizes)
    state = run_steps(model, params, x)[1]
    before = [np.copy(a) for a in arrays_in((params, x, state))]
    model.parallel(params, x)
    model.step(params, state, x[0])
    for array, copy in zip(arrays_in((params, x, state)), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def check_bad_input(model, **sizes):
    """A wrong x, size, generator or state is refused by name; what is obvious is taken."""
    params, x = draw(model, 0, 3, **sizes)
    width = x.shape[1]
    bad = np.where(np.arange(3)[:, None] == 1, np.nan, x)
    run = {"x": lambda x: model.parallel(params, x)}
    if hasattr(model, "as_affine_scan"):
        run["x "] = lambda x: model.as_affine_scan(params, x)
    for function in run.values():
        for wrong, error in (
            (x[None], rf"x must have shape .*width {width}\); found \(1, 3, {width}\)"),
            (x[0], rf"x must have shape .*width {width}\); found \({width},\)"),
            (x[:, :-1], rf"x must have shape .*width {width}\); found \(3, {width - 1}\)"),
            (x[:0], r"x must have shape \(length ≥ 1"),
            (bad, "x must be finite; found nan"),
        ):
            with pytest.raises(ValueError, match=error):
                function(wrong)
        for wrong in (x > 0, x.astype(object), x.astype(str), x + 0j):
            with pytest.raises(TypeError, match="x must hold numbers"):
                function(wrong)
    state = model.first_state(params)
    for wrong in (x, x[0, :-1], x[0, 0]):
        with pytest.raises(ValueError, match=r"x_t must have shape"):
            model.step(params, state, wrong)
    with pytest.raises(ValueError, match="x_t must be finite"):
        model.step(params, state, bad[1])
    with pytest.raises(TypeError, match="x_t must hold numbers"):
        model.step(params, state, x[0] > 0)
    ones = model.parallel(params, np.ones((2, width)))
    for same in (
        np.ones((2, width), int),
        np.ones((2, width), np.float16),
        np.ones((2, width), ">f4"),
        [[1] * width] * 2,
    ):
        assert_close(model.parallel(params, same), ones, "other numbers of the same value")
    check_bad_sizes(model)
    check_bad_states(model, **sizes)


def check_bad_sizes(model):
    """A size that is no positive integer, and what is no generator, are refused by name."""
    for size in default_sizes(model):
        for wrong, error in ((0, ValueError), (-1, ValueError), (2.5, TypeError), ("3", TypeError), (True, TypeError)):
            with pytest.raises(error, match=f"{size} is {wrong!r}, expected an integer of at least 1"):
                model.init(np.random.default_rng(0), **{size: wrong})
    for wrong in (None, 0, np.random.RandomState(0)):
        with pytest.raises(TypeError, match=r"rng is .*, expected a numpy\.random\.Generator"):
            model.init(wrong)


def check_bad_states(model, **sizes):
    """Every array of the state is refused where it is too wide, instead of being broadcast or cut."""
    params, x = draw(model, 0, 3, **sizes)
    for state in (model.first_state(params), run_steps(model, params, x)[1]):
        for which in range(len(arrays_in(state))):
            for change in (lambda array: array[..., :-1], lambda array: np.concatenate([array, array], axis=-1)):
                with pytest.raises(ValueError, match=r"state.* must have shape \(.*\); found \("):
                    model.step(params, replaced(state, which, change), x[0])


def replaced(tree, which, change):
    """The tree with `change` made to one of its arrays, which are numbered in the order of `arrays_in`."""
    if isinstance(tree, np.ndarray):
        return change(tree) if which == 0 else tree
    parts, first = [], 0
    for part in tree:
        parts.append(replaced(part, which - first, change))
        first += len(arrays_in(part))
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def check_card(model, length, seed=0, **sizes):
    """The formulas of the card against what a step keeps and computes; the facts it states against the model."""
    card = model.CARD
    assert card.paper in SOURCES
    params, x = draw(model, seed, length + 1, **sizes)
    sizes = default_sizes(model) | sizes
    state = run_steps(model, params, x[:length])[1]
    assert numbers_in(state) == card.state_size(length=length, **sizes), "state_size"
    assert numbers_in(params) + numbers_in(state) == card.memory(length=length, **sizes), "memory"
    assert flops_of_a_step(model, params, state, x[length]) == card.flops(length=length, **sizes), "flops"
    y, other = (model.parallel(params, z) for z in (x, np.concatenate([0 * x[:1], x[:-1]])))
    linear = np.allclose(model.parallel(params, 2 * x), 2 * y, rtol=0, atol=1e-6)
    shifts = np.allclose(other[1:], y[:-1], rtol=0, atol=1e-6)
    assert card.time_invariant == (linear and shifts), "time_invariant"
    if hasattr(model, "as_affine_scan"):
        a, changed = (model.as_affine_scan(params, z).a for z in (x, x[::-1]))
        assert card.input_dependent_decay == (not np.array_equal(a, changed)), "input_dependent_decay"


def check_complexity(model, seed=0, **sizes):
    """The work of `parallel` grows as the card says: from 64 to 256 tokens, at fixed sizes.

    Beside the leading term there is work of lower order, and for a convolution the making of its kernel, so a
    quarter is allowed. That does not tell L from L log L, but an FFT does.
    """
    least, most = {"L": (4, 4), "L log L": (4, 4 * 8 / 6), "L²": (16, 16)}[model.CARD.complexity]
    params, x = draw(model, seed, 256, **sizes)
    work = []
    for length in (64, 256):
        with counting() as counter:
            model.parallel(counted(params), x[:length])
        work.append(counter.flops)
    assert (counter.ffts > 0) == (model.CARD.complexity == "L log L"), counter.ffts
    assert 0.75 * least < work[1] / work[0] < 1.25 * most, work


def check_model(model, seed, length, **sizes):
    """All but the checks that need no drawing: `check_bad_input`, `check_card` and `check_complexity`."""
    check_forms_agree(model, seed, length, **sizes)
    check_causality(model, seed, length, **sizes)
    check_inputs_unchanged(model, seed, length, **sizes)
    if hasattr(model, "as_affine_scan"):
        check_scan_is_one(model, seed, length, **sizes)


def tampered(model, **functions) -> SimpleNamespace:
    """The model with other functions in place of its own: for the tests of the checks themselves."""
    return SimpleNamespace(**{**vars(model), **functions})


def arrays_in(tree) -> list[np.ndarray]:
    """The arrays of a dataclass, tuple, list or dictionary, however nested; bare numbers count as arrays."""
    if isinstance(tree, np.ndarray | int | float | complex):
        return [np.asarray(tree)]
    if tree is None:
        return []
    if is_dataclass(tree):
        tree = [getattr(tree, f.name) for f in fields(tree)]
    if isinstance(tree, dict):
        tree = list(tree.values())
    assert isinstance(tree, tuple | list), type(tree)
    return [array for part in tree for array in arrays_in(part)]


def numbers_in(tree) -> int:
    """How many real numbers the arrays of a tree hold."""
    return sum(array.size * (2 if np.iscomplexobj(array) else 1) for array in arrays_in(tree))


def counted(tree):
    """The tree with arrays that count what is done with them."""
    if isinstance(tree, np.ndarray):
        return tree.view(Counted)
    if is_dataclass(tree):
        return replace(tree, **{f.name: counted(getattr(tree, f.name)) for f in fields(tree)})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(counted, tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map(counted, tree))
    if isinstance(tree, dict):
        return {key: counted(value) for key, value in tree.items()}
    return tree


def flops_of_a_step(model, params, state, x_t) -> int:
    """FLOPs of one step, as :class:`ssm_edu.atlas.Card` counts them, once the parameters are prepared."""
    params, state, x_t = counted(params), counted(state), counted(x_t)
    with counting() as counter:
        model.step(params, state, x_t)  # what depends on the parameters alone is computed once, for all steps
        counter.flops, counter.strict = 0, True
        model.step(params, state, x_t)
    return counter.flops


class Counter:
    """`strict` makes it an error to use an array function that is neither counted nor known to be free."""

    flops = 0.0
    ffts = 0
    strict = False


_counter = Counter()


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the FLOPs done with `Counted` arrays; the library's `np.asarray` lets them pass as they are."""
    _counter.flops, _counter.ffts, _counter.strict = 0, 0, False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "asarray", np.asanyarray)
        yield _counter


FREE = {
    *(np.isfinite, np.isnan, np.isinf, np.negative, np.positive, np.conjugate, np.absolute, np.sign),
    *(np.maximum, np.minimum, np.fmax, np.fmin, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.equal, np.not_equal, np.logical_and, np.logical_or, np.logical_not),
}

FREE_FUNCTIONS = {
    *(np.all, np.any, np.append, np.array_equal, np.array_split, np.atleast_1d, np.atleast_2d, np.broadcast_arrays),
    *(np.broadcast_to, np.column_stack, np.concatenate, np.copy, np.copyto, np.diag, np.empty_like, np.expand_dims),
    *(np.flip, np.full_like, np.hstack, np.imag, np.iscomplexobj, np.isrealobj, np.max, np.min, np.moveaxis, np.ndim),
    *(np.ones_like, np.ravel, np.real, np.repeat, np.reshape, np.result_type, np.roll, np.shape, np.size, np.split),
    *(np.squeeze, np.stack, np.swapaxes, np.take, np.tile, np.transpose, np.tril, np.triu, np.vstack, np.where),
    np.zeros_like,
}


def cost(ufunc, operands) -> int:
    """FLOPs for one result."""
    if ufunc in FREE:
        return 0
    complexes = sum(np.iscomplexobj(x) for x in operands)
    if complexes and ufunc in (np.add, np.subtract):
        return 2
    if complexes and ufunc is np.multiply:
        return 2 if complexes == 1 else 6
    if complexes and ufunc is np.exp:
        return 5
    return 1


def pair_cost(*operands) -> int:
    """FLOPs for a product of the operands and its addition to a sum."""
    complexes = sum(np.iscomplexobj(x) for x in operands)
    return 2 if complexes == 0 else 4 if complexes == 1 else 8


class Counted(np.ndarray):
    """An array that counts what ufuncs, sums, matrix products, einsum and real FFTs do with it."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        inputs, kwargs = plain(inputs), plain(kwargs)
        if out is not None:
            kwargs["out"] = plain(out)
        result = getattr(ufunc, method)(*inputs, **kwargs)
        first = np.asanyarray(inputs[0])
        if ufunc is np.matmul:
            _counter.flops += np.size(result) * first.shape[-1] * pair_cost(*inputs)
        elif method in ("reduce", "accumulate", "reduceat"):
            _counter.flops += first.size * cost(ufunc, [first])
        elif method == "at":
            _counter.flops += np.size(inputs[2]) * cost(ufunc, inputs)
        else:
            _counter.flops += np.size(result) * cost(ufunc, inputs)
        return out[0] if out is not None else wrap(result)

    def __array_function__(self, function, types, args, kwargs):
        if function is np.einsum:
            _counter.flops += einsum_cost(args[0], [np.array(plain(x)) for x in args[1:]])
        elif function in (np.fft.rfft, np.fft.irfft, np.fft.fft, np.fft.ifft):
            size = args[1] if len(args) > 1 and function is not np.fft.irfft else np.shape(args[0])[-1]
            _counter.ffts += 1
            _counter.flops += fft_cost(size) * (np.size(args[0]) // np.shape(args[0])[-1])
        elif function in (np.sum, np.mean, np.prod, np.cumsum, np.cumprod):
            _counter.flops += np.size(args[0])
        elif function in (np.dot, np.inner, np.vdot):
            _counter.flops += np.shape(plain(args[0]))[-1] * pair_cost(*args[:2]) * np.size(function(*plain(args)))
        elif function is np.outer:
            _counter.flops += np.size(args[0]) * np.size(args[1]) * cost(np.multiply, args[:2])
        elif _counter.strict and function not in FREE_FUNCTIONS:
            raise NotImplementedError(f"np.{function.__name__} is not counted")
        return wrap(function(*plain(args), **plain(kwargs)))

    def cumsum(self, *args, **kwargs):
        _counter.flops += self.size
        return wrap(self.view(np.ndarray).cumsum(*args, **kwargs))

    def cumprod(self, *args, **kwargs):
        _counter.flops += self.size
        return wrap(self.view(np.ndarray).cumprod(*args, **kwargs))

    def dot(self, other):
        return np.dot(self, other)


def plain(tree: Any) -> Any:
    if isinstance(tree, Counted):
        return tree.view(np.ndarray)
    if isinstance(tree, tuple | list):
        return type(tree)(map(plain, tree)) if not hasattr(tree, "_fields") else tree
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree


def wrap(tree: Any) -> Any:
    if isinstance(tree, np.ndarray | np.generic):
        return np.asanyarray(tree).view(Counted)
    if isinstance(tree, list):
        return [wrap(part) for part in tree]
    if type(tree) is tuple:
        return tuple(map(wrap, tree))
    return tree


def fft_cost(size: int) -> float:
    """The usual 5 n log₂ n, for real data and back half of it; only its growth is used."""
    return 5 * size * np.log2(max(size, 2))


def einsum_cost(subscripts: str, operands: list[np.ndarray]) -> int:
    """A product for every combination of indices, and an addition where some of them are summed over."""
    terms, _, output = subscripts.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms.split(","), operands, strict=True):
        letters = term.replace("...", "")
        head = operand.ndim - len(letters)
        names = [f"...{i - head}" for i in range(head)] + list(letters)
        for name, size in zip(names, operand.shape, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)
    volume = int(np.prod(list(sizes.values())))
    summed = set(terms) - set(output) - set(",.")
    if len(operands) == 1:
        return volume if summed else 0
    product = cost(np.multiply, operands) * (len(operands) - 1)
    total = 2 if any(map(np.iscomplexobj, operands)) else 1
    return volume * (product + (total if summed else 0))


# For loops written from the papers' equations, which use no function of the models.


def sigma(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigma(x)


def layer_norm(x, epsilon=1e-5):
    return (x - x.mean()) / np.sqrt(x.var() + epsilon)
