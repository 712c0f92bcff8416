"""What the production kernels are made of: their formulas against 50 digits, loops written out, and the GPU's twins.

Where Numba was imported without the simulator, the formulas run on the GPU.
"""

import dis
import math
from functools import cache

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import intrinsics, unrolling
from ssm_kernels._target import jit, types
from ssm_kernels.arithmetic import EDGE, arithmetic, inline, log1p_coefficients
from ssm_kernels.unrolling import unroll

from ssm_edu import balls, bounds
from ssm_edu.gpu import runtime
from ssm_edu.testing.simulator import KernelError, simulated
from tests.kernel_runs import SIMULATED, in_the_simulator

DIGITS = 50
RULES = {"float32": bounds.FLOAT32_APPROX, "float64": bounds.FLOAT64}
precisions = pytest.mark.parametrize("precision", RULES)


def values_of(number, largest):
    """Numbers of every size up to `largest`, and those at the borders of formulas; complex ones in all directions."""
    rng = np.random.default_rng(7)
    size = np.concatenate([np.geomspace(1e-30, largest, 60), [EDGE, 0.25, 0.5, 1, 2]])
    x = np.concatenate([[0], size, -size, np.nextafter(size, 0)])
    if not np.issubdtype(number, np.complexfloating):
        return [number(value) for value in x]
    turned = np.abs(x) * np.exp(1j * rng.uniform(-np.pi, np.pi, x.size))
    return [number(value) for value in (*turned, *(1j * x), *(x + 1j * rng.permutation(x))) if value.real <= 10]


def callable_in_kernels(function):
    return function if SIMULATED or hasattr(function, "py_func") else inline(function)


@cache
def elementwise(function):
    """On the GPU, the kernel out[i] = function(x[i])."""
    device = callable_in_kernels(function)

    @jit
    def kernel(x, out):
        i = cuda.grid(1)
        if i < x.size:
            out[i] = device(x[i])

    return kernel


def applied(function, values):
    """The function of each value, where kernels run."""
    if SIMULATED:
        return [function(z) for z in values]
    x = np.array(values)
    out = cuda.to_device(np.full_like(x, np.nan))
    elementwise(function)[-(-x.size // 128), 128](cuda.to_device(x), out)
    return list(out.copy_to_host())


def at(function, x):
    [value] = applied(function, [x])
    return value


def as_mp(x):
    return mpmath.mpc(complex(x)) if np.iscomplexobj(x) else mpmath.mpf(float(x))


def worst_error(function, exact, ball, values, precision):
    """The largest error over the radius that the bounds of a whole scan allow for this function."""
    wide = np.array(values, np.complex128 if np.iscomplexobj(values[0]) else np.float64)
    with mpmath.workdps(DIGITS), np.errstate(all="ignore"):
        radii = ball(balls.exact(wide, RULES[precision])).radius
        found = applied(function, values)
        known = [(f, z, float(r)) for f, z, r in zip(found, values, radii, strict=True) if np.isfinite(r)]
        assert len(known) > 100
        errors = [(float(abs(as_mp(f) - exact(as_mp(z)))), radius) for f, z, radius in known]
    return max((error / radius if radius else math.inf) for error, radius in errors if error)


def sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def phi1(z):
    return mpmath.expm1(z) / z if z else mpmath.mpf(1)


def dphi1(z):
    with mpmath.workdps(4 * DIGITS):  # the difference loses twice the digits of z
        return (z * mpmath.exp(z) - mpmath.expm1(z)) / z**2 if z else mpmath.mpf(0.5)


def p(z):
    return 1 / (1 - z / 2)


def alpha(z):
    return (1 + z / 2) * p(z)


def decay(F):
    of, prepared, one = F.decay, F.prepared, F.real(1)
    return lambda z: of(one, prepared(z))


def first(pair):
    return lambda z: pair(z)[0]


def second(pair):
    return lambda z: pair(z)[1]


def zoh_slope(F):
    zoh, slopes = F.zoh, F.zoh_slopes

    def slope(z):
        e, p = zoh(z)
        return slopes(z, e, p)[1]

    return slope


# what the kernels compute, what it is, its error in the bounds, and how large its argument may be
REAL = {
    "softplus": (lambda F: F.softplus, lambda x: mpmath.log1p(mpmath.exp(x)), balls.softplus, 300),
    "sigmoid": (lambda F: F.sigmoid, sigmoid, balls.sigma, 80),
}
OF_STATES = {
    "exp": (lambda F: F.exp, mpmath.exp, balls.exp, 80),
    "decay": (decay, mpmath.exp, balls.exp, 80),
    "zoh's decay": (lambda F: first(F.zoh), mpmath.exp, balls.exp, 80),
    "φ₁": (lambda F: second(F.zoh), phi1, lambda z: balls.phi(z)[0], 80),
    "φ₁′": (zoh_slope, dphi1, lambda z: balls.phi(z)[1], 80),
    "bilinear's α": (
        lambda F: first(F.bilinear),
        lambda z: 2 * p(z) - 1,
        lambda z: balls.bilinear(z)[0],
        1e15,
    ),
    "bilinear's p": (lambda F: second(F.bilinear), p, lambda z: balls.bilinear(z)[1], 1e15),
}


def checked(precision, is_complex, entry, wrong=lambda function: function):
    of, exact, ball, largest = entry
    functions = arithmetic(precision, is_complex)
    number = functions.real if entry in REAL.values() else functions.number
    return worst_error(wrong(of(functions)), exact, ball, values_of(number, largest), precision)


@precisions
@pytest.mark.parametrize("name", REAL)
def test_a_real_function_is_as_good_as_the_bounds_take_it_to_be(precision, name):
    """PHI-1, ROUND-8, ROUND-9."""
    assert checked(precision, False, REAL[name]) <= 1


@precisions
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("name", OF_STATES)
def test_a_function_of_states_is_as_good_as_the_bounds_take_it_to_be(precision, is_complex, name):
    """PHI-1, PHI-3, ROUND-8, ROUND-9."""
    assert checked(precision, is_complex, OF_STATES[name]) <= 1


def naive(F):
    exp, zero, one = F.exp, F.real(0), F.real(1)
    return lambda z: (exp(z) - one) / z if z != zero else one


def test_the_check_of_a_function_fails_a_wrong_one():
    ulps = np.float32(1 + 2.0**-16)  # 128 ulp

    def loses(of):
        right = callable_in_kernels(of)
        return lambda z: right(z) * ulps

    for is_complex in (False, True):
        for name, entry in OF_STATES.items():
            assert checked("float32", is_complex, entry, loses) > 1, name
    assert checked("float32", False, (naive, *OF_STATES["φ₁"][1:])) > 1


@precisions
def test_softplus_keeps_its_relative_accuracy(precision):
    """Beside the bounds, whose error of softplus has an absolute part: in e⁻³⁰ there would be nothing left of it.

    The argument of 2ˣ carries two roundings, 2ˣ one ulp, and log(1 + w) = w·p(w) those of its last products.
    """
    softplus, unit = arithmetic(precision, False).softplus, RULES[precision].format.unit_roundoff
    real = np.dtype(precision).type
    values = [real(x) for x in np.concatenate([np.linspace(-80, 30, 400), np.geomspace(1e-20, 1, 50)])]
    with mpmath.workdps(DIGITS):
        for x, found in zip(values, applied(softplus, values), strict=True):
            exact = mpmath.log1p(mpmath.exp(as_mp(x)))
            error = float(abs(as_mp(found) / exact - 1))
            assert error <= (2.5 * abs(x) * (x < 0) + 12) * unit, x


def test_the_polynomial_of_log1p_is_better_than_float32():
    coefficients = log1p_coefficients(9)
    with mpmath.workdps(DIGITS):
        for w in np.linspace(1e-6, 1, 500):
            polynomial = mpmath.polyval([mpmath.mpf(c) for c in coefficients[::-1]], mpmath.mpf(w))
            assert abs(polynomial * w / mpmath.log1p(w) - 1) < 2.0**-24


@in_the_simulator
@precisions
@pytest.mark.parametrize("is_complex", [False, True])
def test_slopes_are_derivatives(precision, is_complex):
    """By a symmetric difference over h: its error is h²/6 of a third derivative, and rounding over h."""
    functions = arithmetic("float64", is_complex)
    h = 1e-5
    for z in (-3.0, -0.8, -0.5, 0.3, *((-0.4 + 2j, -2 - 1j, 0.1j) if is_complex else ())):
        z = functions.number(z)
        for values, slopes in ((functions.zoh, functions.zoh_slopes), (functions.bilinear, functions.bilinear_slopes)):
            alpha, weight = values(z)
            (alpha_up, weight_up), (alpha_down, weight_down) = values(z + h), values(z - h)
            whole_up, whole_down = (z + h) * weight_up, (z - h) * weight_down
            differences = np.array([alpha_up - alpha_down, weight_up - weight_down, whole_up - whole_down]) / (2 * h)
            np.testing.assert_allclose(np.array(slopes(z, alpha, weight)), differences, rtol=1e-8, atol=1e-9)


@precisions
def test_extreme_arguments(precision):
    F, C = arithmetic(precision, False), arithmetic(precision, True)
    real, number = F.real, C.number
    with np.errstate(all="ignore"):
        assert at(F.softplus, real(np.inf)) == np.inf
        assert at(F.softplus, real(-np.inf)) == 0
        assert at(F.softplus, real(1e4)) == 1e4
        assert at(F.sigmoid, real(np.inf)) == 1
        assert at(F.sigmoid, real(-700)) < 1e-30  # where Python's math.exp still has e⁷⁰⁰, as the simulator uses it
        decay, step, rate = F.decay, real(1e30), F.prepared(real(-1)) if SIMULATED else real(-1)
        assert at(lambda a: decay(step, a), rate) == 0
        assert at(first(F.zoh), real(-1e30)) == 0
        for function in (F.softplus, F.sigmoid, F.exp, first(F.zoh), second(F.zoh)):
            assert np.isnan(at(function, real(np.nan)))
        for function in (C.exp, first(C.zoh), second(C.zoh), first(C.bilinear)):
            assert np.isnan(at(function, number(complex(np.nan, 1))))
        # |z|² neither overflows nor vanishes
        assert at(second(C.bilinear), number(-1e25 + 1e25j)) != 0
        assert at(C.conj, number(1 + 2j)) == 1 - 2j


# Loops written out


@pytest.fixture
def compiling(monkeypatch):
    monkeypatch.setattr(unrolling, "SIMULATED", False)


N, YES, NO = 3, True, False


def loops_in(function):
    return sum(instruction.opname == "FOR_ITER" for instruction in dis.get_instructions(function))


def jumps_in(function):
    return sum("JUMP" in instruction.opname for instruction in dis.get_instructions(function))


def nested(x):
    out = []
    for i in unroll(N):
        for j in unroll(i, 2 * N, 2):
            out.append((i, j, x[i + j]))
        for k in range(2):
            out.append(k + i)
    return out


def branches(x):
    found = []
    if YES:
        found.append("yes")
    else:
        found.append("no")
    if NO or not YES:
        found.append("neither")
    elif x > 0 and YES:
        found.append("positive")
    for i in unroll(2):
        if NO and x > 0:
            found.append("never")
        found.append("a" if YES else "b")
        found.append(i if x > 1 else -i)
    return found


@pytest.mark.usefixtures("compiling")
def test_loops_are_written_out():
    written = unrolling.unrolled(nested)
    x = list(range(10, 30))
    assert written(x) == nested(x)
    assert loops_in(nested) == 3
    assert loops_in(written) == N  # the plain ones inside, once for each i


@pytest.mark.usefixtures("compiling")
def test_constant_branches_are_cut():
    written = unrolling.unrolled(branches)
    for x in (-1, 1, 2):
        assert written(x) == branches(x)
    constants = written.__code__.co_consts
    assert not {"no", "neither", "never", "b"} & set(constants)
    assert {"yes", "positive", "a"} <= set(constants)
    assert jumps_in(written) < jumps_in(branches)


@pytest.mark.usefixtures("compiling")
def test_what_a_closure_holds_is_constant():
    def make(count, flag):
        scale = 10

        def total(x):
            s = 0
            for i in unroll(count):
                s += scale * x[i] if flag else x[i]
            return s

        return total

    for count in (0, 1, 4):
        for flag in (False, True):
            plain = make(count, flag)
            written = unrolling.unrolled(plain)
            assert written([1, 2, 3, 4]) == plain([1, 2, 3, 4])
            assert loops_in(written) == 0
            assert written.__name__ == "total"


def two_targets(x):
    for i, j in unroll(x):
        print(i, j)


def with_else(x):
    for i in unroll(2):
        print(i)
    else:
        print(x)


def of_an_argument(x):
    for i in unroll(x):
        print(i)


@pytest.mark.usefixtures("compiling")
@pytest.mark.parametrize(
    ("function", "error"), [(two_targets, AssertionError), (with_else, AssertionError), (of_an_argument, NameError)]
)
def test_what_cannot_be_written_out_is_refused(function, error):
    with pytest.raises(error):
        unrolling.unrolled(function)


@in_the_simulator
def test_the_simulator_runs_the_function_itself():
    assert unrolling.unrolled(nested) is nested


# The plain twins of what the GPU does


def nearest_bfloat16(x):
    """By the definition: the nearer of the two neighbours, of two as near the one whose last bit is 0."""
    bits = int(np.float32(x).view(np.uint32)) & 0xFFFF0000
    below, above = bits, bits + 0x10000
    at = [mpmath.mpf(float(np.uint32(b).view(np.float32))) for b in (below, min(above, 0xFFFFFFFF))]
    if not mpmath.isfinite(at[1]):  # as if the exponents went on
        at[1] = mpmath.sign(at[0]) * mpmath.mpf(2) ** 128
    distances = [abs(as_mp(np.float32(x)) - one) for one in at]
    if distances[0] == distances[1]:
        return (below if below >> 16 & 1 == 0 else above) >> 16
    return (below if distances[0] < distances[1] else above) >> 16


@cache
def conversions(dtype):
    """On the GPU, the kernels that narrow and widen."""
    io, full = intrinsics.access(dtype), intrinsics.access("float32")
    load, store, load_full, store_full = io.load, io.store, full.load, full.store

    @jit(types.void(intrinsics.pointer("float32"), intrinsics.pointer(dtype), types.int64))
    def narrow(x, bits, n):
        i = cuda.grid(1)
        if i < n:
            store(bits, i, load_full(x, i))

    @jit(types.void(intrinsics.pointer(dtype), intrinsics.pointer("float32"), types.int64))
    def widen(bits, x, n):
        i = cuda.grid(1)
        if i < n:
            store_full(x, i, load(bits, i))

    return narrow, widen


def converted(kernel, array, dtype):
    given_, out = cuda.to_device(array), cuda.to_device(np.zeros(array.size, dtype))
    kernel[-(-array.size // 128), 128](runtime.address(given_), runtime.address(out), array.size)
    return out.copy_to_host()


def narrowed(dtype, x):
    """The bits of float32 numbers as a kernel stores them."""
    x = np.asarray(x, np.float32).reshape(-1)
    if not SIMULATED:
        return converted(conversions(dtype)[0], x, np.uint16)
    bits = np.zeros(x.size, np.uint16)
    for i, value in enumerate(x):
        intrinsics.access(dtype).store(bits, i, value)
    return bits


def widened(dtype, bits):
    if not SIMULATED:
        return converted(conversions(dtype)[1], bits, np.float32)
    return np.array([intrinsics.access(dtype).load(bits, i) for i in range(bits.size)])


def uploaded(x):
    """The bits as a result of the oracle is rounded."""
    bits = cuda.to_device(np.zeros(1, np.uint16))
    buffer = bits._ary if SIMULATED else runtime.address(bits)
    runtime.upload(np.array([x], np.float32), "bfloat16", buffer)
    return bits.copy_to_host()[0]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_is_rounded_to_the_nearest(x):
    stored = narrowed("bfloat16", x)
    assert stored[0] == nearest_bfloat16(x)
    with np.errstate(over="ignore"):
        assert uploaded(x) == stored[0]
    assert narrowed("bfloat16", widened("bfloat16", stored))[0] == stored[0]


@pytest.mark.parametrize("tie", [0x3F808000, 0x3F818000, 0xBF808000])
def test_a_tie_goes_to_the_even_one(tie):
    [stored] = narrowed("bfloat16", np.uint32(tie).view(np.float32))
    assert stored & 1 == 0
    assert abs(int(stored) - (tie >> 16)) <= 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_infinities_and_nan_are_kept(dtype):
    exact = np.array([np.inf, -np.inf, 0.0, -0.0], np.float32)
    found = widened(dtype, narrowed(dtype, exact))
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(exact))
    quiet = np.uint32(0x7F800001).view(np.float32)  # a NaN whose upper half is infinity's
    assert np.isnan(widened(dtype, narrowed(dtype, quiet))).all()


@given(st.floats(width=32, allow_nan=False))
def test_float16_is_numpys(x):
    with np.errstate(over="ignore"):
        assert narrowed("float16", x).view(np.float16)[0] == np.float32(x).astype(np.float16)


@in_the_simulator
@pytest.mark.parametrize("dtype", intrinsics.ITEMSIZE)
def test_sixteen_bytes_begin_where_they_may(dtype):
    io, bits = intrinsics.access(dtype), np.dtype(runtime.BITS.get(dtype, dtype))
    data = np.arange(4 * io.width).astype(bits)
    assert io.width * intrinsics.ITEMSIZE[dtype] == 16
    copy, target = intrinsics.copy_async(dtype), np.ones(io.width, bits)
    for at in range(io.width + 1):
        if at % io.width == 0:
            word = io.load_wide(data, at)
            assert list(word) == [io.load(data, at + k) for k in range(io.width)]
            written = np.zeros_like(data)
            io.store_wide(written, at, word)
            np.testing.assert_array_equal(written[at : at + io.width], data[at : at + io.width])
            continue
        for access in (
            lambda at=at: io.load_wide(data, at),
            lambda at=at: io.store_wide(data, at, io.load_wide(data, 0)),
            lambda at=at: copy(data, at, data, 0, io.width),
            lambda at=at: copy(target, 0, data, at, 1),
        ):
            with pytest.raises(ValueError, match=f"at element {at}, which is no multiple of {io.width}"):
                access()
    for valid in range(io.width + 1):
        copy(target, 0, data, io.width, valid)
        assert not np.array_equal(target[:valid], data[io.width : io.width + valid]) or valid == 0
        intrinsics.wait_async()
        np.testing.assert_array_equal(target[:valid], data[io.width : io.width + valid])
        assert not target[valid:].any()


@in_the_simulator
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_on_its_way_is_nan_until_its_group_has_been_waited_for(dtype):
    bits = np.dtype(runtime.BITS.get(dtype, dtype))
    width = intrinsics.access(dtype).width
    data, target = np.arange(1, 3 * width + 1).astype(bits), np.zeros(3 * width, bits)
    copy, load = intrinsics.staging(dtype)

    def there():
        return [bool(np.isfinite([load(target, width * k + j) for j in range(0, width, 4)]).all()) for k in range(3)]

    for k in range(3):
        copy(target, width * k, data, width * k)
        if k < 2:
            intrinsics.commit_async()
    assert there() == [False, False, False]
    intrinsics.wait_async_but_last()
    assert there() == [True, False, False]
    intrinsics.wait_async()
    assert there() == [True, True, True]
    np.testing.assert_array_equal(target, data)
    assert list(load(target, 4)) == [intrinsics.access(dtype).load(data, 4 + k) for k in range(4)]
    for access, of in (
        (lambda: copy(target, 1, data, 0), width),
        (lambda: copy(target, 0, data, 1), width),
        (lambda: load(target, 1), 4),
    ):
        with pytest.raises(ValueError, match=f"an access to {of} elements at element 1, which is no multiple"):
            access()


@in_the_simulator
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("count", [2, 4])
def test_shorter_accesses_begin_at_their_multiples(dtype, count):
    io, bits = intrinsics.access(dtype), np.dtype(runtime.BITS.get(dtype, dtype))
    load, store = intrinsics.short_access(dtype, count)
    data = np.arange(3 * count).astype(bits)
    assert list(load(data, count)) == [io.load(data, count + k) for k in range(count)]
    written = np.zeros_like(data)
    store(written, count, load(data, count))
    np.testing.assert_array_equal(written[count : 2 * count], data[count : 2 * count])
    assert not written[:count].any()
    assert not written[2 * count :].any()
    for access in (lambda: load(data, 1), lambda: store(written, 1, load(data, 0))):
        with pytest.raises(ValueError, match=f"an access to {count} elements at element 1, which is no multiple"):
            access()


MEETING = 64  # threads


def sums_of_others(arrives=True, waits=True, buffers=2):
    """The kernel out[i] = the sum of what the thread at the other end has put into shared memory, four times."""
    open_, arrive, wait = intrinsics.gathering(MEETING, False)

    @jit
    def kernel(x, out):
        shared = cuda.shared.array(MEETING * 2 + 2, types.float32)
        i = cuda.threadIdx.x
        if i == 0:
            open_(shared, MEETING * 2)
        cuda.syncthreads()
        total = types.float32(0)
        for k in range(4):
            at = MEETING * (k % buffers)
            shared[at + i] = x[i] + k
            if arrives:
                arrive(shared, MEETING * 2)
            if waits:
                wait(shared, MEETING * 2, types.int32(k % 2))
            total += shared[at + MEETING - 1 - i]
        out[i] = total

    return kernel


def gathered(early, **options):
    x, out = np.arange(MEETING, dtype=np.float32), np.full(MEETING, np.nan, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intrinsics, "GATHER_EARLY", early)
        with simulated(1):
            sums_of_others(**options)[1, MEETING](x, out)
    return out


@in_the_simulator
@pytest.mark.parametrize("early", [False, True])
def test_threads_gather_between_arriving_and_waiting(early):
    np.testing.assert_array_equal(gathered(early), 4 * np.arange(MEETING)[::-1] + 6)


@in_the_simulator
@pytest.mark.parametrize(
    ("options", "early"),
    [({"waits": False}, False), ({"arrives": False}, True), ({"buffers": 1}, False), ({"buffers": 1}, True)],
)
def test_a_gathering_that_is_missed_is_a_race(options, early):
    with pytest.raises(KernelError, match=r"with no barrier between|before anything is written to it"):
        gathered(early, **options)
