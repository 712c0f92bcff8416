"""One selective scan, validated and normalised once: what every backend is given.

The dtype rule is mamba_ssm's, with float64 added. u sets the input dtype T and the precision P:

| u | T | P, complex P |
|---|---|---|
| float16, bfloat16, float32 | that of u | float32, complex64 |
| float64 | float64 | float64, complex128 |

u, delta, z and a B or C that varies in time have dtype T; A, D, delta_bias, a constant B or C and the initial state
have dtype P. A may be complex P; then B and C may be, and the initial state is. Integers and lists are read as
float64, and integers past 2⁵³ refused. Nothing else is converted: a narrower A would be another model, a wider one
another speed. bfloat16 is a dtype of `ml_dtypes`, known here by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Inexact, Integer
from numpy.typing import ArrayLike

from ssm_edu.arrays import integers_as_float64, rectangular

DISCRETIZATIONS = ("mamba", "zoh", "bilinear")
INPUT_DTYPES = ("float16", "float32", "float64")  # those that NumPy has itself
PRECISIONS = {"float16": "float32", "float32": "float32", "float64": "float64", "bfloat16": "float32"}
COMPLEX = {"float32": "complex64", "float64": "complex128"}

Kind = Literal["input", "spectrum", "parameter", "map", "state", "index"]
MAPS = ("dim state", "batch state length", "batch group state length")
# Each argument's kind and the layouts that it may have, in the order in which they are checked.
ARGUMENTS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "u": ("input", ("batch dim length",)),
    "delta": ("input", ("batch dim length",)),
    "A": ("spectrum", ("dim state",)),
    "B": ("map", MAPS),
    "C": ("map", MAPS),
    "D": ("parameter", ("dim",)),
    "z": ("input", ("batch dim length",)),
    "delta_bias": ("parameter", ("dim",)),
    "initial_state": ("state", ("batch dim state",)),
    "seq_idx": ("index", ("batch length",)),
    "grad_y": ("input", ("batch dim length",)),
    "grad_last_state": ("state", ("batch dim state",)),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """A selective scan's validated arguments. `delta` is before bias and softplus and may be negative (growth).

    B and C are (dim, state) when constant and otherwise (batch, group, state, length), each with its own groups.
    """

    u: Float[np.ndarray, "batch dim length"]
    delta: Float[np.ndarray, "batch dim length"]
    A: Inexact[np.ndarray, "dim state"]
    B: Inexact[np.ndarray, "dim state"] | Inexact[np.ndarray, "batch group_B state length"]
    C: Inexact[np.ndarray, "dim state"] | Inexact[np.ndarray, "batch group_C state length"]
    D: Float[np.ndarray, " dim"] | None
    z: Float[np.ndarray, "batch dim length"] | None
    delta_bias: Float[np.ndarray, " dim"] | None
    delta_softplus: bool
    initial_state: Inexact[np.ndarray, "batch dim state"] | None
    seq_idx: Integer[np.ndarray, "batch length"] | None
    discretization: str

    @property
    def batch(self) -> int:
        return int(self.u.shape[0])

    @property
    def dim(self) -> int:
        return int(self.u.shape[1])

    @property
    def length(self) -> int:
        return int(self.u.shape[2])

    @property
    def state(self) -> int:
        return int(self.A.shape[1])

    @property
    def is_complex(self) -> bool:
        return self.A.dtype.kind == "c"

    @property
    def variable_B(self) -> bool:
        return self.B.ndim == 4

    @property
    def variable_C(self) -> bool:
        return self.C.ndim == 4

    @property
    def group_B(self) -> int:
        """The groups of channels that share a B; a constant B has one for each channel."""
        return int(self.B.shape[1]) if self.variable_B else self.dim

    @property
    def group_C(self) -> int:
        """The groups of channels that share a C; a constant C has one for each channel."""
        return int(self.C.shape[1]) if self.variable_C else self.dim

    @property
    def fresh(self) -> Bool[np.ndarray, "batch length"]:
        """Where no state flows in: at t = 0 without an initial state, and where seq_idx changes."""
        fresh = np.zeros((self.batch, self.length), bool)
        fresh[:, :1] = self.initial_state is None
        if self.seq_idx is not None:
            fresh[:, 1:] |= self.seq_idx[:, 1:] != self.seq_idx[:, :-1]
        return fresh


class Reader:
    """Reads arguments in order: the first that names an axis sets its size, the first input sets the dtypes."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.leader = ""
        self.input, self.precision = "float64", "float64"
        self.is_complex = False

    def read(self, name: str, value: ArrayLike, kind: Kind, *layouts: str) -> np.ndarray:
        """The argument as an array of the dtype of its kind and of the layout that has its number of axes."""
        array, found = numeric_array(name, value, "real" if kind in ("input", "parameter") else "real or complex")
        self.check(name, array.shape, array.dtype.name, kind, *layouts, found=found)
        if kind in ("spectrum", "parameter") and not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"{name} is {array[where]} at {where}, expected finite values")
        return array

    def read_optional(self, name: str, value: ArrayLike | None, kind: Kind, layout: str) -> np.ndarray | None:
        return None if value is None else self.read(name, value, kind, layout)

    def argument(self, name: str, value: ArrayLike) -> np.ndarray:
        """The argument of a scan that has this name in :data:`ARGUMENTS`."""
        kind, layouts = ARGUMENTS[name]
        return self.read(name, value, kind, *layouts)

    def optional_argument(self, name: str, value: ArrayLike | None) -> np.ndarray | None:
        return None if value is None else self.argument(name, value)

    def check(self, name: str, shape: tuple[int, ...], dtype: str, kind: Kind, *layouts: str, found: str = "") -> None:
        """Check an argument's shape and the name of its dtype, `found` being the words for the latter."""
        layout = self._check_shape(name, shape, layouts)
        self._check_dtype(name, dtype, found or dtype, kind, varies=layout.startswith("batch"))

    def _check_shape(self, name: str, shape: tuple[int, ...], layouts: tuple[str, ...]) -> str:
        layout = next((axes for axes in layouts if len(axes.split()) == len(shape)), None)
        if layout is None:
            expected = " or ".join(_tuple(axes.split()) for axes in layouts)
            raise ValueError(f"{name} has shape {shape}, expected {expected}")
        axes = layout.split()
        for axis, size in zip(axes, shape, strict=True):
            if axis == "group":
                if size == 0 or self.sizes["dim"] % size:
                    raise ValueError(f"{name} has {size} groups, expected a divisor of dim = {self.sizes['dim']}")
            elif self.sizes.setdefault(axis, size) != size:
                sizes = _tuple([self.sizes.get(axis, axis) for axis in axes])
                raise ValueError(f"{name} has shape {shape}, expected {_tuple(axes)} = {sizes}")
        return layout

    def _check_dtype(self, name: str, dtype: str, found: str, kind: Kind, varies: bool) -> None:
        if kind == "index":
            if not dtype.startswith(("int", "uint")):
                raise TypeError(f"{name} has dtype {found}, expected an integer dtype")
            return
        if not self.leader:
            if dtype not in PRECISIONS:
                raise TypeError(f"{name} has dtype {found}, expected one of {', '.join(PRECISIONS)}")
            self.leader, self.input, self.precision = name, dtype, PRECISIONS[dtype]
        real, complex_ = self.precision, COMPLEX[self.precision]
        because = f"as {self.leader} has dtype {self.input}"
        if kind == "input":
            expected = [self.input]
        elif kind == "parameter":
            expected = [real]
        elif kind == "spectrum":
            expected = [real, complex_]
        else:
            because += f" and A is {'complex' if self.is_complex else 'real'}"
            if kind == "state":
                expected = [complex_ if self.is_complex else real]
            else:
                expected = [self.input if varies else real] + [complex_] * self.is_complex
        if dtype not in expected:
            raise TypeError(f"{name} has dtype {found}, expected {' or '.join(expected)}, {because}")
        if kind == "spectrum":
            self.is_complex = dtype == complex_


def make_problem(
    u: ArrayLike,
    delta: ArrayLike,
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None = None,
    z: ArrayLike | None = None,
    delta_bias: ArrayLike | None = None,
    delta_softplus: bool = False,
    *,
    initial_state: ArrayLike | None = None,
    seq_idx: ArrayLike | None = None,
    discretization: str = "mamba",
) -> Problem:
    """Validate and normalise the arguments of :func:`ssm_edu.selective_scan`.

    No size is refused: batch, length, dim and state may be 0. NaN in any argument but A, D and delta_bias
    propagates to the outputs that depend on it.

    Raises:
        TypeError: an argument's dtype is not the one that u's asks for, or is no number.
        ValueError: a shape that does not fit, groups that do not divide dim, a non-finite A, D or delta_bias,
            an integer past 2⁵³, an unknown discretization.
    """
    check_options(delta_softplus, discretization)
    reader = Reader()
    return Problem(
        u=reader.argument("u", u),
        delta=reader.argument("delta", delta),
        A=reader.argument("A", A),
        B=_with_groups(reader.argument("B", B)),
        C=_with_groups(reader.argument("C", C)),
        D=reader.optional_argument("D", D),
        z=reader.optional_argument("z", z),
        delta_bias=reader.optional_argument("delta_bias", delta_bias),
        delta_softplus=bool(delta_softplus),
        initial_state=reader.optional_argument("initial_state", initial_state),
        seq_idx=_read_seq_idx(seq_idx, reader),
        discretization=discretization,
    )


def read_cotangents(
    problem: Problem, grad_y: ArrayLike, grad_last_state: ArrayLike | None
) -> tuple[Float[np.ndarray, "batch dim length"], Inexact[np.ndarray, "batch dim state"] | None]:
    """Validate the gradients of y (u's shape and dtype) and of the last state (its shape and dtype)."""
    reader = Reader()
    reader.argument("u", problem.u)
    reader.argument("A", problem.A)
    return reader.argument("grad_y", grad_y), reader.optional_argument("grad_last_state", grad_last_state)


def numeric_array(name: str, value: ArrayLike, numbers: str = "real or complex") -> tuple[np.ndarray, str]:
    """The value as a floating or complex array in native byte order, and the name of the dtype that it came with."""
    if value is None:
        raise TypeError(f"{name} is None, expected {numbers} numbers")
    array = rectangular(name, value)
    if array.dtype.kind in "iu":
        return integers_as_float64(name, array), f"{array.dtype} (read as float64)"
    if array.dtype.kind not in "fc" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {array.dtype}, expected {numbers} numbers")
    return array, str(array.dtype)


def check_options(delta_softplus: Any, discretization: Any) -> None:
    check_flag("delta_softplus", delta_softplus)
    if not isinstance(discretization, str) or discretization not in DISCRETIZATIONS:
        raise ValueError(f"discretization is {discretization!r:.40}, expected one of {', '.join(DISCRETIZATIONS)}")


def check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r:.40}, expected True or False")


def _with_groups(array: np.ndarray) -> np.ndarray:
    return array[:, None] if array.ndim == 3 else array


def _read_seq_idx(seq_idx: ArrayLike | None, reader: Reader) -> np.ndarray | None:
    if seq_idx is None:
        return None
    array = rectangular("seq_idx", seq_idx)
    kind, layouts = ARGUMENTS["seq_idx"]
    reader.check("seq_idx", array.shape, array.dtype.name, kind, *layouts, found=str(array.dtype))
    return array


def _tuple(items: list[Any]) -> str:
    return "(" + ", ".join(str(item) for item in items) + ("," if len(items) == 1 else "") + ")"
