"""The conformance kit: property tests for anybody's selective scan.

    >>> from ssm_edu.testing import check
    >>> print(check(my_scan, my_scan_backward, framework="torch", device="cuda", without={"complex"}))

or one line in a test file, which makes a test of each property:

    >>> test_conformance = conformance_tests(my_scan, my_scan_backward)

or `ssm-edu check mykernel:scan --backward mykernel:scan_backward` in a shell.
"""

from __future__ import annotations

from ssm_edu.testing.implementation import Failure, WrongForm
from ssm_edu.testing.pytest_helpers import conformance_tests
from ssm_edu.testing.recipes import FEATURES, Arguments, Recipe, problem_from
from ssm_edu.testing.registry import PROPERTIES, Property
from ssm_edu.testing.report import Report, Result
from ssm_edu.testing.runner import check, check_property, make_implementation, replay
from ssm_edu.testing.strategies import problems

__all__ = [
    "FEATURES",
    "PROPERTIES",
    "Arguments",
    "Failure",
    "Property",
    "Recipe",
    "Report",
    "Result",
    "WrongForm",
    "check",
    "check_property",
    "conformance_tests",
    "make_implementation",
    "problem_from",
    "problems",
    "replay",
]
