"""The conformance kits that a GPU is tried with: each problem may take kernels of its own, so they are few."""

from typing import Any

MOST = ("many_states",)  # the cuda backend takes at most 256
PLAIN = (*MOST, "complex", "zoh", "bilinear", "constant_B", "constant_C")
KITS: dict[str, dict[str, Any]] = {
    "torch, all of float32": {
        "framework": "torch", "dtype": "float32", "max_examples": 2, "device": "cuda", "without": MOST,
    },
    "numpy, all of float32": {"framework": "numpy", "dtype": "float32", "max_examples": 2, "without": MOST},
    "torch, plain float32": {
        "framework": "torch", "dtype": "float32", "max_examples": 20, "device": "cuda", "without": PLAIN,
    },
    "torch, plain bfloat16": {
        "framework": "torch", "dtype": "bfloat16", "max_examples": 10, "device": "cuda", "without": PLAIN,
    },
    "cupy, all of float32": {
        "framework": "cupy", "dtype": "float32", "max_examples": 2, "device": "cuda:0", "without": MOST,
    },
    "torch, all of float64": {
        "framework": "torch", "dtype": "float64", "max_examples": 1, "device": "cuda", "without": MOST,
    },
}  # fmt: skip
