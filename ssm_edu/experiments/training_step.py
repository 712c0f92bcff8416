"""A step of training: Hugging Face's Mamba on its own scan in PyTorch, and with this package's functions dropped in.

Both are one model of the same weights: first its loss and gradients are compared, at a short length. Its own scan is a
loop over time that keeps all Ā, B̄u and states for the way back, and there makes of every index a gradient as large as
Ā: its time grows as length².
"""

from __future__ import annotations

import importlib.metadata
from functools import partial
from typing import Any

import torch

from ssm_edu.bench.report import time_text
from ssm_edu.experiments import clock, figures
from ssm_edu.experiments._hugging_face import FAST, SLOW, build, distance, gradients, loss, random_tokens
from ssm_edu.experiments.result import Progress, Result, Rows, Size, bytes_text, sized

TITLE = "A training step"
QUESTION = "What does the drop-in bring a training step of a 130M Mamba, in time and in memory?"
NEEDS = "torch, transformers"
PAPER = "a GPU: 24 layers of width 768 on texts of 2048 tokens, 8 of them at once, or one where 8 do not fit."

SIZES: dict[Size, dict[str, Any]] = {
    "small": {
        "model": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 256},
        "batches": [2],
        "length": 256,
    },
    "paper": {
        "model": {"hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280},
        "batches": [8, 1],
        "length": 2048,
    },
}
COMMON = {"state_size": 16, "expand": 2, "conv_kernel": 4, "tie_word_embeddings": True, "use_cache": False}
DTYPES = ("float32", "bfloat16")  # the latter by autocast
SHORT = 64  # tokens on which the two are compared
# How often as far from each other the two may be as the gradients of weights that differ in their last bit: the two
# round in several places, those only in the weights.
ALLOWED = 4


def time_step(path: str, dtype: str, batch: int, settings: dict[str, Any], device: str, seed: int) -> dict[str, Any]:
    """Forward, backward and AdamW, and the most memory that torch holds, the model's own included."""
    config = settings["model"]
    model = build(path, config, device, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(tokens: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model, tokens, dtype).backward()
        optimizer.step()

    step(random_tokens(config, 1, SHORT, device, seed))
    tokens = random_tokens(config, batch, settings["length"], device, seed)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    # what takes minutes is not run twice for a warm-up: the short step was one
    warm_up = 2 if path == FAST else 0
    timing = clock.timed(partial(step, tokens), device, budget=3.0, warm_up=warm_up)
    peak = torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None
    return timing.row | {"peak_bytes": peak, "tokens_per_second": tokens.numel() / timing.row["seconds"]}


def run(size: Size, *, device: str, seed: int, progress: Progress) -> Result:
    """The drop-in at the largest batch; the model's own scan at the largest that fits; the drop-in at that one, too.

    Raises:
        CannotRun: the paper's size is asked for on a CPU, or transformers is not installed.
    """
    settings = sized(SIZES, size, device)
    config = settings["model"] | COMMON
    settings = settings | {"model": config}
    settings["parameters"] = sum(p.numel() for p in build(SLOW, config, "cpu", seed).parameters())
    settings["transformers"] = importlib.metadata.version("transformers")
    progress.advance(0, "loss and gradients of both")
    tokens = random_tokens(config, 2, SHORT, device, seed)
    right = gradients(SLOW, config, tokens, seed)
    settings["last_bit"] = distance(gradients(SLOW, config, tokens, seed, nudged=True), right)
    settings["distance"] = distance(gradients(FAST, config, tokens, seed), right)
    del right
    rows: Rows = []

    def measure(path: str, dtype: str, batch: int) -> dict[str, Any]:
        progress.advance(0.1 + 0.9 * len(rows) / (3 * len(DTYPES) + 4), f"{path}, {dtype}, batch {batch}")
        work = partial(time_step, path, dtype, batch, settings, device, seed)
        rows.append({"path": path, "dtype": dtype, "batch": batch} | clock.attempt(work, device))
        return rows[-1]

    def measure_largest(path: str, dtype: str) -> int:
        """From the largest batch down to one that fits; 0 if none does."""
        return next((batch for batch in settings["batches"] if "seconds" in measure(path, dtype, batch)), 0)

    for dtype in DTYPES:
        largest, batch = measure_largest(FAST, dtype), measure_largest(SLOW, dtype)
        if 0 < batch < largest:
            measure(FAST, dtype, batch)
    progress.advance(1)
    return Result("training_step", size, seed, device, settings, rows, findings(rows, settings))


def findings(rows: Rows, settings: dict[str, Any]) -> list[str]:
    """Sentences, from the rows."""
    far, last_bit = settings["distance"], settings["last_bit"]
    differ = (
        f"In loss and gradients the two differ by {far:.2g} of the largest number of each, where a change of every "
        f"weight in its last bit makes {last_bit:.2g}"
    )
    if not far <= ALLOWED * last_bit:
        return [f"{differ}: they are two models, and their times say nothing."]
    found = [f"{differ}."]
    for dtype in DTYPES:
        mine = {(row["path"], row["batch"]): row for row in rows if row["dtype"] == dtype and "seconds" in row}
        for path, batch in mine:
            if path == SLOW and (FAST, batch) in mine:
                found.append(comparison(dtype, batch, mine[FAST, batch], mine[SLOW, batch]))
            if path == FAST and (SLOW, batch) not in mine:
                found.append(alone(dtype, batch, mine[FAST, batch]))
    return found + [f"{r['dtype']}, {r['path']} at batch {r['batch']}: {r['reason']}." for r in rows if "reason" in r]


def alone(dtype: str, batch: int, row: dict[str, Any]) -> str:
    memory = "" if row["peak_bytes"] is None else f", peak memory {bytes_text(row['peak_bytes'])}"
    return f"{dtype}, batch {batch}: a step takes {time_text(row['seconds'])} with the drop-in{memory}."


def comparison(dtype: str, batch: int, fast: dict[str, Any], slow: dict[str, Any]) -> str:
    ratio = slow["seconds"] / fast["seconds"]
    found = (
        f"{dtype}, batch {batch}: a step takes {time_text(fast['seconds'])} with the drop-in and "
        f"{time_text(slow['seconds'])} without, {ratio:.3g} times as long"
    )
    if fast["peak_bytes"] is None:
        return f"{found}."
    peaks, ratio = [bytes_text(row["peak_bytes"]) for row in (fast, slow)], slow["peak_bytes"] / fast["peak_bytes"]
    return f"{found}; peak memory is {peaks[0]} and {peaks[1]}, {ratio:.3g} times as much."


def figure(result: Result) -> Any:
    """Time of a token and, on a GPU, peak memory: a line for each row."""
    rows = [row for row in result.measured if "seconds" in row]
    labels = [f"{row['path']}, {row['dtype']}, batch {row['batch']}" for row in rows]
    colours = [figures.BLUE if row["path"] == FAST else figures.ORANGE for row in rows]
    shown: list[tuple[str, list[float], Any]] = [
        ("time of a token, seconds", [1 / row["tokens_per_second"] for row in rows], time_text)
    ]
    if all(row["peak_bytes"] is not None for row in rows):
        shown.append(("peak memory, bytes", [row["peak_bytes"] for row in rows], bytes_text))
    with figures.style():
        drawn, panels = figures.panels(len(shown), height=1.2 + 0.4 * len(rows))
        for axes, (title, values, text) in zip(panels, shown, strict=True):
            axes.scatter(values, range(len(rows)), s=50, color=colours)
            axes.set_yticks(range(len(rows)), labels if axes is panels[0] else [""] * len(rows))
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_xscale("log")
            axes.tick_params(axis="x", which="both", labelbottom=False)  # each value stands beside its point
            axes.set_title(title)
            for i, value in enumerate(values):
                figures.name_curve(axes, value, i, text(value), colours[i])
    return drawn
