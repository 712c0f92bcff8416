"""Hugging Face's Mamba on either of two paths, its own scan in PyTorch or the drop-in; and how near these two are."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssm_edu import torch as ssm_edu_torch
from ssm_edu.experiments.result import CannotRun

SLOW, FAST = "own scan", "drop-in"
MODELLING = "transformers.models.mamba.modeling_mamba"
KERNELS = ("mamba_ssm", "causal_conv1d")

Config = dict[str, Any]  # MambaConfig's arguments
Gradients = dict[str, Tensor]


class Scans(TorchDispatchMode):
    """Counts our scans."""

    count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "ssm_edu.selective_scan.default" in str(op)
        return op(*args, **(kwargs or {}))


@contextmanager
def modelling(path: str) -> Iterator[Any]:
    """Hugging Face's module of Mamba, imported where it finds the drop-in, or no kernels at all; then as before.

    Of `mamba_ssm` and `causal_conv1d` it sees nothing, even where they are installed.
    """
    importlib.import_module("transformers.models.mamba")
    hidden = {name: sys.modules.pop(name, None) for name in (MODELLING, *KERNELS)}
    try:
        absent: Any = dict.fromkeys(KERNELS)
        sys.modules.update(absent)  # with None there, their import fails
        if path == FAST:
            ssm_edu_torch.install()
        yield importlib.import_module(MODELLING)
    finally:
        if path == FAST:
            ssm_edu_torch.uninstall()
        for name, module in hidden.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def build(path: str, config: Config, device: str, seed: int) -> Any:
    """The model, with weights of the seed, to be trained.

    Raises:
        CannotRun: transformers is not installed.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise CannotRun("training_step needs transformers: pip install transformers") from error
    transformers.logging.set_verbosity_error()  # it warns of kernels that are missing on purpose
    torch.manual_seed(seed)
    with modelling(path) as module:
        return module.MambaForCausalLM(transformers.MambaConfig(**config)).to(device).train()


def random_tokens(config: Config, batch: int, length: int, device: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config["vocab_size"], (batch, length), generator=generator).to(device)


def loss(model: Any, tokens: Tensor, dtype: str) -> Tensor:
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        return model(tokens, labels=tokens).loss


def gradients(path: str, config: Config, tokens: Tensor, seed: int, *, nudged: bool = False) -> Gradients:
    """The loss of these texts, and the gradients of all parameters; `nudged`, with each changed in its last bit.

    Raises:
        RuntimeError: the model does not take the path that is asked for.
    """
    model = build(path, config, str(tokens.device), seed)
    if nudged:
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + torch.finfo(p.dtype).eps * torch.randn_like(p).sign())
    with Scans() as scans:
        value = loss(model, tokens, "float32")
        value.backward()
    expected = config["num_hidden_layers"] if path == FAST else 0
    if scans.count != expected:
        raise RuntimeError(f"the {path} called {scans.count} of ssm_edu's scans, expected {expected}")
    return {"loss": value.detach()} | {name: p.grad for name, p in model.named_parameters()}


def distance(found: Gradients, right: Gradients) -> float:
    """The greatest difference in any of them, in units of the largest number in that."""
    return torch.stack([(found[name] - x).abs().max() / x.abs().max() for name, x in right.items()]).max().item()
