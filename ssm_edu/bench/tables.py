"""The Markdown of what was measured: generated from the kept reports in docs/benchmarks, and nowhere typed in.

    python -m ssm_edu.bench.tables            # what is stale; exit code 1 if anything is
    python -m ssm_edu.bench.tables --write    # bring it up to date

docs/benchmarks/README.md is generated whole. In README.md and docs/notes.md, the lines between `<!-- bench:begin -->`
and `<!-- bench:end -->` are; `<!-- bench:begin NAME -->` asks for docs/benchmarks/NAME.json, and without a name it is
the newest report. `<!-- bench:beside -->` asks for our times beside those of :mod:`ssm_edu.bench.given`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from ssm_edu.bench.cases import Case
from ssm_edu.bench.contestants import DIRECTIONS
from ssm_edu.bench.given import FILE, Given
from ssm_edu.bench.results import OURS, SAVING, THEIRS, Report, Result, speedup

MARKED = re.compile(
    r"(?P<begin><!-- bench:(?:begin(?: (?P<name>[\w.-]+))?|(?P<beside>beside)) -->\n).*?(?P<end><!-- bench:end -->)",
    re.DOTALL,
)
FOLDER = Path("docs/benchmarks")
MARKED_FILES = ("README.md", "docs/notes.md")
WAITED = "the time may hold some of the host's, which did not keep ahead of the GPU"
NO_ROOM = "the GPU's memory ran out before a time was taken"


def shape_text(case: Case) -> str:
    """`8, 2048, 2048`, and where they are not Mamba's, the number of states and of groups."""
    text = f"{case.batch}, {case.dim}, {case.length}"
    text += f"; state {case.state}" if case.state != 16 else ""
    return text + (f"; group {case.group}" if case.group != 1 else "")


def figures(number: float, digits: int = 3) -> str:
    """`0.0413`, `0.372`, `1.60`, `12.1`: as many significant digits; `1234` without an exponent."""
    return f"{number:.0f}" if number >= 10**digits - 0.5 else f"{number:#.{digits}g}".rstrip(".")


def milliseconds(seconds: float) -> str:
    return figures(seconds * 1e3)


def time_cell(result: Result | None) -> str:
    """The median, struck out where the result is outside its bound."""
    if result is None or result.skipped:
        return "–"
    if result.out_of_memory:
        return "no memory ²"
    if result.median is None:
        return "✗"
    text = milliseconds(result.median)
    mark = " ³" if result.name == SAVING and result.direction == "backward" else ""
    if result.ours and result.ok is not True:
        return f"~~{text}~~ ✗{mark}"
    return text + ("" if result.host_ahead else " ¹") + mark


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table; the first columns are words, the others figures."""
    rule = ["---"] * words + ["--:"] * (len(header) - words)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def summary(report: Report) -> str:
    """A row for each case: time and floor in milliseconds, share of the floor, and how often as fast as `mamba_ssm`.

    The last only where that was timed at all.
    """
    compared = report.measured(THEIRS)
    header = ["batch, dim, length", "dtype"]
    for direction in DIRECTIONS:
        header += [f"{direction}, ms", "floor", "of floor", *([f"× {THEIRS}"] if compared else [])]
    rows = []
    for case in report.cases:
        cells = [shape_text(case), case.format]
        for direction in DIRECTIONS:
            ours = report.ours(direction, case)
            shown = ours if ours is not None and ours.shown else None
            share = None if shown is None else report.floor_share(shown)
            cells += [
                time_cell(ours),
                "–" if ours is None else milliseconds(ours.work.floor(report.rates)),
                "–" if share is None else f"{share:.0%}",
            ]
            if compared:
                faster = speedup(shown, report.find(THEIRS, direction, case))
                cells.append("–" if faster is None else f"{faster:.2f}")
        rows.append(cells)
    return markdown(header, rows, words=2) + footnote(report.results) + saved_text(report)


def saved_text(report: Report) -> str:
    """What saving states costs forward and brings backward; empty where none were saved."""

    def ratios(way: str) -> list[float]:
        found = [speedup(report.find(OURS, way, case), report.find(SAVING, way, case)) for case in report.cases]
        return [ratio for ratio in found if ratio is not None]

    known = {way: ratios(way) for way in DIRECTIONS}
    said = [f"{way} takes {min(all_):.2f} to {max(all_):.2f} times as long" for way, all_ in known.items() if all_]
    opening = "\n³ From states that the forward pass saved for it, as under autograd. With saved states "
    return f"{opening}{' and '.join(said)}.\n" if said else ""


def footnote(results: Sequence[Result]) -> str:
    waited = any(result.median is not None and not result.host_ahead for result in results)
    no_room = any(result.out_of_memory for result in results)
    return "".join(f"\n{mark}.\n" for mark, said in ((f"¹ {WAITED}", waited), (f"² {NO_ROOM}", no_room)) if said)


def absent(results: Sequence[Result]) -> str:
    """Who was not measured on how many of the cases, and why; empty where all were."""
    of_all = Counter(result.name for result in results)
    skipped = Counter((result.name, result.skipped) for result in results if result.skipped)
    parts = [f"`{name}` in {n} of {of_all[name]} rows: {reason}" for (name, reason), n in skipped.items()]
    return f"\nNot measured: {'; '.join(parts)}.\n" if parts else ""


def details(report: Report, results: Sequence[Result]) -> str:
    """A row for each result that is there: how far from the oracle and on what, times, and what it takes at least."""
    header = ["", "direction", "batch, dim, length", "dtype", "error/bound"]
    header += ["median, ms", "min, ms", "launch, µs", "MB", "10⁹ exp", "floor, ms", "floor is", "of floor", "checked"]
    rows = []
    for result in results:
        if result.skipped:
            continue
        work, share = result.work, report.floor_share(result) if result.shown else None
        rows.append(
            (
                result.name,
                result.direction,
                shape_text(result.case),
                result.case.format,
                "–" if result.ratio is None else f"{figures(result.ratio, 2)}{'' if result.ok else ' ✗'}",
                time_cell(result),
                "–" if result.best is None else milliseconds(result.best),
                "–" if result.launch is None else f"{result.launch * 1e6:.0f}",
                figures(work.bytes / 1e6, 4),
                figures(work.exponentials / 1e9),
                milliseconds(work.floor(report.rates)),
                work.limit(report.rates),
                "–" if share is None else f"{share:.0%}",
                result.checked,
            )
        )
    return markdown(header, rows, words=4) + footnote(results) + absent(results)


def machine_text(report: Report) -> str:
    """A paragraph: the GPU, its measured rates, the day and the versions."""
    machine, rates = report.machine, report.rates
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['gpu']} ({machine['multiprocessors']} multiprocessors, compute capability "
        f"{machine['compute_capability']}), {report.date[:10]}. Measured beside the scans: a copy moves "
        f"{rates.bytes_per_second / 1e12:.2f} TB/s, reads and writes counted, and `ex2.approx` takes "
        f"{rates.exponentials_per_second / 1e12:.2f}·10¹² exponentials a second. CUDA {machine['cuda']}; "
        f"{machine['cpu']}; Python {machine['python']}; {packages}.\n"
    )


def beside(report: Report, given: Given) -> str:
    """A row for each shape that was given: our times and those of `mamba_ssm`, in milliseconds."""
    columns = [(dtype, way) for dtype in dict.fromkeys(case.format for case in report.cases) for way in DIRECTIONS]
    cases = {(shape_text(case), case.format): case for case in report.cases}
    rows, shown = [], []
    for shape, theirs in given.milliseconds.items():
        cells = [shape]
        for dtype, way in columns:
            case = cases.get((shape, dtype))
            ours = None if case is None else report.ours(way, case)
            cells += [time_cell(ours), str(theirs.get(dtype, {}).get(way, "–"))]
            shown += [] if ours is None else [ours]
        rows.append(cells)
    header = ["batch, dim, length", *(name for dtype, way in columns for name in (f"{dtype} {way}", THEIRS))]
    table = markdown(header, rows, words=1) + footnote(shown) + saved_text(report)
    return f"{table}\nMilliseconds. `{THEIRS}`: {given.gpu}, {given.date}; {given.source}.\n"


def given_text(report: Report, given: Given) -> str:
    """A sentence on the first row; empty where no such time was given."""
    case = report.cases[0]
    found = given.milliseconds.get(shape_text(case), {}).get(case.format)
    if found is None:
        return ""
    times = " and ".join(f"{found[way]} ms {way}" for way in DIRECTIONS)
    return f"\nIn the first row `{THEIRS}`'s CUDA C++ took {times}, on a GPU of the same kind ({given.date}).\n"


def page(reports: dict[str, Report], drawn: Collection[str] = ()) -> str:
    """docs/benchmarks/README.md; `drawn` are the names of the reports that have a figure beside them."""
    parts = [
        "# Benchmarks\n\nGenerated by `python -m ssm_edu.bench.tables --write` from the reports beside it, which "
        "`ssm-edu bench --device cuda --json FILE` writes. With D, z, delta_bias and softplus; 16 states in one group "
        "unless a row says otherwise. Every time is a median by CUDA events, its inputs out of the cache, after the "
        "result was checked against the oracle: error/bound is the worst error in units of the derived bound on it. "
        "The floor is the larger of the bytes that must move over the bandwidth of a copy, and the exponentials over "
        "the rate of `ex2.approx`; softplus and the gate are left out of it.\n"
    ]
    for name, report in reports.items():
        parts.append(f"## {name}\n\n{machine_text(report)}\n{summary(report)}")
        if name in drawn:
            parts.append(f"![Time against floor]({name}.svg)\n")
        parts.append(f"<details><summary>All figures</summary>\n\n{details(report, report.results)}\n</details>\n")
        if report.ladder:
            parts.append(f"### The ladder\n\n{details(report, report.ladder)}")
    return "\n".join(parts)


def kept(root: Path) -> dict[str, Report]:
    """The reports in docs/benchmarks by name, the newest first."""
    files = sorted(path for path in (root / FOLDER).glob("*.json") if path.name != FILE)
    found = {path.stem: Report.load(path) for path in files}
    return dict(sorted(found.items(), key=lambda item: item[1].date, reverse=True))


def spliced(text: str, reports: dict[str, Report], given: Given | None = None) -> str:
    """The text with today's tables between its markers.

    Raises:
        ValueError: a marker asks for what is not there.
    """

    def table(match: re.Match[str]) -> str:
        if match["beside"] and given is None:
            raise ValueError(f"{match['begin'].strip()}: {FOLDER / FILE} is not there")
        name = given.report if given and match["beside"] else match["name"] or next(iter(reports))
        if name not in reports:
            raise ValueError(f"{match['begin'].strip()}: found no report {name}, expected one of {', '.join(reports)}")
        report = reports[name]
        if given and match["beside"]:
            return match["begin"] + beside(report, given) + match["end"]
        theirs = given_text(report, given) if given and given.report == name else ""
        return f"{match['begin']}{summary(report)}\n{machine_text(report)}{theirs}{match['end']}"

    return MARKED.sub(table, text)


def up_to_date(root: Path) -> dict[Path, str]:
    """Every generated file, and what it should hold; none while no report is kept."""
    reports = kept(root)
    if not reports:
        return {}
    file = root / FOLDER / FILE
    given = Given.load(file) if file.exists() else None
    drawn = {path.stem for path in (root / FOLDER).glob("*.svg")}
    marked = [root / name for name in MARKED_FILES if (root / name).exists()]
    texts = {path: spliced(path.read_text("utf-8"), reports, given) for path in marked}
    return texts | {root / FOLDER / "README.md": page(reports, drawn)}


def stale(root: Path) -> list[Path]:
    return [path for path, text in up_to_date(root).items() if not path.exists() or path.read_text("utf-8") != text]


def main(arguments: Sequence[str], root: Path) -> int:
    """0 if nothing is stale, or nothing any longer."""
    if set(arguments) - {"--write"}:
        print(__doc__)
        return 2
    texts, old = up_to_date(root), stale(root)
    for path in old:
        if arguments:
            path.write_text(texts[path], encoding="utf-8")
        print(f"{'wrote' if arguments else 'stale:'} {path}")
    return 0 if arguments or not old else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
