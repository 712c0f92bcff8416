"""Arrays of NumPy, PyTorch, CuPy and JAX: made from NumPy's and read back. Each is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

FRAMEWORKS = ("numpy", "torch", "cupy", "jax")


@dataclass(frozen=True)
class Framework:
    """A framework's door; `device` is its own name for one, such as `cuda:0`."""

    name: str
    module: ModuleType
    device: str | None

    def from_numpy(self, array: np.ndarray, dtype: str) -> Any:
        """A copy of the array with the framework's dtype of that name, on the device."""
        match self.name:
            case "torch":
                return self.module.from_numpy(array.copy()).to(self.device or "cpu", getattr(self.module, dtype))
            case "jax":
                devices = self.module.devices(self.device)
                return self.module.device_put(self.module.numpy.asarray(array, dtype=dtype), devices[0])
            case "cupy":
                with self.module.cuda.Device(int((self.device or "cuda:0").rpartition(":")[2])):
                    return self.module.array(array, dtype)
            case _:
                return array.astype(dtype)

    def to_numpy(self, name: str, value: Any) -> tuple[np.ndarray, str]:
        """The value as a NumPy array, bfloat16 as float32, and its dtype's name.

        Raises:
            TypeError: the value is not an array of this framework.
        """
        expected = {"torch": "Tensor", "jax": "Array"}.get(self.name, "ndarray")
        if not isinstance(value, getattr(self.module, expected)):
            raise TypeError(f"{name} is a {_type_name(value)}, expected a {self.name}.{expected}")
        dtype = str(value.dtype).removeprefix("torch.")
        if self.name == "torch":
            value = value.detach().cpu()
            value = (value.float() if dtype == "bfloat16" else value.resolve_conj().resolve_neg()).numpy()
        elif self.name == "cupy":
            value = self.module.asnumpy(value)
        elif self.name == "jax":
            value = np.array(value.astype("float32") if dtype == "bfloat16" else value)  # JAX's own view is read-only
        return np.asarray(value, np.float32 if dtype == "bfloat16" else None), dtype

    @contextmanager
    def nan_for_empty(self) -> Iterator[None]:
        """Inside, the framework's `empty` and `empty_like` give arrays of NaN, wherever they hold floats."""

        def poisoned(make: Callable[..., Any]) -> Callable[..., Any]:
            def empty(*args: Any, **kwargs: Any) -> Any:
                array = make(*args, **kwargs)
                if str(array.dtype).removeprefix("torch.").startswith(("float", "bfloat", "complex")):
                    array[...] = float("nan")
                return array

            return empty

        with ExitStack() as stack:
            for name in ("empty", "empty_like") if self.name != "jax" else ():
                stack.enter_context(patch.object(self.module, name, poisoned(getattr(self.module, name))))
            yield


def get_framework(name: str, dtype: str, device: str | None) -> Framework:
    """The framework of that name.

    Raises:
        ValueError: an unknown framework, or a dtype or device that it has not.
        ImportError: it is not installed.
    """
    if name not in FRAMEWORKS:
        raise ValueError(f"framework is {name!r}, expected one of {', '.join(FRAMEWORKS)}")
    try:
        module = import_module(name)
    except ImportError as error:
        raise ImportError(f"framework {name!r} cannot be imported: {error}") from error
    if dtype == "bfloat16" and name in ("numpy", "cupy") and not _numpy_has("bfloat16"):
        raise ValueError(f"dtype is 'bfloat16', which {name} has not before ml_dtypes is imported")
    if name == "numpy" and device not in (None, "cpu"):
        raise ValueError(f"device is {device!r}, but numpy has only the CPU")
    if name == "cupy" and device is not None and not device.startswith("cuda"):
        raise ValueError(f"device is {device!r}, but cupy has only CUDA devices, such as 'cuda:0'")
    if name == "jax" and dtype == "float64" and not module.config.jax_enable_x64:
        raise ValueError("dtype is 'float64', for which jax must be told: jax.config.update('jax_enable_x64', True)")
    return Framework(name, module, device)


def _numpy_has(dtype: str) -> bool:
    try:
        return np.dtype(dtype).name == dtype
    except TypeError:
        return False


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
