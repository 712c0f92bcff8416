"""Forward, one operation at a time, by length: the left half of the Mamba paper's Figure 8.

Each operation is first compared with its exact result at a short length. What is wrong, runs out of memory or would
take too long has a row as well, with the reason in place of a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ssm_edu.bench.report import time_text
from ssm_edu.experiments import clock, figures
from ssm_edu.experiments.operations import OPERATIONS, OURS, Operation, Setting
from ssm_edu.experiments.result import Progress, Result, Rows, Size, sized

TITLE = "Speed of the scan"
QUESTION = "How fast is the selective scan beside torch's scans, an FFT convolution and attention? (Mamba, Figure 8)"
PAPER = "a GPU: 1024 channels, bfloat16 and float32, lengths from 512 to 524,288."

SIZES: dict[Size, dict[str, Any]] = {
    "small": {"dim": 64, "state": 16, "dtypes": ["float32"], "lengths": [2**i for i in range(9, 16)]},
    "paper": {"dim": 1024, "state": 16, "dtypes": ["bfloat16", "float32"], "lengths": [2**i for i in range(9, 20)]},
}
LONGEST = 5.0  # seconds of a call


def run(size: Size, *, device: str, seed: int, progress: Progress, lengths: list[int] | None = None) -> Result:
    """Check, then time every operation at every length.

    Raises:
        CannotRun: the paper's size is asked for on a CPU.
    """
    settings = sized(SIZES, size, device) | {"batch": 1, "longest": LONGEST}
    settings["lengths"] = lengths or settings["lengths"]
    torch.manual_seed(seed)
    rows: Rows = []
    total = len(settings["dtypes"]) * len(OPERATIONS) * len(settings["lengths"])
    with torch.no_grad():
        for dtype in settings["dtypes"]:
            setting = Setting(settings["dim"], settings["state"], dtype, device)
            for operation in OPERATIONS:
                for found in measure(operation, setting, settings["lengths"]):
                    rows.append(found)
                    progress.advance(len(rows) / total, f"{operation.name}, {dtype}, length {found['length']:,}")
    return Result("scan_speed", size, seed, device, settings, rows, findings(rows))


def measure(operation: Operation, setting: Setting, lengths: list[int]) -> Any:
    """A row for each length, as it comes."""
    error = operation.error(operation.call, setting)
    last: tuple[int, float] | None = None
    for length in lengths:
        row: dict[str, Any] = {"operation": operation.name, "dtype": setting.dtype, "length": length}
        expected = 0.0 if last is None else last[1] * (length / last[0]) ** operation.order
        if not error <= 1:  # nor if it is not a number
            row["reason"] = f"it is wrong: {error:.3g} times its error bound at a short length"
        elif expected > LONGEST:
            row["reason"] = f"a call would take about {time_text(expected)}"
        else:
            row |= clock.attempt(partial(time_one, operation, setting, length), setting.device)
            last = (length, row["seconds"]) if "seconds" in row else last
        yield row | {"error_in_bounds": error if error < float("inf") else None}


def time_one(operation: Operation, setting: Setting, length: int) -> dict[str, Any]:
    inputs = operation.inputs(setting, length)
    return clock.timed(lambda: operation.call(*inputs), setting.device, by=clock.kernels).row


def times(rows: Rows, operation: str, dtype: str) -> dict[int, float]:
    """Seconds by length, where there are any."""
    mine = [row for row in rows if (row["operation"], row["dtype"]) == (operation, dtype)]
    return {row["length"]: row["seconds"] for row in mine if "seconds" in row}


def findings(rows: Rows) -> list[str]:
    """Sentences, from the rows."""
    found = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        ours = times(rows, OURS, dtype)
        for name in dict.fromkeys(row["operation"] for row in rows):
            if sentence := growth(name, dtype, times(rows, name, dtype)):
                found.append(sentence)
            if name != OURS and (sentence := comparison(name, dtype, ours, times(rows, name, dtype))):
                found.append(sentence)
    for row in rows:
        if "reason" in row:
            found.append(f"{row['dtype']}, {row['operation']} at length {row['length']:,}: {row['reason']}.")
    return found


def growth(name: str, dtype: str, seconds: dict[int, float]) -> str | None:
    """Over the last factor of ten in length: before it, a call's fixed cost may count."""
    late = {length: time for length, time in seconds.items() if 10 * length >= max(seconds)}
    if len(late) < 2:
        return None
    exponent = clock.slope(list(late), list(late.values()))
    return (
        f"{dtype}, {name}: {time_text(late[max(late)])} at length {max(late):,}, time ∝ length^{exponent:z.2f} there."
    )


def comparison(name: str, dtype: str, ours: dict[int, float], theirs: dict[int, float]) -> str | None:
    """How often as fast ours is, and from where on it is the faster one."""
    ratio = {length: theirs[length] / ours[length] for length in theirs if length in ours}
    if not ratio:
        return None
    ahead = [length for length in ratio if all(ratio[later] > 1 for later in ratio if later >= length)]
    from_here = f"the faster one from length {ahead[0]:,} on" if ahead else "not the faster one at the greatest length"
    best, longest = max(ratio, key=lambda length: ratio[length]), max(ratio)
    return (
        f"{dtype}, {OURS} beside {name}: {from_here}, {ratio[longest]:.3g} times as fast at {longest:,} and at most "
        f"{ratio[best]:.3g} times, at {best:,}."
    )


COLOURS = dict(
    zip(
        (op.name for op in OPERATIONS),
        (figures.BLUE, figures.GREY, figures.GREEN, figures.PURPLE, figures.ORANGE),
        strict=True,
    )
)


def figure(result: Result) -> Any:
    """Time by length, a panel for each dtype; a cross ends a curve for want of memory or time.

    All names stand behind the greatest length: at the end of a shorter curve they would lie on a longer one.
    """
    dtypes, greatest = result.settings["dtypes"], result.settings["lengths"][-1]
    with figures.style():
        drawn, panels = figures.panels(len(dtypes), height=4.4)
        for axes, dtype in zip(panels, dtypes, strict=True):
            ends = []
            for name, colour in COLOURS.items():
                seconds = times(result.measured, name, dtype)
                if not seconds:
                    continue
                x, y = list(seconds), list(seconds.values())
                axes.loglog(x, y, color=colour, marker="o")
                if x[-1] < greatest:
                    axes.plot(x[-1:], y[-1:], color=colour, marker="x", markersize=11, markeredgewidth=2)
                ends.append((greatest, y[-1], name, colour))
            axes.set_xscale("log", base=2)
            figures.name_curves(axes, ends)
            axes.set_xlabel("length")
            axes.set_title(f"{dtype}: time, seconds")
    return drawn
