"""The public door: what it refuses, in which words, and the shapes and dtypes it gives back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ssm_edu.selective as selective
from ssm_edu.selective import selective_scan, selective_scan_backward, selective_step
from ssm_edu.selective.problem import make_problem
from tests.problems import arguments, random_arguments

BATCH, DIM, LENGTH, STATE = 2, 4, 5, 3


def ones(*shape: int, dtype: str = "float64") -> np.ndarray:
    return np.ones(shape, dtype)


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[(-1,) * array.ndim] = np.nan
    return array


BAD_SCANS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"u": ones(DIM, LENGTH)}, ValueError, r"u has shape \(4, 5\), expected \(batch, dim, length\)"),
    ({"u": ones(2, 4, 5, dtype="complex128")}, TypeError, "u has dtype complex128, expected one of float16, float32"),
    ({"u": ones(2, 4, 5, dtype="bool")}, TypeError, "u has dtype bool"),
    ({"u": np.full((2, 4, 5), None)}, TypeError, "u has dtype object"),
    ({"u": np.full((2, 4, 5), "1")}, TypeError, "u has dtype <U1"),
    ({"u": [[[1.0], [1.0, 2.0]]]}, ValueError, "u is not a rectangular array"),
    ({"u": ones(2, 4, 5, dtype="float32")}, TypeError, "delta has dtype float64, expected float32, as u has .*float32"),
    ({"delta": ones(2, 4, 6)}, ValueError, r"delta has shape \(2, 4, 6\), expected .* = \(2, 4, 5\)"),
    ({"delta": ones(2, 4, 5, dtype="float16")}, TypeError, "delta has dtype float16, expected float64"),
    ({"delta": ones(2, 4, 5, dtype="complex128")}, TypeError, "delta has dtype complex128"),
    ({"A": ones(3, 3)}, ValueError, r"A has shape \(3, 3\), expected \(dim, state\) = \(4, state\)"),
    ({"A": ones(4, 3, dtype="float32")}, TypeError, "A has dtype float32, expected float64 or complex128"),
    ({"A": ones(4, 3, dtype="complex64")}, TypeError, "A has dtype complex64, expected float64 or complex128"),
    ({"A": with_nan(ones(4, 3))}, ValueError, r"A is nan at \(3, 2\), expected finite"),
    ({"A": ones(4, 3) * np.inf}, ValueError, r"A is inf at \(0, 0\)"),
    ({"B": ones(2, 3, 3, 5)}, ValueError, "B has 3 groups, expected a divisor of dim = 4"),
    ({"B": ones(2, 0, 3, 5)}, ValueError, "B has 0 groups"),
    ({"B": ones(2, 1, 2, 5)}, ValueError, r"B has shape \(2, 1, 2, 5\), expected .* = \(2, group, 3, 5\)"),
    ({"B": ones(3)}, ValueError, r"B has shape \(3,\), expected \(dim, state\) or \(batch, state, length\) or"),
    ({"B": ones(2, 3, 5, dtype="complex128")}, TypeError, "B has dtype complex128, expected float64, .*A is real"),
    ({"C": ones(2, 3, 4)}, ValueError, r"C has shape \(2, 3, 4\)"),
    ({"C": ones(3, 4)}, ValueError, r"C has shape \(3, 4\), expected \(dim, state\) = \(4, 3\)"),
    ({"D": ones(3)}, ValueError, r"D has shape \(3,\), expected \(dim,\) = \(4,\)"),
    ({"D": ones(4, dtype="float32")}, TypeError, "D has dtype float32, expected float64"),
    ({"D": ones(4) * np.nan}, ValueError, r"D is nan at \(0,\)"),
    ({"z": ones(2, 4, 1)}, ValueError, "z has shape"),
    ({"z": ones(2, 4, 5, dtype="complex128")}, TypeError, "z has dtype complex128"),
    ({"delta_bias": ones(1)}, ValueError, "delta_bias has shape"),
    ({"delta_bias": ones(4) * np.inf}, ValueError, "delta_bias is inf"),
    ({"initial_state": ones(2, 4, 4)}, ValueError, r"initial_state has shape .* = \(2, 4, 3\)"),
    ({"initial_state": ones(2, 4, 3, dtype="complex128")}, TypeError, "initial_state has dtype complex128"),
    ({"seq_idx": np.zeros((2, 5))}, TypeError, "seq_idx has dtype float64, expected an integer"),
    ({"seq_idx": np.zeros((2, 5), bool)}, TypeError, "seq_idx has dtype bool"),
    ({"seq_idx": np.zeros((2, 6), int)}, ValueError, r"seq_idx has shape \(2, 6\), expected .* = \(2, 5\)"),
    ({"discretization": "zoo"}, ValueError, "discretization is 'zoo', expected one of mamba, zoh, bilinear"),
    ({"backend": "tpu"}, ValueError, "backend is 'tpu', expected one of auto, reference, numba, cuda"),
    ({"delta": ones(2, 4, 5, dtype="bool")}, TypeError, "delta has dtype bool, expected real numbers"),
    ({"B": ones(2, 3, 5, dtype="bool")}, TypeError, "B has dtype bool, expected real or complex numbers"),
    ({"D": np.full(4, None)}, TypeError, "D has dtype object, expected real numbers"),
    ({"u": np.full((2, 4, 5), 2**64 - 1, "uint64")}, ValueError, "u has the integer 18446744073709551615, expected"),
    ({"z": np.full((2, 4, 5), -(2**53) - 1)}, ValueError, r"z has the integer -9007199254740993, .* past ±2\*\*53"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "words"), BAD_SCANS)
def test_bad_input_is_refused_by_name(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = random_arguments(0)
    with pytest.raises(error, match=words):
        selective_scan(**good | change)
    with pytest.raises(error, match=words):
        selective_scan_backward(good["u"], **good | change)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"u_t": ones(2, 4, 1)}, ValueError, r"u_t has shape \(2, 4, 1\), expected \(batch, dim\)"),
        ({"delta_t": ones(2, 4, dtype="float32")}, TypeError, "delta_t has dtype float32, expected float64, as u_t"),
        ({"B_t": ones(4, 3)}, ValueError, r"B_t has shape \(4, 3\), expected \(batch, state\) = \(2, 3\)"),
        ({"C_t": ones(2, 3, 3)}, ValueError, "C_t has 3 groups"),
        ({"h": ones(2, 4)}, ValueError, r"h has shape \(2, 4\), expected \(batch, dim, state\)"),
        ({"h": ones(2, 4, 3, dtype="float32")}, TypeError, "h has dtype float32"),
        ({"z_t": ones(2, 3)}, ValueError, "z_t has shape"),
        ({"discretization": "foh"}, ValueError, "discretization is 'foh'"),
    ],
)
def test_bad_step_is_refused_by_name(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {"h": ones(2, 4, 3), "u_t": ones(2, 4), "delta_t": ones(2, 4), "A": -ones(4, 3)}
    good |= {"B_t": ones(2, 3), "C_t": ones(2, 3)}
    selective_step(**good)
    with pytest.raises(error, match=words):
        selective_step(**good | change)


@pytest.mark.parametrize(
    ("grad_y", "grad_last_state", "error", "words"),
    [
        (ones(2, 4, 6), None, ValueError, r"grad_y has shape .* = \(2, 4, 5\)"),
        (ones(2, 4, 5, dtype="float32"), None, TypeError, "grad_y has dtype float32, expected float64"),
        (ones(2, 4, 5), ones(2, 4, 2), ValueError, "grad_last_state has shape"),
        (ones(2, 4, 5), ones(2, 4, 3, dtype="complex128"), TypeError, "grad_last_state has dtype complex128"),
    ],
)
def test_bad_cotangents_are_refused_by_name(
    grad_y: np.ndarray, grad_last_state: np.ndarray | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        selective_scan_backward(grad_y, **random_arguments(0), grad_last_state=grad_last_state)


def test_bad_input_is_refused_where_no_annotation_is_checked() -> None:
    """Without the import hook, as users run it."""
    program = """
import numpy as np
from ssm_edu.selective import selective_scan
u, M = np.ones((1, 1, 2)), np.ones((1, 1))
for change, words in [
    ({"u": None}, "u is None, expected real numbers"),
    ({"A": None}, "A is None, expected real or complex numbers"),
    ({"delta": object()}, "delta has dtype object, expected real numbers"),
    ({"discretization": np.array(["zoh", "mamba"])}, "discretization is array(["),
    ({"discretization": None}, "discretization is None, expected one of"),
    ({"backend": ["numba"]}, "backend is ['numba'], expected one of auto"),
    ({"backend": np.array(["numba", "cuda"])}, "backend is array(["),
    ({"delta_softplus": "False"}, "delta_softplus is 'False', expected True or False"),
    ({"return_last_state": 1}, "return_last_state is 1, expected True or False"),
]:
    try:
        selective_scan(**{"u": u, "delta": u, "A": M, "B": M, "C": M} | change)
    except (TypeError, ValueError) as error:
        assert words in str(error), error
    else:
        raise AssertionError(change)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_lists_and_integers_are_read_as_float64() -> None:
    largest = np.full((1, 1, 1), 2**53)
    assert make_problem(largest, -largest, [[-1]], [[1]], [[1]]).u.item() == 2**53
    assert selective_scan(np.zeros((1, 1, 0), int), np.zeros((1, 1, 0), int), [[-1]], [[1]], [[1]]).size == 0
    y = selective_scan([[[1, 2]]], [[[1, 1]]], [[-1]], [[1]], [[1]], [0])
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, [[[1, 2 + np.exp(-1)]]], rtol=1e-15)
    with pytest.raises(TypeError, match=r"delta has dtype int64 \(read as float64\), expected float32, as u has"):
        selective_scan(ones(1, 1, 2, dtype="float32"), [[[1, 1]]], [[-1]], [[1]], [[1]])


@given(arguments(dtype="float16") | arguments(dtype="float32") | arguments(dtype="float64"), st.booleans())
def test_outputs_have_the_shapes_and_dtypes_of_the_inputs(kwargs: dict[str, Any], drop_group_axis: bool) -> None:
    for name in ("B", "C"):
        if drop_group_axis and kwargs[name].ndim == 4 and kwargs[name].shape[1] == 1:
            kwargs[name] = kwargs[name][:, 0]
    y, last = selective_scan(**kwargs, return_last_state=True)
    assert (y.shape, y.dtype) == (kwargs["u"].shape, kwargs["u"].dtype)
    assert last.dtype == kwargs["A"].dtype
    assert last.shape == (*y.shape[:2], kwargs["A"].shape[1])
    assert np.array_equal(selective_scan(**kwargs), y)
    before = {name: np.copy(value) for name, value in kwargs.items()}
    for name, gradient in selective_scan_backward(y, **kwargs, grad_last_state=last)._asdict().items():
        if kwargs.get(name) is None:
            assert gradient is None
        else:
            assert (gradient.shape, gradient.dtype) == (kwargs[name].shape, kwargs[name].dtype), name
    assert all(np.array_equal(before[name], kwargs[name]) for name in kwargs)


@given(arguments(dtype="float32"))
def test_layout_and_byte_order_do_not_matter(kwargs: dict[str, Any]) -> None:
    def disguised(array: Any) -> Any:
        if not isinstance(array, np.ndarray):
            return array
        swapped = np.asfortranarray(array).astype(array.dtype.newbyteorder(">"))
        return np.repeat(swapped, 2, axis=-1)[..., ::2]

    y = selective_scan(**{name: disguised(value) for name, value in kwargs.items()})
    assert y.dtype == np.dtype("float32")
    assert np.array_equal(y, selective_scan(**kwargs))


def test_problem_normalises() -> None:
    kwargs = random_arguments(0, groups_B=2, groups_C=None, packed=True)
    problem = make_problem(**kwargs)
    assert (problem.batch, problem.dim, problem.length, problem.state) == (BATCH, DIM, LENGTH, STATE)
    assert (problem.variable_B, problem.variable_C, problem.is_complex) == (True, False, False)
    assert (problem.group_B, problem.group_C) == (2, DIM)
    assert make_problem(**kwargs | {"B": kwargs["B"][:, 0]}).B.shape == (BATCH, 1, STATE, LENGTH)
    assert not problem.fresh[:, 0].any()
    assert np.array_equal(problem.fresh[:, 1:], np.diff(kwargs["seq_idx"]) != 0)
    assert make_problem(**kwargs | {"initial_state": None}).fresh[:, 0].all()


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_no_initial_state_is_zeros_unless_the_first_step_overflows(backend: str) -> None:
    kwargs = random_arguments(0) | {"delta_softplus": False, "backend": backend}
    zeros = {"initial_state": np.zeros_like(kwargs["initial_state"])}
    for step, same in ((-1.0, True), (-1e4, False)):
        kwargs["delta"][..., 0] = step
        y = selective_scan(**kwargs | {"initial_state": None})
        assert np.isfinite(y).all()
        assert np.array_equal(y, selective_scan(**kwargs | zeros)) == same


def test_backend_that_is_missing_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selective.BACKENDS, "cuda", "ssm_edu.no_such_module")
    with pytest.raises(
        ImportError, match=r"backend 'cuda' cannot be imported: No module named 'ssm_edu.no_such_module'"
    ):
        selective_scan(**random_arguments(0), backend="cuda")
    monkeypatch.setitem(selective.BACKENDS, "numba", "ssm_edu.no_such_module")
    assert selective.backend_module("auto").__name__ == "ssm_edu.selective.reference"


def test_backends_are_asked_for_the_same_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend sees the normalised problem, and the door gives its answer the input's shapes and dtypes."""
    from ssm_edu.selective import reference

    asked: list[str] = []

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            asked.append(function.__name__)
            return function(*args)

        return call

    for name in ("selective_scan", "selective_scan_backward"):
        monkeypatch.setattr(reference, name, recorded(getattr(reference, name)))
    kwargs = random_arguments(0, dtype="float32")
    y = selective_scan(**kwargs, backend="reference")
    selective_scan_backward(y, **kwargs, backend="reference")
    assert asked == ["selective_scan", "selective_scan_backward"]
