"""Hypothesis strategies for problems, and how a failing problem is made simpler."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from ssm_edu.selective.problem import DISCRETIZATIONS
from ssm_edu.testing.recipes import FEATURES, IDS, STEPS, VALUES, Arguments, Recipe, features_of, fill, fitted

# Tiles are powers of two: their borders, the sizes beside them, and primes.
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 11, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 127, 129)
STATES = (1, 2, 3, 4, 16, 17)


@st.composite
def problems(
    draw: Callable[..., Any],
    features: Collection[str] = FEATURES,
    *,
    max_length: int = 129,
    dtype: str = "float32",
    **fixed: Any,
) -> Arguments:
    """Problems of every size and kind within the features, as keyword arguments of `selective_scan`.

        >>> @given(problem=problems(FEATURES - {"z"}, max_length=33, steps="strong"))
        ... def test_my_scan(problem): my_scan(**problem)

    Args:
        features: what the problems may use, of :data:`FEATURES`.
        max_length: no longer than this.
        dtype: of u.
        **fixed: fields of :class:`Recipe` that are not drawn.
    """
    return fill(draw(recipes(features, max_length=max_length, dtype=dtype, **fixed)))


@st.composite
def recipes(
    draw: Callable[..., Any], features: Collection[str], *, max_length: int, dtype: str, **fixed: Any
) -> Recipe:
    """Recipes of problems; only a few choices each, so that drawing and shrinking are fast."""
    asked = [g for g in (fixed.get("groups_B"), fixed.get("groups_C")) if g]
    dim = draw(st.sampled_from([d for d in (1, 2, 3, 4, 6) if all(d % g == 0 for g in asked)]))
    size = (
        draw(st.integers(1, 3)),
        dim,
        draw(st.sampled_from(STATES)),
        draw(st.sampled_from([length for length in LENGTHS if length <= max_length])),
    )
    groups = st.sampled_from([0, None, *(g for g in (1, 2, 3) if dim % g == 0)])
    names = ("is_complex", "complex_maps", "D", "z", "delta_bias", "delta_softplus", "initial_state")
    rules = [rule for rule in DISCRETIZATIONS if rule in features]
    drawn = Recipe(
        seed=draw(st.integers(0, 2**16)),
        shape=fixed.get("shape", size),
        dtype=dtype,
        groups_B=fixed["groups_B"] if "groups_B" in fixed else draw(groups),
        groups_C=fixed["groups_C"] if "groups_C" in fixed else draw(groups),
        sequences=draw(st.sampled_from([0, 0, 2, 5])),
        ids=draw(st.sampled_from(IDS)),
        discretization=draw(st.sampled_from(rules)),
        steps=draw(st.sampled_from(STEPS)),
        values=draw(st.sampled_from(VALUES)),
        **{name: draw(st.booleans()) for name in names},
    )
    return fitted(drawn.changed(**fixed), features)


def simpler(recipe: Recipe) -> Iterator[Recipe]:
    """Recipes that are one step simpler, the boldest steps first."""
    for axis, size in reversed(list(enumerate(recipe.shape))):
        for smaller in sorted({1, 2, 3, size // 4, size // 2, size - size // 4, size - size // 16, size - 1}):
            if 0 < smaller < size:
                sizes = {"shape": (*recipe.shape[:axis], smaller, *recipe.shape[axis + 1 :])}
                yield recipe.changed(**sizes, **(_dividing(recipe, smaller) if axis == 1 else {}))
    for seed in range(min(recipe.seed, 4)):
        yield recipe.changed(seed=seed)
    for field in fields(recipe):
        if field.name not in ("seed", "shape", "dtype") and getattr(recipe, field.name) != field.default:
            yield recipe.changed(**{field.name: field.default})


def _dividing(recipe: Recipe, dim: int) -> dict[str, Any]:
    """Groups that divide a smaller dim: the same where they do, else one."""
    return {name: 1 for name in ("groups_B", "groups_C") if (groups := getattr(recipe, name)) and dim % groups}


def shrink(
    recipe: Recipe,
    fails: Callable[[Recipe], bool],
    features: Collection[str],
    fixed: Collection[str],
    seconds: float,
) -> Recipe:
    """The simplest failing recipe that steps of :func:`simpler` reach in the time.

    Hypothesis shrinks only what it drew itself and knows no limit but minutes; this starts from any recipe.
    """
    end = time.monotonic() + seconds
    tried = {recipe}
    found: Recipe | None = recipe
    while found is not None:
        recipe, found = found, None
        for candidate in simpler(recipe):
            kept = all(getattr(candidate, name) == getattr(recipe, name) for name in fixed)
            if candidate in tried or not kept or not features_of(candidate) <= set(features):
                continue
            if time.monotonic() > end:
                return recipe
            tried.add(candidate)
            if fails(candidate):
                found = candidate
                break
    return recipe
