"""Problems from a few numbers: a seed, a shape, the options in use, and how large the numbers are.

A failing problem is then told in one line that can be pasted and that rebuilds every array of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ssm_edu.selective.problem import DISCRETIZATIONS

Array = np.ndarray
if TYPE_CHECKING:
    Shape = tuple[int, ...]
else:  # a type checker at run time would draw the item that it checks, which Hypothesis forbids inside a strategy
    Shape = tuple

INPUT_DTYPES = ("float16", "bfloat16", "float32", "float64")
STEPS = ("plain", "initial", "tiny", "strong", "decades", "tails", "zeros", "growth", "unstable")
IDS = ("rising", "falling", "returning", "large")
VALUES = ("simple", "normal", "decades", "large", "small", "zeros", "subnormal")
FEATURES = frozenset(
    {
        "variable_B",
        "constant_B",
        "variable_C",
        "constant_C",
        "groups",
        "unequal_groups",
        "complex",
        "D",
        "z",
        "delta_bias",
        "softplus",
        "initial_state",
        "last_state",
        "grad_last_state",
        "seq_idx",
        "mamba",
        "zoh",
        "bilinear",
        "deterministic",
        "strided",
        "nan",
        "subnormals",
        "many_states",
    }
)
# What most kernels hold on a chip; a scan of more states has the feature `many_states`.
FEW_STATES = 256


@dataclass(frozen=True)
class Recipe:
    """All that a problem is made from.

    Attributes:
        seed: of the generator that fills the arrays, each from a stream of its own.
        shape: (batch, dim, state, length).
        dtype: of u, `float16`, `bfloat16`, `float32` or `float64`; a bfloat16 problem holds float32 arrays of
            numbers that bfloat16 has.
        groups_B: None for a constant B, 0 for (batch, state, length), else (batch, groups_B, state, length).
        groups_C: likewise.
        is_complex: whether A is complex; complex_maps: whether B and C are, too.
        D, z, delta_bias, delta_softplus, initial_state: whether the problem has them.
        sequences: how many are packed in a row, at most; 0 for no seq_idx.
        ids: their numbers in seq_idx. `rising` 0, 1, 2, …, `falling` 0, −1, −2, …, `returning` 1, −1, 1, …, `large`
            from 2²⁴ on, apart by 1, which float32 cannot tell, and by 2¹⁶, which 8 and 16 bits cannot.
        discretization: `mamba`, `zoh` or `bilinear`.
        steps: how large Δ is, with |A| in (0.1, 10). `plain` (0.1, 1), `initial` (1e-3, 1e-1), `tiny` (1e-9, 1e-4),
            `strong` (1, 1e3), `decades` (1e-6, 1e3), `tails` Δ in (0, 80) or softplus of (−80, 80), `zeros` half of
            them ±0, `growth` slightly negative, `unstable` as small and positive, but with A > 0.
        values: of every other array. `simple` halves, `normal`, `decades` 1e±6, `large` 1e8, `small` 1e-8,
            `zeros` many ±0, `subnormal` some below the smallest normal number.
    """

    seed: int = 0
    shape: Shape = (1, 1, 1, 1)
    dtype: str = "float32"
    groups_B: int | None = 0
    groups_C: int | None = 0
    is_complex: bool = False
    complex_maps: bool = False
    D: bool = False
    z: bool = False
    delta_bias: bool = False
    delta_softplus: bool = False
    initial_state: bool = False
    sequences: int = 0
    ids: str = "rising"
    discretization: str = "mamba"
    steps: str = "plain"
    values: str = "simple"

    def __post_init__(self) -> None:
        for name, known in (
            ("dtype", INPUT_DTYPES),
            ("ids", IDS),
            ("discretization", DISCRETIZATIONS),
            ("steps", STEPS),
            ("values", VALUES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        if len(self.shape) != 4 or min(self.shape) < 0:
            raise ValueError(f"shape is {self.shape}, expected (batch, dim, state, length)")
        for name in ("groups_B", "groups_C"):
            groups = getattr(self, name)
            if groups and self.shape[1] % groups:
                raise ValueError(f"{name} is {groups}, expected a divisor of dim = {self.shape[1]}")

    def changed(self, **others: Any) -> Recipe:
        """With other values of these fields."""
        return replace(self, **others)

    def __str__(self) -> str:
        changed = [f for f in fields(self) if f.name in ("seed", "shape") or getattr(self, f.name) != f.default]
        return f"problem_from({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"


class Arguments(dict[str, Any]):
    """The arguments of a scan by name, and the recipe of which they are made."""

    def __init__(self, recipe: Recipe, arrays: dict[str, Any]) -> None:
        super().__init__(arrays)
        self.recipe = recipe

    def __repr__(self) -> str:
        return str(self.recipe)


def problem_from(seed: int = 0, shape: Shape = (1, 1, 1, 1), **options: Any) -> Arguments:
    """The arguments of `selective_scan` that a recipe stands for, always the same ones.

        >>> problem = problem_from(seed=3, shape=(2, 4, 16, 33), z=True, discretization="zoh")
        >>> y = ssm_edu.selective_scan(**problem)

    Args:
        seed: see :class:`Recipe`.
        shape: (batch, dim, state, length).
        **options: the other fields of :class:`Recipe`.

    Raises:
        TypeError: an unknown option.
        ValueError: an unknown choice of one, a shape without four sizes, groups that do not divide dim.
    """
    return fill(Recipe(seed, shape, **options))


def features_of(recipe: Recipe) -> set[str]:
    """What an implementation must support to be given the problem."""
    r = recipe
    used = {
        "constant_B" if r.groups_B is None else "variable_B",
        "constant_C" if r.groups_C is None else "variable_C",
        r.discretization,
    }
    switches = {
        "groups": bool(r.groups_B or r.groups_C),
        # a constant map counts as one group
        "unequal_groups": (r.groups_B or 1) != (r.groups_C or 1),
        "complex": r.is_complex,
        "D": r.D,
        "z": r.z,
        "delta_bias": r.delta_bias,
        "softplus": r.delta_softplus,
        "initial_state": r.initial_state,
        "seq_idx": r.sequences > 0,
        "subnormals": r.values == "subnormal",
        "many_states": r.shape[2] > FEW_STATES,
    }
    return used | {name for name, on in switches.items() if on}


def fitted(recipe: Recipe, features: Collection[str]) -> Recipe:
    """The recipe without what the features lack."""
    r = recipe
    for name, plain in (
        ("complex", {"is_complex": False, "complex_maps": False}),
        ("D", {"D": False}),
        ("z", {"z": False}),
        ("delta_bias", {"delta_bias": False}),
        ("softplus", {"delta_softplus": False}),
        ("initial_state", {"initial_state": False}),
        ("seq_idx", {"sequences": 0, "ids": "rising"}),
        ("many_states", {"shape": (*r.shape[:2], min(r.shape[2], FEW_STATES), r.shape[3])}),
    ):
        r = r if name in features else r.changed(**plain)
    for name in ("B", "C"):
        groups = getattr(r, f"groups_{name}")
        if groups and "groups" not in features:
            groups = 0
        if f"variable_{name}" not in features:
            groups = None
        elif groups is None and f"constant_{name}" not in features:
            groups = 0
        r = r.changed(**{f"groups_{name}": groups})
    if "unequal_groups" not in features and "unequal_groups" in features_of(r):
        most = max(r.groups_B or 1, r.groups_C or 1)
        maps = {"groups_B": r.groups_B, "groups_C": r.groups_C}
        both_vary = None not in maps.values()
        r = r.changed(**{name: g if g is None else most if both_vary else 0 for name, g in maps.items()})
    if r.discretization not in features:
        r = r.changed(discretization=next(rule for rule in DISCRETIZATIONS if rule in features))
    return r.changed(values="zeros") if r.values == "subnormal" and "subnormals" not in features else r


def fill(recipe: Recipe) -> Arguments:
    """Draw the arrays."""
    r = recipe
    batch, dim, state, length = r.shape
    parameter = _parameter(r)
    states = np.result_type(parameter, np.complex64) if r.is_complex else parameter
    arrays: dict[str, Any] = {"u": rounded(draw_values(r, "u", (batch, dim, length)), r)}
    bias = _stream(r, "delta_bias").choice([-0.5, -0.25, 0.5, 1.0], dim) if r.delta_bias else np.zeros(0)
    delta = _steps(r)
    if r.delta_softplus and r.steps != "tails":
        delta = np.maximum(np.abs(delta), 1e-13)
        delta = delta + np.log(-np.expm1(-delta))
    arrays["delta"] = rounded(delta - bias[:, None] if r.delta_bias else delta, r)
    arrays["A"] = _spectrum(r).astype(states)
    arrays["B"] = _draw_map(r, "B", r.groups_B)
    arrays["C"] = _draw_map(r, "C", r.groups_C)
    if r.D:
        arrays["D"] = draw_values(r, "D", (dim,), parameter)
    if r.z:
        arrays["z"] = rounded(np.clip(draw_values(r, "z", (batch, dim, length)), -200, 200), r)
    if r.delta_bias:
        arrays["delta_bias"] = bias.astype(parameter)
    if r.delta_softplus:
        arrays["delta_softplus"] = True
    if r.initial_state:
        arrays["initial_state"] = draw_values(r, "initial_state", (batch, dim, state), states)
    if r.sequences:
        arrays["seq_idx"] = _sequence_ids(r)
    if r.discretization != "mamba":
        arrays["discretization"] = r.discretization
    return Arguments(recipe, arrays)


def draw_values(recipe: Recipe, name: str, shape: Shape, dtype: Any = np.float64) -> Array:
    """An array of the recipe's values, from the stream that bears its name."""
    rng = _stream(recipe, name)
    if np.dtype(dtype).kind == "c":
        return (_values(recipe, rng, shape) + 1j * _values(recipe, rng, shape)).astype(dtype)
    return _values(recipe, rng, shape).astype(dtype)


def _parameter(recipe: Recipe) -> np.dtype:
    return np.dtype("float64" if recipe.dtype == "float64" else "float32")


def _draw_map(r: Recipe, name: str, groups: int | None) -> Array:
    batch, dim, state, length = r.shape
    middle = () if groups == 0 else (groups,)
    shape = (dim, state) if groups is None else (batch, *middle, state, length)
    if r.is_complex and r.complex_maps:
        return draw_values(r, name, shape, np.result_type(_parameter(r), np.complex64))
    return draw_values(r, name, shape, _parameter(r)) if groups is None else rounded(draw_values(r, name, shape), r)


def rounded(array: Array, recipe: Recipe) -> Array:
    """The array in the recipe's dtype; for bfloat16, the nearest of its numbers as float32."""
    if recipe.dtype != "bfloat16":
        return array.astype(recipe.dtype)
    bits = array.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.astype(np.uint32).view(np.float32)


def _stream(recipe: Recipe, name: str) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, *name.encode()])


def _log_uniform(rng: np.random.Generator, low: float, high: float, shape: Shape) -> Array:
    return np.exp(rng.uniform(np.log(low), np.log(high), shape))


def _values(recipe: Recipe, rng: np.random.Generator, shape: Shape) -> Array:
    # Products of four values must stay below float16's 65504, or float32's 3e38 after sums and steps of 1e3.
    decades = 0.5 if recipe.dtype == "float16" else 6
    special = {
        "zeros": [0.0, -0.0],
        "subnormal": [0.0, -0.0, 3e-6, -6e-8] if recipe.dtype == "float16" else [0.0, -0.0, 1e-40, -1e-40, 1e-30],
    }
    make: dict[str, Callable[[], Array]] = {
        "simple": lambda: rng.choice([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0], shape),
        "normal": lambda: rng.normal(size=shape),
        "decades": lambda: rng.normal(size=shape) * 10 ** rng.uniform(-decades, decades, shape),
        "large": lambda: rng.normal(size=shape) * 10 ** (4 / 3 * decades),
        "small": lambda: rng.normal(size=shape) * 10 ** (-4 / 3 * decades),
    }
    if recipe.values in make:
        return make[recipe.values]()
    return np.where(rng.random(shape) < 0.5, rng.choice(special[recipe.values], shape), rng.normal(size=shape))


def _steps(recipe: Recipe) -> Array:
    batch, dim, _, length = recipe.shape
    rng, shape = _stream(recipe, "delta"), (batch, dim, length)
    ranges = {
        "plain": (0.1, 1),
        "initial": (1e-3, 1e-1),
        "tiny": (1e-9, 1e-4),
        "strong": (1, 1e3),
        "decades": (1e-6, 1e3),
    }
    if recipe.steps in ranges:
        return _log_uniform(rng, *ranges[recipe.steps], shape)
    match recipe.steps:
        case "tails":
            return rng.uniform(-80 if recipe.delta_softplus else 0, 80, shape)
        case "zeros":
            return np.where(rng.random(shape) < 0.5, rng.choice([0.0, -0.0], shape), rng.uniform(0.1, 1, shape))
        case _:
            # Over the whole length, growth by at most exp(0.3 · 10).
            size = rng.uniform(0, 0.3, shape) / max(length, 1)
            return size if recipe.steps == "unstable" else -size


def _sequence_ids(recipe: Recipe) -> Array:
    batch, _, _, length = recipe.shape
    k = np.sort(_stream(recipe, "seq_idx").integers(0, recipe.sequences, (batch, length), np.int32), axis=1)
    match recipe.ids:
        case "falling":
            return -k
        case "returning":
            return 1 - k % 2 * 2
        case "large":
            return 2**24 + (k + 1) // 2 + k // 2 * 2**16
        case _:
            return k


def _spectrum(recipe: Recipe) -> Array:
    _, dim, state, _ = recipe.shape
    rng, shape = _stream(recipe, "A"), (dim, state)
    if recipe.values == "simple":
        rates, turns = rng.choice([0.25, 0.5, 1.0, 2.0], shape), rng.choice([-1.0, -0.5, 0.5, 1.0], shape)
    else:
        rates = np.where(rng.random(shape) < 0.05, 0.0, _log_uniform(rng, 0.1, 10, shape))
        turns = rng.uniform(-3, 3, shape)
    rates = -rates if recipe.steps == "unstable" else rates
    return -rates + 1j * turns if recipe.is_complex else -rates
