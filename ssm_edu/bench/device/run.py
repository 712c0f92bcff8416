"""Judge, then time: a report from contestants, on one GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

from ssm_edu.bench.cases import Case
from ssm_edu.bench.contestants import Contestant
from ssm_edu.bench.device import contestants
from ssm_edu.bench.device.gpu import Gpu
from ssm_edu.bench.device.judging import ChannelJudge
from ssm_edu.bench.device.oracle import JudgeOf, judges
from ssm_edu.bench.results import Report, Result

# (batch, dim, length, state) and groups: Mamba's layers as people run them, small batches, long sequences, and what
# is unlike them.
SHAPES = (
    *((batch, dim, length, 16, 1) for batch, dim, length in (
        (8, 2048, 2048),
        (8, 1536, 2048),
        (1, 5120, 2048),
        (1, 1024, 2048),
        (1, 1024, 16384),
        (1, 1024, 131072),
        (1, 1536, 65536),
        (64, 768, 512),
        (2, 768, 8192),
    )),
    (8, 2048, 2048, 64, 1),
    (8, 2048, 2048, 16, 8),
)  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16", "float64")
LADDER = Case(8, 2048, 2048, 16)
MOST_COPIES = 64

Told = Callable[[str], None]


def case_of(shape: tuple[int, int, int, int, int], format: str) -> Case:
    batch, dim, length, state, group = shape
    if format == "bfloat16":
        return Case(batch, dim, length, state, group=group, stored=format)
    return Case(batch, dim, length, state, format, group=group)


def measure(contestant: Contestant, judge: ChannelJudge, case: Case, gpu: Gpu) -> Result:
    """Judge a contestant on the judge's channels, then time it on the case itself.

    The inputs lie in so many copies that none is still in the L2 cache when its turn comes; those of a very small
    case stay there. Whatever is raised is a wrong answer.
    """
    result = Result(contestant.name, contestant.direction, contestant.ours, replace(case))
    if (reason := contestant.available()) is not None:
        return replace(result, skipped=reason)
    assert contestant.outputs is not None
    try:
        found = contestant.outputs(contestant.prepare(judge.case)())
        verdict = judge.verdict(contestant, found)
        del found
        result = result.judged(verdict, judge.checked(contestant.direction))
        copies = min(1 + -(-2 * gpu.cache_bytes // result.work.bytes), MOST_COPIES)
        timing = gpu.time([contestant.prepare(case) for _ in range(copies)])
    except Exception as error:
        raised = judge.wrong("", f"raised {type(error).__name__}: {error}")
        return result.judged(raised, result.checked)
    finally:
        gpu.release()
    return replace(
        result,
        median=median(timing.times),
        best=min(timing.times),
        runs=len(timing.times),
        launch=timing.launch,
        host_ahead=timing.host_ahead,
    )


def results(given: Case, directions: tuple[str, ...], gpu: Gpu, tell: Told, judge_of: JudgeOf) -> list[Result]:
    """Ours, with saved states too, and `mamba_ssm`'s on a case."""
    case, found = replace(given), []  # its arrays go when it does
    judge = judge_of(case)
    judge.case.share_arguments(case)
    several = (contestants.ours, contestants.saving, contestants.mamba_ssm)
    for contestant in [one for found_of in several for one in found_of(gpu, case)]:
        if contestant.direction in directions:
            tell(f"{case.batch}, {case.dim}, {case.length} {case.format} {contestant.name} {contestant.direction}")
            found.append(measure(contestant, judge, case, gpu))
    judge.case = judge.case.without_arrays()  # it may be asked again
    return found


def ladder(directions: tuple[str, ...], gpu: Gpu, tell: Told, judge_of: JudgeOf) -> Iterator[Result]:
    """Every rung, on :data:`LADDER`."""
    judge = judge_of(LADDER)
    judge.case.share_arguments(LADDER)
    for contestant in contestants.rungs(gpu, LADDER):
        if contestant.direction in directions:
            tell(f"ladder {contestant.name} {contestant.direction}")
            yield measure(contestant, judge, LADDER, gpu)


def reports(
    cases: Sequence[Case],
    directions: tuple[str, ...],
    gpu: Gpu,
    tell: Told,
    *,
    with_ladder: bool = False,
    processes: int = 0,
) -> Iterator[Report]:
    """A report that grows: one more case each time, then one more rung. The rates are measured first.

    So many `processes` work out what the oracle says of large cases.
    """
    with judges([*cases, *([LADDER] if with_ladder else [])], directions, processes) as judge_of:
        tell("rates")
        found = Report(datetime.now(UTC).isoformat(timespec="seconds"), gpu.describe(), gpu.rates(), ())
        yield found
        for case in cases:
            found = replace(found, results=(*found.results, *results(case, directions, gpu, tell, judge_of)))
            yield found
        for rung in ladder(directions, gpu, tell, judge_of) if with_ladder else ():
            found = replace(found, ladder=(*found.ladder, rung))
            yield found
