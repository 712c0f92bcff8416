"""A plugin for pytest: a failure is told when it happens, not only at the end, which a run cut short never reaches."""

from __future__ import annotations

from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = crash.message if crash is not None else str(report.longrepr)
        print(f"\n{report.nodeid}, {report.when}\n    " + "\n    ".join(said.splitlines()[:8]), flush=True)
