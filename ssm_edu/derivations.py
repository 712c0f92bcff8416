"""Find, load and run the derivation scripts: `derivations/` in a checkout, `ssm_edu/_derivations/` in a wheel."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ssm_edu.ledger import Claim, Result, claims_of
from ssm_edu.names import unknown

# The order in which they are read: from the differential equation to the scan, to the models that are one, to its
# gradient and its rounding; at last the two articles, statement by statement.
READING_ORDER = (
    "zero_order_hold",
    "phi_functions",
    "discretisation_error",
    "stability",
    "convolution",
    "hippo",
    "selectivity",
    "associative_scan",
    "gated_rnns",
    "attention_as_ssm",
    "state_space_duality",
    "complexity",
    "adjoint",
    "rounding_error",
    "articles",
)


def folder() -> Path:
    """Where the scripts are.

    Raises:
        FileNotFoundError: neither a checkout nor an installed wheel.
    """
    package = Path(__file__).parent
    for candidate in (package / "_derivations", package.parent / "derivations"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no derivations beside {package}: reinstall ssm-edu")


def names() -> list[str]:
    """Every derivation's name, in reading order."""
    found = {path.stem for path in folder().glob("*.py")}
    return [name for name in READING_ORDER if name in found] + sorted(found - set(READING_ORDER))


def load(name: str) -> ModuleType:
    """Import a derivation by name, without checking its claims.

    Raises:
        ValueError: no derivation of that name.
    """
    if message := unknown("derivation", [name], names(), _the_derivations()):
        raise ValueError(message)
    qualified = f"ssm_edu_derivations.{name}"
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, folder() / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[qualified] = module
        spec.loader.exec_module(module)
    return sys.modules[qualified]


def _the_derivations() -> str:
    return f"the derivations are {', '.join(names())}"


def select(wanted: list[str]) -> list[Claim]:
    """The claims of these derivations, or with these IDs; all of them when none is named.

    Raises:
        ValueError: neither a derivation nor a claim's ID.
    """
    claims = [one for name in names() for one in claims_of(vars(load(name)))]
    keys = names() + [one.id for one in claims]
    if message := unknown("derivation or claim", wanted, keys, _the_derivations()):
        raise ValueError(message)
    return [one for one in claims if not wanted or one.id in wanted or one.derivation in wanted]


def _check(derivation: str, id: str) -> Result:
    return next(one for one in claims_of(vars(load(derivation))) if one.id == id).check()


def run(claims: list[Claim], jobs: int | None = None) -> Iterator[Result]:
    """Check claims, in `jobs` processes (one a core by default), and yield their results in the claims' order."""
    jobs = min(jobs or os.cpu_count() or 1, len(claims))
    if jobs <= 1:
        yield from (one.check() for one in claims)
        return
    # fork would copy whatever threads the caller runs; spawn is the same on every platform
    context = multiprocessing.get_context("spawn")
    with _one_blas_thread_each(), ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(_check, [one.derivation for one in claims], [one.id for one in claims])


@contextmanager
def _one_blas_thread_each() -> Iterator[None]:
    """The processes started meanwhile do linear algebra on one core: more would get in one another's way."""
    before = {name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
