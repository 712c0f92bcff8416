"""Training on tasks whose answers stand at the end: the last tokens ask, and only what the model says there counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ssm_edu.experiments._layers import Model

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
"""So many texts: tokens (batch, length), and what is to be answered at the last of these, (batch, answers)."""


@dataclass(frozen=True)
class Training:
    """AdamW without weight decay, gradients clipped to norm 1.

    Attributes:
        steps: at most so many.
        batch: texts in each.
        learning_rate: reached after `warmup` steps, held for half of the rest, and then taken to zero on a line.
        enough: the share of right answers, over a point of the curve, at which training ends early; 1 or more is never.
        warmup: steps.
        points: of the curve that is kept.
    """

    steps: int
    batch: int
    learning_rate: float
    enough: float = 2.0
    warmup: int = 50
    points: int = 20

    def rate(self, step: int) -> float:
        return self.learning_rate * min((step + 1) / self.warmup, 2 * (1 - step / self.steps), 1.0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The host's random numbers start from the seed, and outside go on as if nothing had been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """torch's own operations on one thread of the host: sums in one order on every machine, and no waiting for others.

    The scan, which is most of the work, keeps its threads and its bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def generator(seed: int, device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def train(
    model: Model, draw: Draw, training: Training, rng: torch.Generator, tell: Callable[[float, str], None]
) -> list[dict[str, Any]]:
    """Train in place; the curve, rows of step, loss and accuracy, each a mean since the row before.

    Args:
        model: beside the generator's device.
        draw: the task. Every step has texts of its own, so that the curve is of texts not seen before.
        training: how.
        rng: of the texts.
        tell: called with the share of the steps that is done and a few words, at each point.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
    every = math.ceil(training.steps / training.points)
    curve: list[dict[str, Any]] = []
    sums = torch.zeros(2, device=rng.device)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate(step)
        tokens, answers = draw(training.batch, rng)
        logits = model.answer(tokens, answers.shape[1])
        loss = functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        sums += torch.stack([loss.detach(), right(logits, answers).float().mean()])
        since = step % every + 1
        if since == every or step + 1 == training.steps:
            mean_loss, accuracy = (sums / since).tolist()
            curve.append({"step": step + 1, "loss": mean_loss, "accuracy": accuracy})
            sums.zero_()
            tell((step + 1) / training.steps, f"step {step + 1} of {training.steps}, {accuracy:.1%} right")
            if accuracy >= training.enough:
                break
    return curve


def right(logits: Tensor, answers: Tensor) -> Tensor:
    return logits.argmax(-1) == answers


@torch.no_grad()
def accuracy(model: Model, draw: Draw, texts: int, batch: int, rng: torch.Generator) -> tuple[int, int]:
    """How many answers are right, and of how many, in so many texts."""
    correct = asked = 0
    for start in range(0, texts, batch):
        tokens, answers = draw(min(batch, texts - start), rng)
        correct += int(right(model.answer(tokens, answers.shape[1]), answers).sum())
        asked += answers.numel()
    return correct, asked
