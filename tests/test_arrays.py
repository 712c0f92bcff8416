"""What every public function refuses, and takes, in the same words."""

import numpy as np
import pytest

import ssm_edu
from ssm_edu.arrays import positive_integer
from ssm_edu.hippo import softplus_inverse
from ssm_edu.lti import convolve, recurrence
from ssm_edu.scan import sequential

u, A, M = np.ones((1, 2, 2)), -np.ones((2, 1)), np.ones((2, 1))
TAKERS = {
    "a": lambda v: ssm_edu.discretize_diagonal(v, 1.0, 0.1),
    "B": lambda v: ssm_edu.discretize(np.eye(2), v, 0.1),
    "x": lambda v: recurrence([0.5], [1.0], [1.0], v),
    "K": lambda v: convolve(v, [1.0, 2.0]),
    "b": lambda v: sequential([0.5, 0.5], v),
    "delta": softplus_inverse,
    "D": lambda v: ssm_edu.selective_scan(u, u, A, M, M, v),
}


@pytest.mark.parametrize("name", TAKERS)
def test_no_mask_is_lost(name):
    with pytest.raises(TypeError, match=f"{name} is a masked array"):
        TAKERS[name](np.ma.array([1.0, 2.0], mask=[False, True]))


@pytest.mark.parametrize("name", TAKERS)
def test_a_ragged_list_is_named(name):
    with pytest.raises(ValueError, match=f"{name} is not a rectangular array"):
        TAKERS[name]([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("value", [[True, False], [None, 1.0], ["a", "b"], np.ones(2, np.longdouble), [10**30, 1]])
def test_what_holds_no_numbers_is_named(name, value):
    with pytest.raises(TypeError, match=f"{name} (must hold numbers|has dtype)"):
        TAKERS[name](value)


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, np.uint64(2**64 - 1)])
def test_an_integer_that_would_be_rounded_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} has the integer {value}, expected none past"):
        TAKERS[name](np.array([1, value]) if isinstance(value, int) else np.array([1, value], np.uint64))


@pytest.mark.parametrize("name", TAKERS)
def test_byte_order_and_strides_do_not_matter(name):
    plain, spaced = np.array([1.0, 2.0]), np.array([1.0, 9.0, 2.0, 9.0])[::2]
    spaced.flags.writeable = False
    for value in (plain.astype(">f8"), spaced, [1, 2]):
        expected, found = (r if isinstance(r, tuple) else (r,) for r in (TAKERS[name](plain), TAKERS[name](value)))
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-(2**70), ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        (1.0, TypeError),
        ("1", TypeError),
    ],
)
def test_positive_integers(value, error):
    assert positive_integer("n", np.uint8(200)) == 200
    with pytest.raises(error, match=r"n is .*, expected an integer of at least 1"):
        positive_integer("n", value)
