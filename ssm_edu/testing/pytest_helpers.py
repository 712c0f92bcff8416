"""A pytest test for each property."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ssm_edu.testing.runner import MAX_EXAMPLES, check_property, make_implementation, select


def conformance_tests(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    max_examples: int = MAX_EXAMPLES,
    properties: Collection[str] | None = None,
    **options: Any,
) -> Callable[[str], None]:
    """A parametrised test, one case for each property. In a test file:

        >>> from ssm_edu.testing import conformance_tests
        >>> test_conformance = conformance_tests(my_scan, my_scan_backward, without={"complex"})
        >>> test_by_chunks = conformance_tests(my_scan, algorithm="chunked", chunk=256)

    Args:
        forward: and every other argument as in :func:`check`.

    Raises:
        As :func:`check`, but that ImportError skips the tests: a missing framework is no failure.
    """
    import pytest

    chosen = {one.name: one for one in select(properties)}

    @pytest.mark.parametrize("name", chosen)
    def test_conformance(name: str) -> None:
        try:
            implementation = make_implementation(forward, backward, **options)
        except ImportError as error:
            pytest.skip(str(error))
        result = check_property(chosen[name], implementation, max_examples)
        if result.status == "skipped":
            pytest.skip(result.message)
        if result.status == "failed":
            pytest.fail(str(result), pytrace=False)

    return test_conformance
