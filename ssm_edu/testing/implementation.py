"""Somebody's selective scan, called as `ssm_edu.selective_scan` is, and what its outputs may differ from.

Outputs are dictionaries of arrays by name, found, expected and tolerated ones alike.
"""

from __future__ import annotations

import inspect
import os
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssm_edu.selective import Gradients, reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.testing.frameworks import Framework
from ssm_edu.testing.paths import from_here
from ssm_edu.testing.recipes import FEATURES, Array

HOME = os.path.dirname(__file__) + os.sep
Outputs = dict[str, Array]
Arrays = Mapping[str, Any]

INPUTS = ("u", "delta", "A", "B", "C")
IN_INPUT_DTYPE = ("u", "delta", "z", "grad_y")
# Of a scan of which nobody says how it scans. For a tree this bound is a theorem. A chain of additions, step by step or
# in chunks, rounds once more a step than it counts, and it grants the decay of each step several roundings; `chunked`
# and `any` are theorems for chains, too, but up to 40 times as wide.
ALGORITHM = "tree"


class Failure(AssertionError):
    """An implementation does not do what it should."""


class WrongForm(Failure):
    """It takes other arguments, or returns something else, than is asked for: no number of it can be compared."""


@dataclass(frozen=True)
class Implementation:
    """The functions under test and how to call them.

    Attributes:
        forward: called as `ssm_edu.selective_scan`; backward as `selective_scan_backward`, step as `selective_step`.
        dtype: of u. features: what `forward` takes.
        arithmetic: of the bounds.
        algorithm: of :mod:`ssm_edu.bounds`; chunk: its steps in a chunk, None for any but `chunked`.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    step: Callable[..., Any] | None
    framework: Framework
    dtype: str
    features: frozenset[str]
    arithmetic: Any
    algorithm: str = ALGORITHM
    chunk: int | None = None

    @property
    def bracketing(self) -> dict[str, Any]:
        """How it scans, as the bounds are told."""
        return {"algorithm": self.algorithm} | ({} if self.chunk is None else {"chunk": self.chunk})

    def scan(self, kwargs: Arrays) -> Outputs:
        """y, and with the feature `last_state` the last state, by the implementation."""
        return self.scan_given(self.given(kwargs), kwargs)

    def scan_given(self, given: dict[str, Any], kwargs: Arrays) -> Outputs:
        """:meth:`scan`, of arrays that are the framework's already."""
        both = "last_state" in self.features
        options = {name: value for name, value in given.items() if name not in INPUTS}
        returned = self.call(
            "forward",
            self.forward,
            *(given[n] for n in INPUTS),
            **options,
            **{"return_last_state": True} if both else {},
        )
        if not both:
            return {"y": self.read("y", returned, np.shape(kwargs["u"]), self.dtype)}
        if not isinstance(returned, tuple | list) or len(returned) != 2:
            raise WrongForm(f"forward returned {_describe(returned)}, expected (y, last_state)")
        A = kwargs["A"]
        return {
            "y": self.read("y", returned[0], np.shape(kwargs["u"]), self.dtype),
            "last_state": self.read("last_state", returned[1], (*kwargs["u"].shape[:2], A.shape[1]), A.dtype.name),
        }

    def gradients(self, kwargs: Arrays, grad_y: Array, grad_last_state: Array | None = None) -> Outputs:
        """The gradient of every input by the implementation."""
        more = {} if grad_last_state is None else {"grad_last_state": grad_last_state}
        return self.gradients_given(self.given({"grad_y": grad_y, **kwargs, **more}), kwargs)

    def gradients_given(self, given: dict[str, Any], kwargs: Arrays) -> Outputs:
        """:meth:`gradients`, of arrays that are the framework's already."""
        assert self.backward is not None
        options = {name: value for name, value in given.items() if name not in (*INPUTS, "grad_y")}
        returned = self.call("backward", self.backward, given["grad_y"], *(given[n] for n in INPUTS), **options)
        return {
            f"gradient of {name}": self.read(
                f"gradient of {name}", _field(returned, name), kwargs[name].shape, self.dtype_of(name, kwargs[name])
            )
            for name in Gradients._fields
            if kwargs.get(name) is not None
        }

    def given(self, kwargs: Arrays) -> dict[str, Any]:
        """The arguments in the framework's arrays; copies."""
        return {
            name: self.framework.from_numpy(value, self.dtype_of(name, value))
            if isinstance(value, np.ndarray)
            else value
            for name, value in kwargs.items()
            if value is not None
        }

    def dtype_of(self, name: str, array: Array) -> str:
        """The dtype in which an argument is handed over: bfloat16 problems are held in float32."""
        narrow = name in IN_INPUT_DTYPE or (name in ("B", "C") and array.ndim > 2 and array.dtype.kind != "c")
        return self.dtype if narrow else array.dtype.name

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            with np.errstate(all="ignore"):
                return function(*args, **kwargs)
        except (Exception, SystemExit) as error:
            where, undeclared = _where(error), self._undeclared(error)
            does_not_fit = undeclared or (isinstance(error, TypeError) and not where)
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise (WrongForm if does_not_fit else Failure)(f"{what} raised {said}{where}{undeclared}") from error

    def _undeclared(self, error: BaseException) -> str:
        """What to declare when a function does not know an argument: all at once, with what is declared already."""
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not isinstance(error, TypeError) or unknown is None or unknown[1] not in FEATURES_OF_ARGUMENTS:
            return ""
        arguments = {unknown[1]} | _not_taken(self.forward, {"grad_last_state"})
        if self.backward is not None:
            arguments |= _not_taken(self.backward, {"return_last_state"})
        lacks = (FEATURES - self.features).union(*(FEATURES_OF_ARGUMENTS[name] for name in arguments))
        return f"; a scan that takes no such thing is checked --without {','.join(sorted(lacks))}"

    def read(self, name: str, value: Any, shape: tuple[int, ...], dtype: str) -> Array:
        """An output as a NumPy array, if it is what it should be."""
        try:
            array, found = self.framework.to_numpy(name, value)
        except TypeError as error:
            raise WrongForm(str(error)) from None
        if array.shape != shape:
            raise WrongForm(f"{name} has shape {array.shape}, expected {shape}")
        if found != dtype:
            raise WrongForm(f"{name} has dtype {found}, expected {dtype}")
        return array

    def scan_tolerance(self, kwargs: Arrays) -> Outputs:
        """How far :meth:`scan` may lie from the exact outputs (claims ROUND-7 to ROUND-12)."""
        from ssm_edu import bounds

        y, last = bounds.forward(make_problem(**kwargs), self.arithmetic, stored=self.dtype, **self.bracketing)
        return {"y": y, "last_state": last}

    def gradients_tolerance(self, kwargs: Arrays, grad_y: Array, grad_last_state: Array | None = None) -> Outputs:
        """How far :meth:`gradients` may lie from the exact ones (claims ROUND-7 to ROUND-12)."""
        from ssm_edu import bounds

        problem = make_problem(**kwargs)
        seen, options = (grad_y, grad_last_state), self.bracketing
        return _named(bounds.backward(problem, *seen, self.arithmetic, stored=self.dtype, **options), kwargs)


# The features without which an argument is not passed.
FEATURES_OF_ARGUMENTS = {
    "return_last_state": ("last_state",),
    "initial_state": ("initial_state",),
    "grad_last_state": ("grad_last_state",),
    "seq_idx": ("seq_idx",),
    "discretization": ("zoh", "bilinear"),
    "delta_softplus": ("softplus",),
    "delta_bias": ("delta_bias",),
    "D": ("D",),
    "z": ("z",),
}


def _not_taken(function: Callable[..., Any], never_given: set[str]) -> set[str]:
    """The arguments that a function would be given and whose names its signature has not; none if it cannot be read."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return set()
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return set()
    return set(FEATURES_OF_ARGUMENTS) - set(parameters) - never_given


def _where(error: BaseException) -> str:
    """The innermost line that is not the kit's own; there is none where the call itself does not fit."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(HOME)]
    return f" ({from_here(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


def oracle_scan(kwargs: Arrays) -> Outputs:
    """y and the last state by the reference, in double precision."""
    y, last = reference.selective_scan(make_problem(**kwargs))
    return {"y": y, "last_state": last}


def oracle_gradients(kwargs: Arrays, grad_y: Array, grad_last_state: Array | None = None) -> Outputs:
    """Every gradient by the reference, in double precision."""
    return _named(reference.selective_scan_backward(make_problem(**kwargs), grad_y, grad_last_state), kwargs)


def assert_close(found: Outputs, expected: Outputs, tolerance: Outputs, what: str = "") -> None:
    """Every output that is found is within its tolerance.

    Raises:
        Failure: for the element that is farthest out, in units of its tolerance.
    """
    for name, array in found.items():
        want, bound = expected[name], tolerance[name]
        limit = np.finfo(array.dtype).max
        with np.errstate(all="ignore"):
            error = np.abs(array.astype(np.promote_types(array.dtype, np.float64)) - want)
            overflows = ~np.isfinite(array) & ~np.isnan(array) & (np.abs(want) + bound >= limit)
            within = (error <= bound) | overflows | ~np.isfinite(bound) | ~np.isfinite(want)
            ratio = np.where(within, 0, np.where(np.isfinite(error), error / np.maximum(bound, 1e-300), np.inf))
        if within.all():
            continue
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(ratio), ratio.shape))
        raise Failure(
            f"{name}[{', '.join(map(str, worst))}] is {array[worst]:.9g}, expected {want[worst]:.9g} "
            f"± {bound[worst]:.2g}{f' ({what})' if what else ''}"
        )


def total(*tolerances: Outputs) -> Outputs:
    """The sum of bounds: what two outputs that are both inexact may differ by."""
    return {name: sum((np.asarray(t[name]) for t in tolerances[1:]), tolerances[0][name]) for name in tolerances[0]}


def scaled(factor: float, outputs: Outputs) -> Outputs:
    return {name: factor * array.astype(np.promote_types(array.dtype, np.float64)) for name, array in outputs.items()}


def _named(gradients: Gradients, kwargs: Arrays) -> Outputs:
    """The gradients of the inputs that were given, in the shapes in which these were given."""
    return {
        f"gradient of {name}": value.reshape(kwargs[name].shape)
        for name, value in gradients._asdict().items()
        if value is not None
    }


def _field(returned: Any, name: str) -> Any:
    """A gradient from a mapping, from attributes, or from a tuple in the order of `Gradients`."""
    if isinstance(returned, Mapping):
        found = returned.get(name)
    elif hasattr(returned, name):
        found = getattr(returned, name)
    elif isinstance(returned, tuple | list) and len(returned) == len(Gradients._fields):
        found = returned[Gradients._fields.index(name)]
    else:
        raise WrongForm(
            f"backward returned {_describe(returned)}, expected fields or keys {', '.join(Gradients._fields)}"
        )
    if found is None:
        raise WrongForm(f"backward returned no gradient of {name}")
    return found


def _describe(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{size}"
