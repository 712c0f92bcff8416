"""Training on tasks whose answers stand at the end: the last tokens ask, and only what the model says there counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from ssm_edu.experiments._layers import Model
from ssm_edu.experiments.result import Progress, Rows


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


@runtime_checkable
class Task(Protocol):
    """What is to be learnt, by a model of which size, and how."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def training(self) -> Training: ...

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """So many texts: tokens (batch, length), and what is to be answered at the last of these, (batch, answers)."""


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


def untrained(task: Task, kind: str, device: str, seed: int) -> Model:
    """The model of this kind as training finds it: the same on every device."""
    sizes = {"vocabulary": task.vocabulary, "width": task.width, "layers": task.layers, "d_state": task.state}
    with seeded(seed):
        return Model(kind, **sizes).to(device)


def trained(task: Task, kind: str, device: str, seed: int, progress: Progress) -> tuple[Model, Rows]:
    """The model of this kind after training, and its curve."""
    model = untrained(task, kind, device, seed)
    return model, train(model, task, generator(seed, device), progress)


def train(model: Model, task: Task, rng: torch.Generator, progress: Progress) -> Rows:
    """Train in place; the curve, rows of step, loss and accuracy, each a mean since the row before.

    Every step has texts of its own, so that the curve is of texts not seen before.

    Args:
        model: beside the generator's device.
        task: what it learns.
        rng: of the texts.
        progress: told at each point of the curve.
    """
    training = task.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.0)
    every = math.ceil(training.steps / training.points)
    curve: Rows = []
    sums = torch.zeros(2, device=rng.device)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate(step)
        tokens, answers = task.draw(training.batch, rng)
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
            progress.advance((step + 1) / training.steps, f"step {step + 1} of {training.steps}, {accuracy:.1%} right")
            if accuracy >= training.enough:
                break
    return curve


def right(logits: Tensor, answers: Tensor) -> Tensor:
    return logits.argmax(-1) == answers


@torch.no_grad()
def accuracy(model: Model, task: Task, texts: int, rng: torch.Generator) -> tuple[int, int]:
    """How many answers are right, and of how many, in so many texts."""
    batch = task.training.batch
    correct = asked = 0
    for start in range(0, texts, batch):
        tokens, answers = task.draw(min(batch, texts - start), rng)
        correct += int(right(model.answer(tokens, answers.shape[1]), answers).sum())
        asked += answers.numel()
    return correct, asked


def curve_rows(curve: Rows, **of: Any) -> Rows:
    """What is kept of a training; `of` is whose it was: a layer's, or at which length."""
    return [{"what": "training", **of, **point, "correct": None, "asked": None} for point in curve]


def outcome_row(curve: Rows, correct: int, asked: int, **of: Any) -> dict[str, Any]:
    """What is kept of a test after this training, with the same keys."""
    found = {"step": curve[-1]["step"], "loss": None, "accuracy": correct / asked}
    return {"what": "test", **of, **found, "correct": correct, "asked": asked}
