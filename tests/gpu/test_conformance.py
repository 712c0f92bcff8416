"""The conformance kit on a real GPU, with arrays of several libraries."""

from importlib.util import find_spec

import pytest

import ssm_edu
from ssm_edu import bounds
from ssm_edu.testing.registry import PROPERTIES
from ssm_edu.testing.runner import check_property, make_implementation
from tests import kernel_runs
from tests.kits import KITS

if kernel_runs.NO_GPU:
    pytest.skip(kernel_runs.NO_GPU, allow_module_level=True)


def scan(*args, **kwargs):
    return ssm_edu.selective_scan(*args, backend="cuda", **kwargs)


def adjoint(*args, **kwargs):
    return ssm_edu.selective_scan_backward(*args, backend="cuda", **kwargs)


def implementation(kit, forward=scan, backward=adjoint):
    options = {name: value for name, value in KITS[kit].items() if name != "max_examples"}
    if find_spec(options["framework"]) is None:
        pytest.skip(f"{options['framework']} is not installed")
    arithmetic = bounds.FLOAT64 if options["dtype"] == "float64" else bounds.FLOAT32_APPROX
    return make_implementation(forward, backward, arithmetic=arithmetic, algorithm="any", **options)


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("kit", KITS)
def test_conformance(kit, name):
    result = check_property(PROPERTIES[name], implementation(kit), KITS[kit]["max_examples"])
    if result.status == "skipped":
        pytest.skip(result.message)
    assert result.status == "passed", str(result)


def test_the_kit_fails_a_wrong_scan():
    def wrong(*args, **kwargs):
        return scan(*args, **kwargs | {"delta_softplus": not kwargs.get("delta_softplus", False)})

    name = next(iter(PROPERTIES))
    assert check_property(PROPERTIES[name], implementation("numpy, all of float32", wrong), 2).status == "failed"
