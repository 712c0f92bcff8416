"""Numba kernels that are compiled once and kept on disk, whatever processes and threads do at the same time.

Numba keeps the kernels of one Python function, all its closures and signatures, in numbered files behind one index. It
takes the next number without a lock: two processes may take the same, and then the index leads from the key of one
kernel to the code of another, which a later process runs.

Here each kernel bears a name made of all that its code depends on, and Numba names its files after the function. Files
of one name hold one program: whoever writes last writes what was there. The name is the key in the index too, since
Numba's own holds random numbers where a closure holds an intrinsic: it is never met again.

Of processes that ask for one kernel at the same time, the ranks of a training run say, one compiles it and the others
wait for its files, where the system can lock a byte of one, and no longer than :data:`PATIENCE`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from threading import RLock
from time import monotonic, sleep
from types import CodeType, FunctionType, ModuleType, NoneType
from typing import Any

import llvmlite
import numba
import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0  # seconds; few kernels take ten

_kernels: dict[str, Any] = {}
_compiling = RLock()
if hasattr(os, "register_at_fork"):
    # a child of a process that is compiling would wait for ever for a thread that it does not have
    os.register_at_fork(
        before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_compiling.release
    )


def digest_of_files(*paths: str) -> str:
    """Of the sources that a kernel is made of. Take it where they are imported: they may be edited before the kernel is
    compiled."""
    return sha256(b"".join(sha256(Path(path).read_bytes()).digest() for path in paths)).hexdigest()


def compiled(
    jit: Callable[..., Any], function: Callable[..., Any], signature: Any, *depends_on: Any, **options: Any
) -> Any:
    """The dispatcher `jit(signature, cache=True, **options)(function)`, under a name of its own.

    The name covers the function's byte code and closure, the signature, the options, and the versions of Numba,
    llvmlite and NumPy. What else the code depends on stands in `depends_on`: the sources of the functions that it finds
    among its globals (:func:`digest_of_files`), and the processor that it is compiled for.

    Of two threads that ask for one kernel, one compiles it; a fork waits until no thread compiles. Where the cache
    cannot be read or written, the kernel is compiled without.

    Raises:
        TypeError: the closure, an option or `depends_on` holds an object that has no lasting description.
    """
    about = function, str(signature), depends_on, options, numba.__version__, llvmlite.__version__, np.__version__
    name = f"{function.__name__}_{sha256(repr(described(about)).encode()).hexdigest()[:24]}"
    key = f"{jit.__module__}.{jit.__qualname__} {name}"
    with _compiling:
        if key not in _kernels:
            try:
                _kernels[key] = _compile(jit, _renamed(function, name), signature, options, cached=True)
            except (OSError, RuntimeError, EOFError, UnpicklingError):
                _kernels[key] = _compile(jit, function, signature, options, cached=False)
        return _kernels[key]


def _compile(jit: Callable[..., Any], function: Any, signature: Any, options: dict[str, Any], cached: bool) -> Any:
    dispatcher = jit(**options)(function)
    if cached:
        dispatcher.enable_caching()
        cache = vars(dispatcher)["_cache"]
        cache._index_key = lambda signature, codegen: function.__qualname__
        with _alone(Path(cache.cache_path), function.__qualname__):
            dispatcher.compile(signature)
    else:
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """While no other process is in here for the same name, or after :data:`PATIENCE`.

    Each name has a byte of one file, whose lock the system gives back when the process ends, however it does.
    """
    byte = int(sha256(name.encode()).hexdigest()[:7], 16)
    try:
        file = (folder / "ssm_edu.lock").open("ab")
    except OSError:
        yield
        return
    with file:
        until = monotonic() + PATIENCE
        while fcntl is not None and monotonic() < until:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except BlockingIOError:
                sleep(0.01)
            except OSError:  # a file system without locks
                break
            else:
                break
        yield


def _renamed(function: Any, name: str) -> FunctionType:
    twin = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__qualname__, twin.__module__, twin.__doc__ = name, function.__module__, function.__doc__
    return twin


def described(x: Any) -> Any:
    """What tells x from other values, in this process and in the next: numbers, strings and tuples of these.

    Functions, compiled or not, are their byte code and what they close over.

    Raises:
        TypeError: an object of a type that is not known here.
    """
    x = getattr(x, "py_func", getattr(x, "_defn", x))  # of a dispatcher, of an intrinsic
    match x:
        case NoneType() | bool() | int() | float() | complex() | str() | bytes():
            return x
        case np.dtype() | np.generic() | numba.types.Type():
            return type(x).__name__, repr(x)
        case np.ndarray():
            return str(x.dtype), x.shape, x.tobytes()
        case type():
            return x.__module__, x.__qualname__
        case ModuleType():
            return x.__name__
        case FunctionType():
            cells = [cell.cell_contents for cell in x.__closure__ or ()]
            return x.__module__, x.__qualname__, described((x.__code__, x.__defaults__, x.__kwdefaults__, cells))
        case CodeType():
            return described((x.co_code, x.co_names, x.co_varnames, x.co_freevars, x.co_consts))
        case tuple() | list():
            return type(x).__name__, tuple(described(item) for item in x)
        case set() | frozenset():
            return "set", tuple(sorted(repr(described(item)) for item in x))
        case dict():
            return "dict", tuple(sorted(repr((described(k), described(v))) for k, v in x.items()))
    if is_dataclass(x):
        return type(x).__qualname__, described({f.name: getattr(x, f.name) for f in fields(x)})
    raise TypeError(f"a kernel depends on a {type(x).__name__}, {x!r}, which has no description that lasts")
