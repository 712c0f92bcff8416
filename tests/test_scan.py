"""Every scan against the recurrence, on words and on numbers; and every check against a scan that is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.derivations import load
from ssm_edu.scan import (
    IDENTITY,
    SCANS,
    chunked,
    chunked_by,
    chunked_decay,
    combine,
    decay_combine,
    prefixes,
    rounding_bound,
    sequential,
)

trace = load("associative_scan").trace

DTYPES = (np.float32, np.float64, np.complex64, np.complex128)
lengths = st.integers(0, 200) | st.sampled_from([0, 1, 2, 31, 32, 33, 64, 127, 128, 131, 199])
scans = st.sampled_from(list(SCANS.values())) | st.integers(1, 250).map(chunked_by)
seeds = st.integers(0, 2**32 - 1)


def draw_arrays(length, seed, dtype=np.float64, batch=()):
    """a in the closed unit disc with some zeros and ones, b normal, an initial state."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        x = rng.standard_normal(shape)
        return x + 1j * rng.standard_normal(shape) if np.issubdtype(dtype, np.complexfloating) else x

    a = normal(*batch, length)
    a = a / np.maximum(1, abs(a))
    a = np.where(rng.random(a.shape) < 0.1, rng.integers(0, 2, a.shape), a)
    # Halving keeps |a| ≤ 1 after rounding to single precision.
    return tuple(x.astype(dtype) for x in (np.where(abs(a) == 1, a, a / 2), normal(*batch, length), normal(*batch)))


def recurrence(a, b, initial_state=0.0, reverse=False):
    """h_t = a_t h_{t-1} + b_t, or g_t = a_{t+1} g_{t+1} + b_t, as it is written."""
    a, b = np.broadcast_arrays(a, b)
    states = np.empty(b.shape, np.result_type(a, b, initial_state))
    length = b.shape[-1]
    state = initial_state
    for t in reversed(range(length)) if reverse else range(length):
        if reverse:
            state = (a[..., t + 1] if t + 1 < length else 1) * state + b[..., t]
        else:
            state = a[..., t] * state + b[..., t]
        states[..., t] = state
    return states


def assert_follows_recurrence(function, a, b, initial_state, reverse=False):
    """Within the bounds of the two roundings apart. SCAN-20.

    With |a| ≤ 1, a multiplication that underflows adds at most the smallest normal number times u to a term, a
    state is below 10·L, and there are at most 2L multiplications: less than `tiny` times the length in all."""
    wide = [x.astype(np.result_type(x, np.float64)) for x in (a, b, initial_state)]
    found = function(a, b, initial_state, reverse=reverse)
    assert found.dtype == b.dtype
    bound = rounding_bound(a, b, initial_state, reverse=reverse) + rounding_bound(*wide, reverse=reverse)
    error = abs(found - recurrence(*wide, reverse=reverse))
    assert np.all(error <= bound + b.shape[-1] * np.finfo(b.dtype).tiny)


@given(scans, lengths, seeds, st.sampled_from(DTYPES), st.sampled_from([(), (3,), (2, 1, 3)]), st.booleans())
def test_scans_follow_the_recurrence(scan, length, seed, dtype, batch, reverse):
    """SCAN-8, SCAN-20 and, backwards, SCAN-24."""
    assert_follows_recurrence(scan.function, *draw_arrays(length, seed, dtype, batch), reverse=reverse)


@given(lengths, seeds, st.sampled_from(DTYPES), st.booleans())
def test_the_bound_is_the_formula_for_a_step_more(length, seed, dtype, reverse):
    """SCAN-20: γ_{k(t+1)} (Σ_s |a_t…a_{s+1} b_s| + |a_t…a_1 h_0|), to the roundings of double precision."""
    a, b, h0 = draw_arrays(length, seed, dtype)
    size_a, size_b = (abs(x.astype(np.result_type(x, np.float64))) for x in (a, b))
    if reverse:  # step t uses the next factor, and h0 is what comes in at the end
        size_a, size_b = np.roll(size_a, -1)[::-1], size_b[::-1]
        size_a[:1] = 1
    terms = np.concatenate([[abs(complex(h0))], size_b])
    nu = (4 if np.dtype(dtype).kind == "c" else 2) * np.arange(2, length + 2) * np.finfo(dtype).eps / 2
    sums = [sum(np.prod(size_a[s:t]) * terms[s] for s in range(t + 1)) for t in range(1, length + 1)]
    found = rounding_bound(a, b, h0, reverse=reverse)
    np.testing.assert_allclose(found[:: -1 if reverse else 1], nu / (1 - nu) * sums, rtol=1e-12)


@given(scans, lengths)
def test_scans_yield_all_words_at_their_stated_cost(scan, length):
    """SCAN-9, SCAN-10, SCAN-11, SCAN-12 and SCAN-13: right on words is right in every monoid."""
    assert trace(scan, length) == (True, scan.work(length), scan.depth(length))


@given(scans, st.integers(0, 40))
def test_scans_concatenate_strings_in_order(scan, length):
    letters = np.array([chr(ord("A") + t) for t in range(length)], dtype=object)
    (words,) = prefixes(scan.rounds(length), (letters,), lambda second, first: (first[0] + second[0],))
    assert list(words) == ["".join(letters[: t + 1]) for t in range(length)]


def without_tail(scan):
    """Treats the largest power of two that fits, and forgets the rest."""
    return replace(scan, rounds=lambda length: scan.rounds(1 << length.bit_length() >> 1))


def one_place_off(scan):
    """Absorbs the position after the right one."""

    def rounds(length):
        for into, source in scan.rounds(length):
            yield into, slice(source.start + 1, source.stop + 1, source.step)

    return replace(scan, rounds=rounds)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
@pytest.mark.parametrize("plant", [without_tail, one_place_off])
def test_the_check_on_words_fails_wrong_rounds(scan, plant):
    assert trace(scan, 21)[0]
    assert not trace(plant(scan), 21)[0]


def test_the_check_on_words_fails_swapped_operands():
    scan = SCANS["hillis_steele"]
    backwards = replace(scan, rounds=lambda length: ((source, into) for into, source in scan.rounds(length)))
    assert not trace(backwards, 21)[0]


def test_the_count_fails_another_scans_formula():
    for one in SCANS.values():
        for other in SCANS.values():
            assert (trace(one, 21)[1:] == (other.work(21), other.depth(21))) == (one is other)


def with_product(product, scan):
    """The scan with another product of pairs."""

    def function(a, b, initial_state, reverse=False):
        b = np.concatenate([a[..., :1] * np.expand_dims(initial_state, -1) + b[..., :1], b[..., 1:]], axis=-1)
        return prefixes(scan.rounds(b.shape[-1]), (a, b), product)[1]

    return function


def swapped(second, first):
    return combine(first, second)


def previous_gate(second, first):
    return second[0] * first[0], first[0] * first[1] + second[1]


def no_gate(second, first):
    return first[0], combine(second, first)[1]


@pytest.mark.parametrize("scan", [SCANS["hillis_steele"], SCANS["blelloch"], chunked_by(5)], ids=lambda s: s.name)
def test_the_check_on_numbers_fails_wrong_products(scan):
    arrays = draw_arrays(21, 0)
    assert_follows_recurrence(with_product(combine, scan), *arrays)
    for product in (swapped, previous_gate, no_gate):
        with pytest.raises(AssertionError):
            assert_follows_recurrence(with_product(product, scan), *arrays)


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
def test_the_check_on_numbers_fails_wrong_scans(scan):
    a, b, initial_state = draw_arrays(21, 0)

    def lost_state(a, b, initial_state, reverse=False):
        return scan.function(a, b, reverse=reverse)

    def own_gate_backwards(a, b, initial_state, reverse=False):
        return scan.function(a[..., ::-1], b[..., ::-1], initial_state)[..., ::-1]

    def shifted_gate(a, b, initial_state, reverse=False):
        return scan.function(np.roll(a, 1), b, initial_state)

    def single_precision(a, b, initial_state, reverse=False):
        return scan.function(*(x.astype(np.float32) for x in (a, b, initial_state))).astype(np.float64)

    assert_follows_recurrence(scan.function, a, b, initial_state)
    for wrong in (lost_state, shifted_gate, single_precision):
        with pytest.raises(AssertionError):
            assert_follows_recurrence(wrong, a, b, initial_state)
    assert_follows_recurrence(scan.function, a, b, initial_state, reverse=True)
    with pytest.raises(AssertionError):
        assert_follows_recurrence(own_gate_backwards, a, b, initial_state, reverse=True)


@given(st.integers(0, 90), st.integers(1, 100), seeds, st.booleans(), st.booleans())
def test_decay_form_is_the_affine_scan(length, chunk, seed, is_complex, reverse):
    """SCAN-15 and SCAN-16."""
    rng = np.random.default_rng(seed)
    batch, dim, state = 2, 3, 4
    delta = np.exp(rng.uniform(np.log(1e-4), np.log(10), (batch, dim, length)))
    A = -np.exp(rng.uniform(-3, 3, (dim, state))) + (10j * rng.standard_normal((dim, state)) if is_complex else 0)
    b, h0 = rng.standard_normal((batch, dim, state, length)), rng.standard_normal((batch, dim, state))
    a = np.exp(delta[:, :, None, :] * A[..., None])
    found = chunked_decay(delta, A, b, chunk, h0, reverse=reverse)
    # ΣΔ, its product with A and the exponential have a rounding each, and one a sum: ε = 2(L + 4)u for both sides. An
    # exponent in error by ε|A|ΣΔ = ε's, with s = |Re A|ΣΔ, moves its exponential by ε'/(e(1 − ε')) at most (SCAN-16).
    u = np.finfo(float).eps / 2
    error = 2 * (length + 4) * u
    tilted = error * (abs(A) / abs(A.real))[..., None]
    exponentials = (tilted / (np.e * (1 - tilted)) + error) * (abs(b).sum(-1) + abs(h0))[..., None]
    bound = 2 * rounding_bound(a, b, h0, reverse=reverse) + exponentials
    assert np.all(abs(found - sequential(a, b, h0, reverse=reverse)) <= bound)
    if length > 1 and not reverse:
        wrong = chunked_decay(np.roll(delta, 1, axis=-1), A, b, chunk, h0)
        assert not np.all(abs(wrong - sequential(a, b, h0)) <= bound)


@given(st.floats(0, 100), st.floats(-0.99, 0.99))
def test_a_relative_error_of_the_exponent_moves_a_decay_within_its_bound(s, error):
    """SCAN-16. An exponential of x is off by |x|u in its argument and 4u besides, times e⁻ˣ: below 1e-15 for each."""
    moved = abs(np.exp(-s * (1 + error)) - np.exp(-s))
    assert moved <= abs(error) / (np.e * (1 - abs(error))) + 1e-14


def test_the_first_order_of_that_bound_is_none():
    assert abs(np.exp(-0.5) - np.exp(-1)) > 0.5 / np.e


def test_decay_form_outlives_the_product():
    """SCAN-17: two blocks whose products of decays are both 0 still have different sums."""
    delta, A = np.ones(400, np.float32), np.array([-1.0], np.float32)
    sums, _ = prefixes(SCANS["blelloch"].rounds(400), (delta, np.zeros((1, 400), np.float32)), decay_combine(A))
    assert np.prod(np.exp(-delta[:200])) == np.prod(np.exp(-delta)) == 0
    assert (sums[199], sums[399]) == (200, 400)


def test_decay_form_keeps_single_precision_and_shares_the_sum():
    delta = np.ones((2, 1, 5), np.float32)
    found = chunked_decay(delta, -np.ones((3, 4), np.float32), np.ones((4, 5), np.float32), 2)
    assert found.shape == (2, 3, 4, 5)
    assert found.dtype == np.float32
    assert chunked_decay([1, 2], [1j], [[1, 2]], 1).dtype == np.complex128


@given(scans, st.integers(1, 60), seeds)
def test_reverse_scan_is_the_transpose(scan, length, seed):
    """SCAN-24: ⟨c, M b⟩ = ⟨Mᵀ c, b⟩ with no conjugation; what enters at the end goes where a_1 g_1 comes out."""
    a, b, h0 = draw_arrays(length, seed, np.complex128)
    _, c, last = draw_arrays(length, seed + 1, np.complex128)
    states, gradient = scan.function(a, b, h0), scan.function(a, c, last, reverse=True)
    left = np.sum(c * states) + last * states[-1]
    right = np.sum(gradient * b) + a[0] * gradient[0] * h0
    bound, back = rounding_bound(a, b, h0), rounding_bound(a, c, last, reverse=True)
    bounds = abs(c) @ bound + abs(last) * bound[-1] + back @ abs(b) + back[0] * abs(h0)
    # The two sums take fewer than L + 8 roundings a term, of magnitudes that `bounds` counts 8 times or more.
    tolerance = (1 + (length + 8) / 8) * bounds
    assert abs(left - right) <= tolerance
    assert abs(left - right - c[0] * b[0]) > tolerance, "one term less would show"


@given(scans, st.integers(1, 100), seeds, st.data())
def test_nan_reaches_no_earlier_state(scan, length, seed, data):
    a, b, h0 = draw_arrays(length, seed)
    t = data.draw(st.integers(0, length - 1))
    b[t] = np.nan
    states = scan.function(a, b, h0)
    assert np.all(np.isfinite(states[:t]))
    assert np.all(np.isnan(states[t:]))


@given(scans, st.integers(0, 60), seeds)
def test_inputs_stay_as_they_were(scan, length, seed):
    arrays = draw_arrays(length, seed)
    copies = [x.copy() for x in arrays]
    for reverse in (False, True):
        states = scan.function(*arrays, reverse=reverse)
        assert not any(np.shares_memory(states, x) for x in arrays)
    for x, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@given(st.tuples(*[st.integers(-9, 9)] * 6))
def test_the_product_is_associative_with_an_identity_and_does_not_commute(numbers):
    """SCAN-1, SCAN-2, SCAN-4, SCAN-5, SCAN-6 and SCAN-7, on integers, exactly."""
    a1, b1, a2, b2, a3, b3 = numbers
    x1, x2, x3 = (a1, b1), (a2, b2), (a3, b3)
    assert combine(combine(x3, x2), x1) == combine(x3, combine(x2, x1))
    assert combine(x1, IDENTITY) == x1 == combine(IDENTITY, x1)
    assert combine(x2, x1) == (a2 * a1, a2 * (a1 * 0 + b1) + b2)
    assert (combine(x2, x1) == combine(x1, x2)) == ((a2 - 1) * b1 == (a1 - 1) * b2)
    assert combine(x2, (0, b1))[0] == 0


@given(scans, st.integers(0, 40), seeds)
def test_scans_run_on_matrices(scan, length, seed):
    """SCAN-3: the same rounds on 2×2 integer matrices, exactly."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-1, 2, (2, 2, length)), rng.integers(-3, 4, (2, length))

    def product(second, first):
        return np.einsum("ijt,jkt->ikt", second[0], first[0]), np.einsum("ijt,jt->it", second[0], first[1]) + second[1]

    states = prefixes(scan.rounds(length), (a, b), product)[1]
    h = np.zeros(2, int)
    for t in range(length):
        h = a[:, :, t] @ h + b[:, t]
        np.testing.assert_array_equal(states[:, t], h)


def test_dividing_by_the_product_fails_where_the_scans_hold():
    """SCAN-18 and SCAN-19."""
    a, b = np.full(200, 0.5, np.float32), np.ones(200, np.float32)
    with np.errstate(all="ignore"):
        P = np.cumprod(a)
        divided = P * np.cumsum(b / P)
    assert not np.all(np.isfinite(divided))
    for scan in SCANS.values():
        np.testing.assert_allclose(scan.function(a, b)[-1], 2)


def test_a_tanh_step_is_no_element_to_scan():
    """SCAN-21, SCAN-22 and SCAN-23: put inside the product, tanh makes the answer depend on the bracketing."""

    def product(second, first):
        return second[0] * first[0], np.tanh(second[0] * first[1] + second[1])

    x1, x2, x3 = (0.5, 1.0), (0.5, 1.0), (0.5, 1.0)
    assert abs(product(product(x3, x2), x1)[1] - product(x3, product(x2, x1))[1]) > 0.01


@pytest.mark.parametrize("length", [1, 2, 7, 64, 100, 121, 240])
def test_root_of_length_is_the_best_chunk(length):
    """SCAN-14: no chunk beats 2√L − 2, and ⌈√L⌉ comes within one of it."""
    least = min(chunked_by(chunk).depth(length) for chunk in range(1, length + 1))
    root = chunked_by(int(np.ceil(np.sqrt(length)))).depth(length)
    assert 2 * np.sqrt(length) - 2 <= least <= root < 2 * np.sqrt(length) - 1


def test_shapes_and_dtypes():
    assert sequential([], []).shape == (0,)
    assert sequential(np.empty((2, 0)), np.empty((3, 1, 0)), reverse=True).shape == (3, 2, 0)
    np.testing.assert_array_equal(sequential([2, 3], [1, 1], 1), [3.0, 10.0])
    np.testing.assert_array_equal(sequential([2, 3], [1, 1], 1, reverse=True), [7.0, 2.0])
    assert sequential([2, 3], [1, 1], np.ones(4)).shape == (4, 2)
    for dtype in DTYPES:
        assert all(s.function(np.ones(3, dtype), np.ones((2, 3), dtype)).dtype == dtype for s in SCANS.values())
    assert sequential(np.ones(3, np.float32), np.ones(3, np.complex64)).dtype == np.complex64
    with np.errstate(over="raise"):
        sequential(np.full(9, 1e200), np.zeros(9))


BAD = [
    (TypeError, "a must hold numbers.*found dtype bool", lambda: sequential([True], [1.0])),
    (TypeError, "b must hold numbers.*found dtype float16", lambda: sequential([1.0], np.ones(1, np.float16))),
    (TypeError, "b must hold numbers.*found dtype object", lambda: sequential([1.0], np.array([None]))),
    (TypeError, "initial_state must hold numbers.*found dtype <U1", lambda: sequential([1.0], [1.0], "x")),
    (ValueError, "a is not a rectangular array", lambda: sequential([[1.0], [1.0, 2.0]], [1.0])),
    (ValueError, r"a has shape \(\); expected at least 1 axis", lambda: sequential(1.0, [1.0])),
    (ValueError, r"length \(last axis\) must agree; found 2 in a, 1 in b", lambda: sequential([1.0, 2.0], [1.0])),
    (ValueError, r"leading axes .* \(2,\) in a, \(3,\) in b", lambda: sequential(np.ones((2, 4)), np.ones((3, 4)))),
    (ValueError, r"\(3,\) in initial_state", lambda: sequential(np.ones((2, 4)), np.ones((2, 4)), np.ones(3))),
    (ValueError, "chunk is 0", lambda: chunked([1.0], [1.0], 0)),
    (ValueError, "chunk is -1", lambda: chunked_by(-1)),
    (TypeError, "chunk is True", lambda: chunked([1.0], [1.0], True)),
    (TypeError, "chunk", lambda: chunked([1.0], [1.0], 2.0)),
    (TypeError, "delta has dtype complex128", lambda: chunked_decay([1j], [1.0], [[1.0]], 1)),
    (ValueError, "number of states must agree; found 2 in A, 1 in b", lambda: chunked_decay([1], [1, 2], [[1]], 1)),
    (ValueError, "3 in initial_state", lambda: chunked_decay([1], [1], [[1]], 1, [1, 2, 3])),
    (ValueError, "1 in delta, 2 in b", lambda: chunked_decay([1], [1], [[1, 2]], 1)),
    (ValueError, "b has shape .* at least 2 axes", lambda: chunked_decay([1], [1], [1], 1)),
    (TypeError, "a must hold numbers.*found dtype bool", lambda: rounding_bound([True], [1.0])),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[message for _, message, _ in BAD])
def test_bad_input_is_named(error, message, call):
    with pytest.raises(error, match=message):
        call()
