"""Hypothesis profiles: `dev` (the default), `ci`, and `nightly` for many more examples."""

import os
import shutil
from collections.abc import Iterator

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

# Numba reads them when it is imported. Without a GPU its CUDA target is of use only as a simulator; with one, the tests
# of kernels run on it, and in the simulator if NUMBA_ENABLE_CUDASIM=1 is set
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")  # warnings are errors, and tests are small
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share a GPU

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("dev", max_examples=48, **COMMON)
settings.register_profile("ci", max_examples=48, derandomize=True, print_blob=True, **COMMON)
settings.register_profile("nightly", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture
def no_type_checks() -> Iterator[None]:
    """Without run-time type checks, as users run it: in half of the time or less. Most tests have them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
