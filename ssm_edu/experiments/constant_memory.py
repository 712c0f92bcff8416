"""Decoding token by token: what Mamba's block keeps and how long it takes, beside attention with a cache.

Both are one layer of the same width, projections included. Attention keeps the keys and values of all tokens so far
(COST-3); its cache is as large as these, with no room left over, and its new entries are written in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssm_edu.bench.report import time_text
from ssm_edu.experiments import clock, figures
from ssm_edu.experiments.result import Progress, Result, Rows, Size, bytes_text, sized
from ssm_edu.torch.mamba import Mamba

TITLE = "Constant memory"
QUESTION = "Are the memory and the time of a token the same after 1k tokens and after 100k? (Article 1, §4)"
PAPER = "a GPU: width 1024, 16 texts at once in bfloat16."

SIZES: dict[Size, dict[str, Any]] = {
    "small": {"width": 256, "heads": 4, "batch": 1, "dtype": "float32"},
    "paper": {"width": 1024, "heads": 16, "batch": 16, "dtype": "bfloat16"},
}
TOKENS = (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
# Tokens in a run. On a GPU several, so that the host may be ahead of it; on a CPU one, which other tasks seldom cut.
STEPS = {"cuda": 16, "cpu": 1}
TIMED = 320
PIECE = 1000  # Mamba reads what comes before in pieces, in the memory of one


@dataclass
class KeyValueCache:
    """Keys and values, (batch, heads, room, size); those of the first `length` tokens are filled in."""

    k: Tensor
    v: Tensor
    length: int


class Attention(nn.Module):
    """Causal softmax attention in heads, with its four projections, one token at a time.

    Source: Vaswani 2017, §3.2.2.
    """

    def __init__(self, width: int, heads: int, **kind: Any) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.in_proj = nn.Linear(width, 3 * width, bias=False, **kind)
        self.out_proj = nn.Linear(width, width, bias=False, **kind)

    def step(self, x_t: Tensor, cache: KeyValueCache) -> Tensor:
        """y_t of x_t, both (batch, width); the cache gets a key and a value more, in place."""
        q, k, v = self.in_proj(x_t).unflatten(1, (3, self.heads, self.size)).unbind(1)
        cache.k[:, :, cache.length], cache.v[:, :, cache.length] = k, v
        cache.length += 1
        seen = slice(None), slice(None), slice(cache.length)
        y = functional.scaled_dot_product_attention(q[:, :, None], cache.k[seen], cache.v[seen])
        return self.out_proj(y.flatten(1))

    def random_cache(self, batch: int, tokens: int, room: int) -> KeyValueCache:
        """As after so many tokens: which ones, time and memory do not depend on."""
        shape = batch, self.heads, room, self.size
        k, v = (torch.randn(shape, device=w.device, dtype=w.dtype) for w in [self.in_proj.weight] * 2)
        return KeyValueCache(k, v, tokens)


def state_bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def run(size: Size, *, device: str, seed: int, progress: Progress, tokens: tuple[int, ...] = TOKENS) -> Result:
    """Time steps of both layers after so many tokens; Mamba's cache goes on through the steps that are timed.

    Raises:
        CannotRun: the paper's size is asked for on a CPU.
    """
    steps = STEPS[torch.device(device).type]
    settings = sized(SIZES, size, device) | {"tokens": list(tokens), "steps": steps}
    torch.manual_seed(seed)
    width, batch = settings["width"], settings["batch"]
    kind = {"device": device, "dtype": getattr(torch, settings["dtype"])}
    mamba, attention = Mamba(width, **kind), Attention(width, settings["heads"], **kind)
    x_t = torch.randn(batch, width, **kind)
    rows = []
    with torch.no_grad():
        cache, read = mamba.first_cache(batch), 0
        for done, after in enumerate(tokens):
            progress.advance(done / len(tokens), f"{after:,} tokens")
            while read < after - steps:
                piece = min(PIECE, after - steps - read)
                mamba(torch.randn(batch, piece, width, **kind), cache)
                read += piece
            seconds = per_token(lambda: mamba.step(x_t, cache), steps, device)
            rows.append(row("Mamba", after, state_bytes(cache.recent, cache.h)) | seconds)
            rows.append(attention_row(attention, x_t, after, steps, device))
    progress.advance(1)
    return Result("constant_memory", size, seed, device, settings, rows, findings(rows))


def attention_row(attention: Attention, x_t: Tensor, after: int, steps: int, device: str) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        cache = attention.random_cache(len(x_t), after - steps, after)

        def step() -> None:
            if cache.length == after:
                cache.length = after - steps
            attention.step(x_t, cache)

        return {"state_bytes": state_bytes(cache.k, cache.v)} | per_token(step, steps, device)

    return row("attention", after, None) | clock.attempt(work, device)


def row(layer: str, after: int, kept: int | None) -> dict[str, Any]:
    return {"layer": layer, "tokens": after, "state_bytes": kept}


def per_token(step: Callable[[], Any], steps: int, device: str) -> dict[str, Any]:
    """The time of a step, over runs of so many."""

    def call() -> None:
        for _ in range(steps):
            step()

    times = clock.timed(call, device, runs=TIMED // steps).times
    return clock.Timing(tuple(seconds / steps for seconds in times)).row


def points(rows: Rows, layer: str, figure: str) -> tuple[list[float], list[float]]:
    """Tokens, and what was measured after so many, where it was."""
    found = [row for row in rows if row["layer"] == layer and row.get(figure) is not None]
    return [row["tokens"] for row in found], [row[figure] for row in found]


def findings(rows: Rows) -> list[str]:
    """Sentences, from the rows."""
    found = [growth(rows, layer) for layer in ("Mamba", "attention") if len(points(rows, layer, "seconds")[0]) > 1]
    (x, ours), (met, theirs) = points(rows, "Mamba", "seconds"), points(rows, "attention", "seconds")
    ratio = {tokens: seconds / ours[x.index(tokens)] for tokens, seconds in zip(met, theirs, strict=True)}
    for tokens in sorted({met[0], met[-1]} if met else {}):
        found.append(
            f"After {tokens:,} tokens attention takes {ratio[tokens]:.3g} times as long as Mamba for one more."
        )
    slower = [tokens for i, tokens in enumerate(met) if all(ratio[later] > 1 for later in met[i:])]
    found.append(f"Attention is the slower one {f'from {slower[0]:,} tokens on' if slower else 'nowhere for good'}.")
    return found + [f"Attention after {row['tokens']:,} tokens: {row['reason']}." for row in rows if "reason" in row]


def growth(rows: Rows, layer: str) -> str:
    """How state and time grow, as exponents."""
    (x, kept), (_, seconds) = points(rows, layer, "state_bytes"), points(rows, layer, "seconds")
    late = [(tokens, time) for tokens, time in zip(x, seconds, strict=True) if 10 * tokens >= x[-1]]
    over = f", over the last factor of ten {clock.slope(*zip(*late, strict=True)):z.2f}" if len(late) > 1 else ""
    return (
        f"{layer} keeps {bytes_text(kept[0])} after {x[0]:,} tokens and {bytes_text(kept[-1])} after {x[-1]:,}, which "
        f"grows as tokens^{clock.slope(x, kept):z.2f}; a token takes {time_text(seconds[0])} and "
        f"{time_text(seconds[-1])}, as tokens^{clock.slope(x, seconds):z.2f}{over}."
    )


def figure(result: Result) -> Any:
    """Two panels, state and time by tokens."""
    with figures.style():
        drawn, (left, right) = figures.panels(2)
        for axes, key, label in ((left, "state_bytes", "state, bytes"), (right, "seconds", "time of a token, seconds")):
            ends = []
            for layer, colour in (("Mamba", figures.BLUE), ("attention", figures.ORANGE)):
                x, y = points(result.measured, layer, key)
                axes.loglog(x, y, color=colour, marker="o")
                ends.append((x[-1], y[-1], layer, colour))
            figures.name_curves(axes, ends)
            axes.set_xlabel("tokens so far")
            axes.set_title(label)
    return drawn
