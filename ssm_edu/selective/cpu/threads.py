"""Run a compiled loop over independent tasks on all cores.

The loops release the GIL, so threads of our own do, and unlike Numba's they may be called from many threads at once and
after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

# parts a thread: more than one, so that a slow core does not hold up the rest
PARTS = 4


def cores() -> int:
    """The cores that this process may use; `NUMBA_NUM_THREADS` lowers it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, int(os.environ.get("NUMBA_NUM_THREADS", usable))))


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="ssm_edu")


def share_out(loop: Callable[..., None], tasks: int, *arguments: Any) -> None:
    """loop(first, last, *arguments) over [0, tasks), in parts; a task's result must not depend on its part."""
    parts = min(tasks, PARTS * cores())
    if cores() == 1 or parts <= 1:
        loop(0, tasks, *arguments)
        return
    borders = [tasks * part // parts for part in range(parts + 1)]
    pool = _pool(os.getpid())  # a forked child starts its own: threads do not survive a fork
    futures = [pool.submit(loop, a, b, *arguments) for a, b in pairwise(borders)]
    for future in futures:
        future.result()
