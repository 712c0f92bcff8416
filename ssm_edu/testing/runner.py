"""Checks an implementation of the selective scan, one property after the other."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection
from importlib import import_module
from math import ceil
from typing import TYPE_CHECKING, Any

import hypothesis

from ssm_edu.testing.frameworks import get_framework
from ssm_edu.testing.implementation import ALGORITHM, Failure, Implementation, WrongForm
from ssm_edu.testing.recipes import FEATURES, FEW_STATES, INPUT_DTYPES, Arguments, Recipe, features_of, fill, fitted
from ssm_edu.testing.registry import PROPERTIES, Property
from ssm_edu.testing.report import NOT_TRIED, Report, Result
from ssm_edu.testing.strategies import recipes, shrink

if TYPE_CHECKING:
    from ssm_edu.bounds import Arithmetic

MAX_EXAMPLES = 60
SHRINK_SECONDS = 10.0

for kind in ("forward", "state", "symmetry", "backward", "run"):
    import_module(f"ssm_edu.testing.{kind}_properties")  # enters its properties in the registry


def check(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    step: Callable[..., Any] | None = None,
    framework: str = "numpy",
    dtype: str = "float32",
    features: Collection[str] | None = None,
    without: Collection[str] = (),
    max_examples: int = MAX_EXAMPLES,
    device: str | None = None,
    arithmetic: Arithmetic | None = None,
    algorithm: str = ALGORITHM,
    chunk: int | None = None,
    properties: Collection[str] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> Report:
    """Property-test a selective scan, and shrink what fails to a problem of a few numbers.

        >>> report = check(my_scan, my_scan_backward, framework="torch", device="cuda", without={"complex", "seq_idx"})
        >>> print(report)
        >>> assert report.ok

    Always the same problems are tried. Tolerances are the bounds of :mod:`ssm_edu.bounds` for a scan by `algorithm`.
    What the functions raise is a failure, and so is `sys.exit`; the first that takes other arguments or returns other
    things than it should is the last that is tried. Nothing is reported of a function that ends the process in another
    way, by `os._exit` or a segmentation fault.

    Args:
        forward: called as `ssm_edu.selective_scan` is, with u, delta, A, B and C by position and of the others by
            name only those that a problem has. With the feature `last_state` it is asked to return (y, last_state).
        backward: called as `ssm_edu.selective_scan_backward`. It may return an object with fields, a mapping, or a
            tuple in the order of its fields.
        step: called as `ssm_edu.selective_step`.
        framework: whose arrays are passed and expected: `numpy`, `torch`, `cupy` or `jax`.
        dtype: of u: `float16`, `bfloat16`, `float32` or `float64`; the others follow as in `ssm_edu.selective_scan`.
        features: what `forward` supports, of :data:`FEATURES`; all if None. Properties that need others are
            skipped, and problems are drawn without them.
        without: features that it lacks.
        max_examples: problems for a property; some take a multiple.
        device: the framework's name for one, such as `cuda:0`.
        arithmetic: what rounds, such as :data:`ssm_edu.bounds.FLOAT32_APPROX` for CUDA's fast functions; if None,
            float64 for dtype float64 and float32 for the others.
        algorithm: how `forward` and `backward` scan; for scans that do, the bound is a theorem (ROUND-7, ROUND-10).
            `sequential`: step by step. `tree`: Blelloch's, Hillis and Steele's, and whatever adds to a term
            2 log₂ length times at most; scans step by step or by chunks stay inside as well, unless their
            exponential is as bad as is allowed. `chunked`: by chunks of `chunk` steps, scanned in any order within
            and among chunks. `any`: in whatever order; the widest.
        chunk: steps in a chunk, for `chunked` and only then; nobody else can know it.
        properties: names of those to check; all if None.
        on_result: called with each :class:`Result` as it comes.

    Raises:
        ValueError: an unknown framework, dtype, feature, property or algorithm, features that leave no B, C or rule,
            or a chunk that is missing, below 1, or given to a scan that has none.
        ImportError: the framework is not installed.
        TypeError: forward, backward or step cannot be called, or a chunk that is no integer.
    """
    implementation = make_implementation(
        forward,
        backward,
        step=step,
        framework=framework,
        dtype=dtype,
        features=features,
        without=without,
        device=device,
        arithmetic=arithmetic,
        algorithm=algorithm,
        chunk=chunk,
    )
    results: list[Result] = []
    for one in select(properties):
        stopped = any(result.wrong_form for result in results)
        skipped = Result(one.name, one.reason, "skipped", NOT_TRIED)
        results.append(skipped if stopped else check_property(one, implementation, max_examples))
        if on_result is not None:
            on_result(results[-1])
    return Report(results)


def make_implementation(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    step: Callable[..., Any] | None = None,
    framework: str = "numpy",
    dtype: str = "float32",
    features: Collection[str] | None = None,
    without: Collection[str] = (),
    device: str | None = None,
    arithmetic: Arithmetic | None = None,
    algorithm: str = ALGORITHM,
    chunk: int | None = None,
) -> Implementation:
    """The implementation that these arguments of :func:`check` describe; errors as there."""
    for name, function in (("forward", forward), ("backward", backward), ("step", step)):
        if not callable(function) and not (function is None and name != "forward"):
            raise TypeError(f"{name} is {function!r:.60}, expected a function")
    if dtype not in INPUT_DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(INPUT_DTYPES)}")
    for name, given in (("features", features), ("without", without)):
        if isinstance(given, str):
            raise TypeError(f"{name} is the string {given!r}, expected a set of names")
    unknown = {*(features or ()), *without} - FEATURES
    if unknown:
        raise ValueError(f"unknown feature {', '.join(sorted(unknown))}; expected of {', '.join(sorted(FEATURES))}")
    has = frozenset(FEATURES if features is None else features) - frozenset(without)
    for wanted in ({"variable_B", "constant_B"}, {"variable_C", "constant_C"}, {"mamba", "zoh", "bilinear"}):
        if not wanted & has:
            raise ValueError(f"features has none of {', '.join(sorted(wanted))}, expected at least one")
    _check_bracketing(algorithm, chunk)
    arrays = get_framework(framework, dtype, device)
    return Implementation(forward, backward, step, arrays, dtype, has, arithmetic, algorithm, chunk)


def _check_bracketing(algorithm: str, chunk: int | None) -> None:
    from ssm_edu.bounds import most_additions

    most_additions(algorithm, 1 if chunk is None else chunk, 1)
    if algorithm == "chunked" and chunk is None:
        raise ValueError("chunk is None, expected the steps in a chunk, as algorithm is 'chunked'")
    if algorithm != "chunked" and chunk is not None:
        raise ValueError(f"chunk is {chunk}, expected None, as algorithm is {algorithm!r} and not 'chunked'")


def select(names: Collection[str] | None) -> list[Property]:
    """The properties of these names, in order."""
    unknown = set(names or ()) - set(PROPERTIES)
    if unknown:
        raise ValueError(f"unknown property {', '.join(sorted(unknown))}; expected of {', '.join(PROPERTIES)}")
    return [one for name, one in PROPERTIES.items() if names is None or name in names]


def check_property(one: Property, implementation: Implementation, max_examples: int = MAX_EXAMPLES) -> Result:
    """Try the corners, then what Hypothesis draws; shrink the first failure."""
    missing = one.missing(implementation)
    if missing:
        return Result(one.name, one.reason, "skipped", missing)
    start, tried = time.perf_counter(), 0
    failed: list[Recipe] = []

    def attempt(recipe: Recipe) -> Failure | None:
        nonlocal tried
        tried += 1
        try:
            one.holds_of(implementation, fill(recipe))
        except Failure as failure:
            return failure
        return None

    # Fixed by the seed, which differs from property to property; shrinking is ours.
    @hypothesis.seed(zlib.crc32(one.name.encode()))
    @hypothesis.settings(
        max_examples=max(1, ceil(one.share * max_examples)),
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        recipes(implementation.features, max_length=one.max_length, dtype=implementation.dtype, **one.fixed)
    )
    def draw(recipe: Recipe) -> None:
        if not failed and attempt(recipe):
            failed.append(recipe)

    for corner in one.corners:
        recipe = fitted(Recipe(dtype=implementation.dtype, **corner, **one.fixed), implementation.features)
        if attempt(recipe):
            failed.append(recipe)
            break
    if not failed and one.share > 0:
        draw()
    seconds = time.perf_counter() - start
    if not failed:
        return Result(one.name, one.reason, "passed", examples=tried, seconds=seconds)
    count = tried
    recipe = shrink(failed[0], lambda r: bool(attempt(r)), implementation.features, set(one.fixed), SHRINK_SECONDS)
    failure = attempt(recipe)
    message = str(failure or "failed once and not again: its results vary from run to run")
    if "many_states" in features_of(recipe):
        message += f"; a scan of at most {FEW_STATES} states is checked --without many_states"
    return Result(
        one.name,
        one.reason,
        "failed",
        message,
        _code(one, recipe, implementation),
        count,
        time.perf_counter() - start,
        isinstance(failure, WrongForm),
    )


def replay(name: str, problem: Arguments, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Check one property on one problem: what a counterexample calls.

    Args:
        name: of the property.
        problem: from :func:`problem_from`.
        forward: and whatever else :func:`check` was given.

    Raises:
        Failure: the property does not hold.
        ValueError: an unknown property.
    """
    [one] = select([name])
    dtype = problem.recipe.dtype
    one.holds_of(make_implementation(forward, *args, **{"dtype": dtype} | kwargs), problem)


def _code(one: Property, recipe: Recipe, tested: Implementation) -> str:
    functions = ["forward", *(["backward"] if tested.backward else []), *(["step=step"] if tested.step else [])]
    options: dict[str, tuple[Any, Any]] = {
        "framework": (tested.framework.name, "numpy"),
        "device": (tested.framework.device, None),
        "without": (sorted(FEATURES - tested.features), []),
        "algorithm": (tested.algorithm, ALGORITHM),
        "chunk": (tested.chunk, None),
    }
    given = [f"{name}={value!r}" for name, (value, plain) in options.items() if value != plain]
    imports = "from ssm_edu.testing import problem_from, replay\n"
    if tested.arithmetic is not None:
        name = _name_in_bounds(tested.arithmetic)
        given.append(f"arithmetic={name or 'arithmetic'}")
        imports = f"from ssm_edu import bounds\n{imports}" if name else imports
    return f"{imports}problem = {recipe}\nreplay({one.name!r}, problem, {', '.join(functions + given)})"


def _name_in_bounds(arithmetic: Arithmetic) -> str:
    """The constant of :mod:`ssm_edu.bounds` that it is; empty for one of the caller's own."""
    from ssm_edu import bounds

    return next((f"bounds.{name}" for name in bounds.__all__ if getattr(bounds, name) is arithmetic), "")
