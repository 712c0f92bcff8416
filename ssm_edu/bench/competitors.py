"""The selective scan as people run it on a CPU with PyTorch, and a yardstick: what `ssm-edu bench` measures ours by.

Optional: torch and mambapy are imported when a contestant is prepared, and all of them use torch's own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from ssm_edu.bench.cases import Case
from ssm_edu.bench.contestants import Contestant, Outputs, needs
from ssm_edu.selective.problem import Problem

INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
# 32Ki elements a thread are what torch cuts a loop into; they and their results stay in a core's cache.
BLOCK = 2**15

Tensors = Sequence[Any]
Scan = Callable[..., Any]


def torch_loop(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any) -> Any:
    """The loop over time as one writes it down: all Ā and B̄u, then a step for each index.

    Forward alone: autograd makes of each index a gradient as large as Ā itself, so that its time grows as length², and
    at length 1024 takes most of a minute.
    """
    torch = import_module("torch")
    delta = _step_size(delta, delta_bias[:, None])
    A_bar = torch.exp(torch.einsum("bdt,dn->bdtn", delta, A))
    written = torch.einsum("bdt,bnt->bdtn", delta * u, B[:, 0])
    h, s = torch.zeros_like(written[:, :, 0]), []
    for t in range(u.shape[2]):
        h = A_bar[:, :, t] * h + written[:, :, t]
        s.append(torch.einsum("bdn,bn->bd", h, C[:, 0, :, t]))
    return _gated(torch.stack(s, dim=2) + D[:, None] * u, z)


def unbound_loop(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any) -> Any:
    """The loop as torch likes it best: time first in memory, cut by `unbind`, and one read-out of all states."""
    torch = import_module("torch")
    delta = _step_size(delta, delta_bias[:, None])
    u_t, delta_t = (x.permute(2, 0, 1).contiguous()[..., None] for x in (u, delta))
    B_t, C_t = (M[:, 0].permute(2, 0, 1)[:, :, None] for M in (B, C))
    A_bar, written = torch.exp(delta_t * A), delta_t * u_t * B_t
    h, states = torch.zeros_like(written[0]), []
    for decay, new in zip(A_bar.unbind(0), written.unbind(0), strict=True):
        h = decay * h + new
        states.append(h)
    s = (torch.stack(states) @ C_t.transpose(2, 3))[..., 0].permute(1, 2, 0)
    return _gated(s + D[:, None] * u, z)


def mambapy_pscan(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any) -> Any:
    """mambapy's parallel scan, between the discretisation and the read-out that its Mamba block has: time first."""
    torch, pscan = import_module("torch"), import_module("mambapy.pscan").pscan
    delta = _step_size(delta, delta_bias)[..., None]
    states = pscan(torch.exp(delta * A), delta * B[:, :, None] * u[..., None])
    return _gated((states @ C[..., None])[..., 0] + D * u, z)


def _step_size(delta: Any, bias: Any) -> Any:
    return import_module("torch").nn.functional.softplus(delta + bias)


def _gated(y: Any, z: Any) -> Any:
    return y * import_module("torch").nn.functional.silu(z)


def as_given(case: Case) -> Tensors:
    """The case's arrays as tensors, in the layout of :func:`torch_loop`."""
    torch = import_module("torch")
    return [torch.from_numpy(case.arguments[name]) for name in INPUTS]


def time_first(case: Case) -> Tensors:
    """u, delta and z as (batch, length, dim), B and C as (batch, length, state), as mambapy keeps them."""
    u, delta, A, B, C, D, z, bias = as_given(case)
    turned = [x.transpose(1, 2).contiguous() for x in (u, delta, B[:, 0], C[:, 0], z)]
    return [*turned[:2], A, *turned[2:4], D, turned[4], bias]


def scan_of(name: str, scan: Scan, layout: Callable[[Case], Tensors], **options: Any) -> tuple[Contestant, Contestant]:
    """A scan in torch, and autograd's way back through it. Its inputs lie in its own layout beforehand."""
    turned = layout is time_first

    def forward(case: Case) -> Callable[[], Any]:
        torch, inputs = import_module("torch"), layout(case)

        def call() -> Any:
            with torch.no_grad():
                return scan(*inputs)

        return call

    def backward(case: Case) -> Callable[[], Any]:
        """Only the way back is timed: the graph is built here, which favours autograd; ours recomputes the states."""
        torch = import_module("torch")
        inputs = [x.requires_grad_() for x in layout(case)]
        y, grad_y = scan(*inputs), torch.from_numpy(case.grad_y)
        grad_y = grad_y.transpose(1, 2).contiguous() if turned else grad_y
        return lambda: torch.autograd.grad(y, inputs, grad_y, retain_graph=True)

    def outputs(y: Any) -> Outputs:
        return {"y": (y.transpose(1, 2) if turned else y).numpy()}

    def gradients(found: Tensors) -> Outputs:
        named = dict(zip(INPUTS, (g.detach() for g in found), strict=True))
        if turned:
            named |= {n: named[n].transpose(1, 2) for n in ("u", "delta", "z")}
            named |= {n: named[n].transpose(1, 2)[:, None] for n in ("B", "C")}
        return {f"gradient of {name}": gradient.numpy() for name, gradient in named.items()}

    return (
        Contestant(name, "forward", forward, outputs, **options),
        Contestant(name, "backward", backward, gradients, **options),
    )


def tree(problem: Problem) -> dict[str, Any]:
    return {"algorithm": "tree"}


def exponentials(case: Case) -> Callable[[], Any]:
    """As many exponentials as the scan has, and nothing else, in the cache: no scan that takes them can be faster."""
    torch = import_module("torch")
    block = BLOCK * torch.get_num_threads()
    x = torch.from_numpy(np.linspace(-8, 0, block).astype(case.dtype))
    into, (whole, rest) = torch.empty_like(x), divmod(case.elements, block)

    def call() -> None:
        for _ in range(whole):
            torch.exp(x, out=into)
        torch.exp(x[:rest], out=into[:rest])

    return call


COMPETITORS = (
    scan_of("torch loop", torch_loop, as_given, available=needs("torch"))[0],
    *scan_of("torch loop, unbound", unbound_loop, as_given, available=needs("torch")),
    *scan_of("mambapy pscan", mambapy_pscan, time_first, available=needs("torch", "mambapy"), bracketing=tree),
    Contestant("torch.exp alone", "forward", exponentials, None, available=needs("torch")),
)
