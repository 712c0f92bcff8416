"""Selective copying: tokens stand at random places among noise, and are to be said again in their order.

The places differ from text to text, so no fixed kernel can pick the tokens out (claims SEL-20, SEL-21). Two models of
the same width are trained on the same texts; all that sets them apart is whether Δ, B and C depend on the input.
Source: Mamba, §4.1.1 and Table 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ssm_edu.experiments import figures
from ssm_edu.experiments._layers import LAYERS
from ssm_edu.experiments._training import Training, accuracy, curve_rows, generator, one_thread, outcome_row, trained
from ssm_edu.experiments.result import Progress, Result, Rows, Size, sized

TITLE = "Selective copying"
QUESTION = "Is it selectivity that lets a model copy tokens out of noise?"
PAPER = (
    "a GPU: 16 tokens in texts of length 4096, width 64, for each model up to 40,000 steps of 64 texts. "
    "The paper trains for 400,000, at a lower rate."
)


@dataclass(frozen=True)
class Settings:
    """The task, the model and its training.

    Attributes:
        length: places of a text, noise and tokens together.
        tokens: of them that are to be copied; as many marks follow and ask for them.
        values: that such a token can have. Beside these the vocabulary holds noise and mark.
        width: d_model. state: states of a channel. layers: blocks.
        training: of each model.
        texts: to test on.
    """

    length: int
    tokens: int
    values: int
    width: int
    state: int
    training: Training
    texts: int
    layers: int = 2

    @property
    def noise(self) -> int:
        return self.values

    @property
    def vocabulary(self) -> int:
        return self.values + 2

    @property
    def chance(self) -> float:
        return 1 / self.values

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Texts (batch, length + tokens), and the tokens in them, (batch, tokens)."""
        random = {"generator": rng, "device": rng.device}
        answers = torch.randint(self.values, (batch, self.tokens), **random)
        places = torch.rand(batch, self.length, **random).topk(self.tokens).indices.sort().values
        text = torch.full((batch, self.length), self.noise, device=rng.device).scatter(1, places, answers)
        return torch.cat([text, torch.full_like(answers, self.noise + 1)], dim=1), answers


SIZES: dict[Size, Settings] = {
    "small": Settings(
        length=120, tokens=8, values=6, width=64, state=8, training=Training(1600, 32, 1e-2), texts=512
    ),
    # The sizes are the paper's, a vocabulary of 16 in all; it takes 400 000 steps at 1e-4.
    "paper": Settings(
        length=4096, tokens=16, values=14, width=64, state=16, training=Training(40_000, 64, 1e-3, enough=0.999),
        texts=1024,
    ),
}  # fmt: skip


@one_thread()
def run(size: Size, *, device: str, seed: int, progress: Progress) -> Result:
    """Train both models and test them.

    Raises:
        ValueError: another size.
        CannotRun: the paper's size is asked for on a CPU.
    """
    settings = sized(SIZES, size, device)
    rows = measure(settings, device, seed, progress)
    return Result("selective_copying", size, seed, device, asdict(settings), rows, findings(settings, rows))


def measure(settings: Settings, device: str, seed: int, progress: Progress) -> Rows:
    """A row for each point of the curves, and one for each test."""
    rows: Rows = []
    for i, kind in enumerate(LAYERS):
        part = progress.part(i / len(LAYERS), (i + 1) / len(LAYERS), f"{kind}: ")
        model, curve = trained(settings, kind, device, seed, part)
        correct, asked = accuracy(model, settings, settings.texts, generator(seed + 1, device))
        rows += [*curve_rows(curve, layer=kind), outcome_row(curve, correct, asked, layer=kind)]
    return rows


def findings(settings: Settings, rows: Rows) -> list[str]:
    """What the tests say, and whether selectivity made the difference."""
    tests = {row["layer"]: row for row in rows if row["what"] == "test"}
    shares = {kind: row["accuracy"] for kind, row in tests.items()}
    said = [
        f"{kind} copies {row['correct']} of {row['asked']} tokens right ({row['accuracy']:.1%}) after {row['step']} "
        f"steps; a guess is right in {settings.chance:.1%}."
        for kind, row in tests.items()
    ]
    if shares["S6"] >= 0.95 and shares["S4D"] < 0.9:
        said.append("Selectivity is what solves the task in these steps: the two models differ in nothing else.")
    elif shares["S6"] > shares["S4D"]:
        said.append("The selective model is ahead, but this training does not show that selectivity solves the task.")
    else:
        said.append("The selective model is not ahead: this training says nothing for selectivity.")
    return said


def figure(result: Result) -> Any:
    """Accuracy over the steps of training, of both models."""
    with figures.style():
        drawn, (axes,) = figures.panels(1)
        for (kind, text), colour in zip(
            {"S6": "selective (S6)", "S4D": "time-invariant (S4D)"}.items(), figures.COLOURS, strict=False
        ):
            curve = [row for row in result.measured if row["layer"] == kind and row["what"] == "training"]
            steps, shares = [row["step"] for row in curve], [100 * row["accuracy"] for row in curve]
            axes.plot(steps, shares, color=colour)
            figures.name_curve(axes, steps[-1], shares[-1], text, colour)
        chance = 100 / result.settings["values"]
        axes.axhline(chance, color=figures.GREY, linewidth=1, linestyle=":")
        axes.annotate("guessing", (0, chance), xytext=(2, -12), textcoords="offset points", color=figures.GREY)
        axes.set(xlabel="steps of training", ylabel="tokens copied right, %", ylim=(0, 102), xlim=(0, None))
        s = result.settings
        axes.set_title(f"{s['tokens']} tokens among {s['length'] - s['tokens']} of noise")
    return drawn
