"""What mixes a sequence, as `scan_speed` times it: selective scans, a convolution by FFT, causal attention.

Each is the operation alone, without the projections around it. Scans have D, z, a bias and softplus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssm_edu import bounds
from ssm_edu.atlas.attention import attend
from ssm_edu.bench.cases import IN_TIME, Case
from ssm_edu.bench.competitors import INPUTS
from ssm_edu.bench.contestants import Contestant
from ssm_edu.bench.judging import Judge
from ssm_edu.hippo import mamba_A, mamba_delta_bias
from ssm_edu.lti import convolve
from ssm_edu.torch import selective_scan_fn

HEAD = 64  # channels of a head of attention
# cuDNN's attention is left out: FlashAttention is what the paper compares with. The others are for what it cannot do.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
UNIT = torch.finfo(torch.float32).eps / 2


@dataclass(frozen=True)
class Setting:
    """Batch 1. What varies in time lies in memory as `dtype`."""

    dim: int
    state: int
    dtype: str
    device: str

    @property
    def stored(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).to(self.stored)

    def upload(self, array: np.ndarray) -> Tensor:
        """In float32."""
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)


@dataclass(frozen=True)
class Operation:
    """
    Attributes:
        name: in tables and figures.
        order: its time grows as length^order in the long run.
        inputs: random ones of a length, in `call`'s order.
        call: from the inputs to y.
        error: of `call` in a setting, at a short length, in units of the bound on it; above 1 it is wrong.
    """

    name: str
    order: int
    inputs: Callable[[Setting, int], list[Tensor]]
    call: Callable[..., Tensor]
    error: Callable[[Callable[..., Tensor], Setting], float]


def scan_inputs(setting: Setting, length: int) -> list[Tensor]:
    """A layer of Mamba as it is initialised, as :class:`ssm_edu.bench.Case` draws it."""
    dim, state = setting.dim, setting.state
    u, delta, z = (setting.normal(1, dim, length) for _ in range(3))
    B, C = (setting.normal(1, 1, state, length) for _ in range(2))
    A, bias = setting.upload(mamba_A(dim, state)), setting.upload(mamba_delta_bias(dim, rng=np.random.default_rng(0)))
    return [u, delta / sqrt(3), A, B, C, torch.ones_like(bias), z, bias]


def our_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor) -> Tensor:
    return selective_scan_fn(u, delta, A, B, C, D, z, bias, delta_softplus=True)


def stored_scan(scan: Callable[[Tensor, Tensor], Tensor], *inputs: Tensor) -> Tensor:
    """All Ā and B̄u, all states by a scan over the first axis, all y, each written to memory; in float32."""
    u, delta, A, B, C, D, z, bias = (x.float() for x in inputs)
    delta = functional.softplus(delta + bias[:, None])
    u_t, delta_t = (x.permute(2, 0, 1).contiguous()[..., None] for x in (u, delta))
    B_t, C_t = (M[:, 0].permute(2, 0, 1)[:, :, None] for M in (B, C))
    h = scan(torch.exp(delta_t * A), delta_t * u_t * B_t)
    y = (h * C_t).sum(-1).permute(1, 2, 0) + D[:, None] * u
    return (y * functional.silu(z)).to(inputs[0].dtype)


def loop(a: Tensor, b: Tensor) -> Tensor:
    """h_t = a_t h_{t−1} + b_t, a step at a time."""
    h, states = torch.zeros_like(b[0]), []
    for a_t, b_t in zip(a.unbind(), b.unbind(), strict=True):
        h = torch.addcmul(b_t, a_t, h)
        states.append(h)
    return torch.stack(states)


def halves(a: Tensor, b: Tensor) -> Tensor:
    """The same by pairs: the scan of half the length gives every second state, and a step from each the others.

    Source: Blelloch 1990.
    """
    if len(a) == 1:
        return b
    h, end = torch.empty_like(b), len(a) // 2 * 2
    second, first = slice(1, end, 2), slice(0, end, 2)
    h[second] = halves(a[second] * a[first], torch.addcmul(b[second], a[second], b[first]))
    h[0] = b[0]
    h[2::2] = torch.addcmul(b[2::2], a[2::2], h[1:-1:2])
    return h


def scan_error(algorithm: str, call: Callable[..., Tensor], setting: Setting) -> float:
    """Against the oracle (claims ROUND-7 to ROUND-11)."""
    narrow = None if setting.dtype == "float32" else setting.dtype
    case = Case(1, 2 * HEAD, 100, setting.state, stored=narrow)
    arithmetic = bounds.FLOAT32_APPROX if setting.device.startswith("cuda") else bounds.FLOAT32
    rules = {"algorithm": algorithm, "arithmetic": arithmetic, "stored": narrow}
    contestant = Contestant("", "forward", lambda case: lambda: None, None, bracketing=lambda problem: rules)
    inputs = [
        setting.upload(case.arguments[name]).to(setting.stored if name in IN_TIME else torch.float32) for name in INPUTS
    ]
    return Judge(case).verdict(contestant, {"y": on_host(call(*inputs)).astype(np.float32)}).ratio


def convolution_inputs(setting: Setting, length: int) -> list[Tensor]:
    """u, and a kernel that decays: its computation is not timed."""
    decay = torch.linspace(0, -5, length, device=setting.device).exp()
    return [setting.normal(1, setting.dim, length), decay * torch.randn(setting.dim, length, device=setting.device)]


def fft_convolution(u: Tensor, K: Tensor) -> Tensor:
    """In float32: cuFFT has no bfloat16."""
    size = 2 * u.shape[-1]
    y = torch.fft.irfft(torch.fft.rfft(u.float(), size) * torch.fft.rfft(K, size), size)
    return y[..., : u.shape[-1]].to(u.dtype)


def convolution_error(call: Callable[..., Tensor], setting: Setting) -> float:
    """Against the same in float64 (claim CONV-5)."""
    u, K = convolution_inputs(setting, 128)
    y, x, k = (on_host(tensor) for tensor in (call(u, K), u, K))
    exact, norm = convolve(k, x), partial(np.linalg.norm, axis=-1, keepdims=True)
    transforms = 8 * UNIT * np.log2(2 * x.shape[-1]) * (2 * norm(k) * norm(x) + norm(k, ord=1) * norm(x))
    return float((np.abs(y - exact) / (transforms + rounding(setting) * (np.abs(exact) + transforms))).max())


def attention_inputs(setting: Setting, length: int) -> list[Tensor]:
    """q, k and v, (1, heads, length, HEAD)."""
    return [setting.normal(1, setting.dim // HEAD, length, HEAD) for _ in range(3)]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax attention, by torch's FlashAttention where that can."""
    with sdpa_kernel(KERNELS):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def attention_error(call: Callable[..., Tensor], setting: Setting) -> float:
    """Against the same in float64.

    A score is a sum of HEAD products in float32, and it, its scale and its weight may be rounded to the dtype. If all
    scores are within s of the exact ones, the weights e^score / Σ e^score are so within e^{2s} − 1 of theirs.
    """
    length = 100
    inputs = attention_inputs(setting, length)
    y, q, k, v = (on_host(tensor)[0] for tensor in (call(*inputs), *inputs))
    largest = np.einsum("hts,hus->htu", np.abs(q), np.abs(k)).max() / sqrt(HEAD)
    s = ((HEAD + 3) * UNIT + 3 * rounding(setting)) * largest
    relative = np.expm1(2 * s) + 3 * rounding(setting) + (length + HEAD) * UNIT
    return float((np.abs(y - attend(q, k, v)) / (relative * attend(q, k, np.abs(v)))).max())


def rounding(setting: Setting) -> float:
    """The unit roundoff of the dtype."""
    return torch.finfo(setting.stored).eps / 2


def on_host(x: Tensor) -> np.ndarray:
    """In float64."""
    return x.double().cpu().numpy()


OURS, ATTENTION = "our scan", "attention"
OPERATIONS = (
    Operation(OURS, 1, scan_inputs, our_scan, partial(scan_error, "any")),
    Operation("torch loop", 1, scan_inputs, partial(stored_scan, loop), partial(scan_error, "sequential")),
    Operation("torch scan", 1, scan_inputs, partial(stored_scan, halves), partial(scan_error, "tree")),
    Operation("FFT convolution", 1, convolution_inputs, fft_convolution, convolution_error),
    Operation(ATTENTION, 2, attention_inputs, attention, attention_error),
)
