"""The oracle's answers for large cases, worked out in other processes while a GPU is timed.

A step costs it the same on one channel or on many, and 10⁵ steps take it most of a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from ssm_edu.bench.cases import Case
from ssm_edu.bench.device.contestants import bracketing
from ssm_edu.bench.device.judging import ChannelJudge
from ssm_edu.bench.judging import LARGEST_CHECK

JudgeOf = Callable[[Case], ChannelJudge]


@contextmanager
def judges(cases: Iterable[Case], directions: tuple[str, ...], processes: int = 0) -> Iterator[JudgeOf]:
    """Inside, the judge of each case; the large ones are informed in so many processes, the longest first."""
    large = {case for case in cases if case.elements > LARGEST_CHECK} if processes else set()
    if not large:
        yield ChannelJudge
        return
    # a fork would share the GPU's context
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        asked: dict[Case, Future[ChannelJudge]] = {
            case: pool.submit(informed, case, directions) for case in sorted(large, key=lambda case: -case.length)
        }
        try:
            yield lambda case: asked[case].result() if case in asked else ChannelJudge(case)
        finally:
            pool.shutdown(cancel_futures=True)


def informed(case: Case, directions: tuple[str, ...]) -> ChannelJudge:
    """A judge that knows the outputs and their bounds; the case's own arrays are left behind, too large to be sent."""
    judge = ChannelJudge(case)
    for direction in directions:
        judge.bounds(direction, bracketing(case)(judge.problem))
        _ = judge.scan if direction == "forward" else judge.gradients
    judge.case = judge.case.without_arrays()
    return judge
