"""exp, φ₁, φ₁′, softplus and σ of the CPU kernels, against long double and 50 digits."""

import mpmath as mp
import numpy as np
import pytest
from numba import njit

from ssm_edu.selective.cpu import vector_math as vm

# ulp: what `bounds` allows each of them, or less (claims PHI-2, PHI-3, PHI-4)
BOUNDS = {"exp": 1, "phi1": 3, "dphi1": 10, "softplus": 3, "sigmoid": 2}


@njit(fastmath=vm.FLAGS)
def evaluate(x, out):
    for i in range(x.size):
        e, phi = vm.exp_phi1(x[i])
        out[0, i] = vm.exp(x[i])
        out[1, i] = phi
        out[2, i] = vm.dphi1(x[i], e, phi)
        out[3, i] = vm.softplus(x[i])
        out[4, i] = vm.sigmoid(x[i])


def computed(x):
    out = np.empty((5, x.size), x.dtype)
    evaluate(x, out)
    return dict(zip(BOUNDS, out, strict=True))


def exact(x):
    with mp.workdps(50), np.errstate(all="ignore"):
        points = [mp.mpf(float(v)) for v in x]
        dphi1 = [float((z * mp.exp(z) - mp.expm1(z)) / z**2) if z else 0.5 for z in points]
    wide = x.astype(np.longdouble)
    with np.errstate(all="ignore"):
        w = np.exp(-np.abs(wide))
        phi1 = np.where(wide == 0, 1, np.expm1(wide) / np.where(wide == 0, 1, wide))
    return {
        "exp": np.exp(wide),
        "phi1": phi1,
        "dphi1": np.array(dphi1),
        "softplus": np.maximum(wide, 0) + np.log1p(w),
        "sigmoid": np.where(wide < 0, w, 1) / (1 + w),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_within_a_few_ulp_from_underflow_to_overflow(dtype):
    top = 88.0 if dtype == np.float32 else 709.0
    near = np.geomspace(1e-12, 1, 2000)
    x = np.concatenate([np.linspace(-1.2 * top, top, 20_001), near, -near, [0.0, -0.0]]).astype(dtype)
    found, expected = computed(x), exact(x)
    info = np.finfo(dtype)
    for name, bound in BOUNDS.items():
        # below the smallest normal number an ulp is that number's
        error = np.abs(found[name] - expected[name]) / np.maximum(np.abs(expected[name]), info.tiny) / info.eps
        assert error.max() <= bound, (name, x[error.argmax()])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_not_finite(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 1e4, -1e4], dtype)
    found = computed(x)
    np.testing.assert_array_equal(found["exp"], np.array([np.nan, np.inf, 0, np.inf, 0], dtype))
    np.testing.assert_array_equal(found["softplus"], np.array([np.nan, np.inf, 0, 1e4, 0], dtype))
    np.testing.assert_array_equal(found["sigmoid"], np.array([np.nan, 1, 0, 1, 0], dtype))
    assert np.isnan(found["phi1"][0])
    assert found["phi1"][2] == 0
    assert found["phi1"][4] == pytest.approx(1e-4, rel=1e-6)


def test_the_naive_quotient_fails_this_check():
    """ZOH-16: (eˣ − 1)/x in float32."""
    x = np.geomspace(1e-7, 1e-3, 100, dtype=np.float32)
    naive = (np.exp(x) - np.float32(1)) / x
    assert np.max(np.abs(naive - exact(x)["phi1"])) / np.finfo(np.float32).eps > 1000 * BOUNDS["phi1"]


def test_the_loop_over_lanes_is_vectorised():
    """No library call is left in a loop of exponentials: on x86 it runs on vector registers."""

    @njit(fastmath=vm.FLAGS, error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = vm.exp(x[i]) + vm.softplus(x[i])

    for dtype, multiply, call in ((np.float32, "mulps", "expf"), (np.float64, "mulpd", "exp@")):
        x = np.zeros(64, dtype)
        loop(x, x.copy())
        assembly = loop.inspect_asm(loop.signatures[-1])
        assert call not in assembly
        if "xmm" in assembly:
            assert multiply in assembly
