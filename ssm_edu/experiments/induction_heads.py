"""Induction heads: what followed a special token, when it comes again? Trained on short texts, asked in long ones.

A test reads its text in pieces and carries the state from one to the next, so its memory does not grow with the length.
Source: Mamba, §4.1.2 and Table 2.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ssm_edu.experiments import figures
from ssm_edu.experiments._layers import Model
from ssm_edu.experiments._training import Training, curve_rows, generator, one_thread, outcome_row, right, trained
from ssm_edu.experiments.result import Progress, Result, Rows, Size, sized

TITLE = "Induction heads"
QUESTION = "How far beyond the length it was trained on does a selective scan remember?"
PAPER = (
    "a GPU: up to 50,000 steps of 64 texts of length 256, width 64, and tests to length 1,048,576. "
    "The paper trains for 204,800 steps."
)
SOLVED = 0.95


@dataclass(frozen=True)
class Settings:
    """The task, the model, its training and its tests.

    Attributes:
        length: of a text in training.
        lengths: of the texts in the tests.
        texts: to test on, at each length.
        piece: tokens of a test that are read at once.
        vocabulary: tokens, the last of them special.
        width: d_model. state: states of a channel. layers: blocks.
        training: of the model.
    """

    length: int
    lengths: tuple[int, ...]
    texts: int
    piece: int
    width: int
    state: int
    training: Training
    vocabulary: int = 16
    layers: int = 2

    @property
    def special(self) -> int:
        return self.vocabulary - 1

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Texts (batch, length), and what followed the special token, (batch, 1)."""
        marks, answers = self.plan(self.length, batch, rng)
        return self.piece_of(self.length, 0, self.length, marks, answers, rng), answers[:, None]

    def plan(self, length: int, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where the special token stands before the end, and what follows it: (batch,) each."""
        random = {"generator": rng, "device": rng.device}
        return torch.randint(length - 2, (batch,), **random), torch.randint(self.special, (batch,), **random)

    def piece_of(
        self, length: int, start: int, stop: int, marks: Tensor, answers: Tensor, rng: torch.Generator
    ) -> Tensor:
        """Tokens start … stop − 1 of texts of this length, (batch, stop − start)."""
        places = torch.arange(start, stop, device=rng.device)
        text = torch.randint(self.special, (len(marks), stop - start), generator=rng, device=rng.device)
        text = torch.where(places == marks[:, None] + 1, answers[:, None], text)
        return torch.where((places == marks[:, None]) | (places == length - 1), self.special, text)


SIZES: dict[Size, Settings] = {
    "small": Settings(
        length=64, lengths=tuple(2**k for k in range(6, 15)), texts=64, piece=2**10, width=32, state=16,
        training=Training(1500, 32, 1e-2),
    ),
    # The paper's sizes; it takes 204 800 steps.
    "paper": Settings(
        length=256, lengths=tuple(2**k for k in range(6, 21)), texts=256, piece=2**14, width=64, state=16,
        training=Training(50_000, 64, 1e-3, enough=0.9999),
    ),
}  # fmt: skip


@one_thread()
def run(size: Size, *, device: str, seed: int, progress: Progress) -> Result:
    """Train the model at one length and test it at many.

    Raises:
        ValueError: another size.
        CannotRun: the paper's size is asked for on a CPU.
    """
    settings = sized(SIZES, size, device)
    rows = measure(settings, device, seed, progress)
    return Result("induction_heads", size, seed, device, asdict(settings), rows, findings(settings, rows))


def measure(settings: Settings, device: str, seed: int, progress: Progress) -> Rows:
    """A row for each point of the curve, and one for each length."""
    learning = 0.8  # of the run's time, more or less
    testing = progress.part(learning, 1)
    model, curve = trained(settings, "S6", device, seed, progress.part(0, learning))
    rows = curve_rows(curve, length=settings.length)
    for length in settings.lengths:
        correct = remembered(model, settings, length, generator(seed + 1, device))
        rows.append(outcome_row(curve, correct, settings.texts, length=length))
        done = sum(n for n in settings.lengths if n <= length) / sum(settings.lengths)
        testing.advance(done, f"length {length}: {correct / settings.texts:.1%} right")
    return rows


@torch.no_grad()
def remembered(model: Model, settings: Settings, length: int, rng: torch.Generator) -> int:
    """In how many texts of this length the model knows what followed; read in pieces, from state to state."""
    marks, answers = settings.plan(length, settings.texts, rng)
    caches = model.first_caches(settings.texts)
    for start in range(0, length, settings.piece):
        tokens = settings.piece_of(length, start, min(start + settings.piece, length), marks, answers, rng)
        logits = model.answer(tokens, 1, caches)
    return int(right(logits, answers[:, None]).sum())


def findings(settings: Settings, rows: Rows) -> list[str]:
    """How well it does at its own length, and up to which it holds."""
    tests = {row["length"]: row["accuracy"] for row in rows if row["what"] == "test"}
    steps = next(row["step"] for row in rows if row["what"] == "test")
    chance = 1 / settings.special
    held = next((n for n, later in zip([None, *tests], tests, strict=False) if tests[later] < SOLVED), max(tests))
    said = [
        f"After {steps} steps at length {settings.length}, {share:.1%} of {settings.texts} texts of length {length} "
        f"are answered right; a guess is right in {chance:.1%}."
        for length, share in tests.items()
        if length in (settings.length, max(tests))
    ]
    if held is None:
        said.append(f"It is below {SOLVED:.0%} at length {min(tests)} already.")
    else:
        times = held / settings.length
        said.append(f"It stays at {SOLVED:.0%} or above up to length {held}, {times:g} times that of its training.")
    return said


def figure(result: Result) -> Any:
    """Accuracy against length, the length of training marked."""
    rows = [row for row in result.measured if row["what"] == "test"]
    lengths, shares = [row["length"] for row in rows], [100 * row["accuracy"] for row in rows]
    with figures.style():
        drawn, (axes,) = figures.panels(1)
        axes.plot(lengths, shares, color=figures.BLUE, marker="o")
        chance, trained = 100 / (result.settings["vocabulary"] - 1), result.settings["length"]
        axes.axhline(chance, color=figures.GREY, linewidth=1, linestyle=":")
        axes.annotate("guessing", (lengths[0], chance), xytext=(2, 3), textcoords="offset points", color=figures.GREY)
        axes.axvline(trained, color=figures.ORANGE, linewidth=1, linestyle="--")
        axes.annotate(
            f"trained at {trained}", (trained, 52), xytext=(6, 0), textcoords="offset points", color=figures.ORANGE
        )
        axes.set_xscale("log", base=2)
        powers = range(round(math.log2(lengths[0])), round(math.log2(lengths[-1])) + 1, 2)
        axes.set_xticks([2**k for k in powers])
        axes.set(xlabel="length of the text", ylabel="answered right, %", ylim=(0, 104))
        axes.set_title("A token remembered from anywhere in the text")
    return drawn
