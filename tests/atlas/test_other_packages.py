"""Models of the atlas against packages other than transformers, on the same weights.

| model | package | how much of the model it is |
|---|---|---|
| linear attention, GLA, HGRN, QRNN | fla-core, its plain loops | the recurrence; the maps around it are ours |
| RetNet | yet-another-retnet | the layer, in both forms |
| RWKV-4, 6 and 7 | rwkv, by the models' author | the time mixing of one token |
| S5 | s5-pytorch | the layer |
| SRU | sru, by the paper's authors | the recurrence and the highway |
| S4, S4D | scipy.signal | the system, in its real form, with states in another basis |
| H3, Hyena | torch's convolutions | the layer |

No package on PyPI was found that has H3, Hyena or QRNN and runs without a GPU, nor S4 without JAX and much else.
Mamba-3 is in mamba_ssm alone, whose kernels need Triton and a GPU. LSTM, GRU, attention: test_rnn_attention.py.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal

from ssm_edu.atlas import gla, h3, hgrn, hyena, linear_attention, qrnn, retnet, rwkv4, rwkv6, rwkv7, s4, s4d, s5, sru
from ssm_edu.hippo import dplr_legs, legs
from tests.atlas.common import TOLERANCE, draw, run_steps
from tests.atlas.others import SINGLE, agree, function, imported, module, their_warnings_ignored


def tensors(*arrays: Any) -> list[Any]:
    torch = imported("torch")
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def singles(*arrays: Any) -> list[Any]:
    return [tensor.float() for tensor in tensors(*arrays)]


def batch(*arrays: Any) -> list[Any]:
    """One sequence each: (1, length, …)."""
    return [tensor[None] for tensor in tensors(*arrays)]


def by_steps(model: Any, params: Any, x: np.ndarray) -> np.ndarray:
    return run_steps(model, params, x)[0]


# fla-core: float32 inside


def test_linear_attention() -> None:
    """ATT-1, ATT-2."""
    imported("einops")
    fla = module("fla", "ops/linear_attn/naive.py")
    params, x = draw(linear_attention, 0, 17, width=8)
    q, k, v = (part[:, None] for part in linear_attention.project(params, x))
    found, _ = fla.naive_recurrent_linear_attn(*batch(q, k, v[..., :-1]), scale=1.0, normalize=True)
    wrong = linear_attention.parallel(replace(params, W_Q=params.W_K), x)
    agree(found[0, :, 0], linear_attention.parallel(params, x), wrong, SINGLE)
    agree(found[0, :, 0], by_steps(linear_attention, params, x), wrong, SINGLE)


def test_gla() -> None:
    """ATT-11. Its queries are scaled by 1/√key, ours are not."""
    fla = module("fla", "ops/gla/naive.py")
    params, x = draw(gla, 0, 17)
    q, k, v = gla.project(params, x)
    o, _ = fla.naive_recurrent_gla(*batch(q * np.sqrt(q.shape[-1]), k, v, gla.log_alpha(params, x)))
    found = gla.output(params, x, o[0].numpy())
    wrong = gla.parallel(replace(params, b_alpha=params.b_alpha - 4), x)
    agree(found, gla.parallel(params, x), wrong, SINGLE)
    agree(found, by_steps(gla, params, x), wrong, SINGLE)


def test_hgrn() -> None:
    """Its loop is real: θ = 0, and the real and the imaginary part are channels of their own."""
    fla = module("fla", "ops/hgrn/naive.py")
    params, x = draw(hgrn, 0, 17)
    params = replace(params, theta=0 * params.theta)
    lam, written = hgrn.gates(params, x)
    parts, decays = np.concatenate([written.real, written.imag], axis=1), np.tile(lam.real, 2)
    o, _ = fla.naive_recurrent_hgrn(*batch(parts, np.log(decays)))
    real, imaginary = np.split(o[0].numpy(), 2, axis=1)
    found = hgrn.output(params, x, real + 1j * imaginary)
    wrong = hgrn.parallel(replace(params, gamma=0.5 * params.gamma), x)
    agree(found, hgrn.parallel(params, x), wrong, SINGLE)
    agree(found, by_steps(hgrn, params, x), wrong, SINGLE)


def test_qrnn() -> None:
    """GATE-1: torch's convolutions, and the loop of HGRN for fo-pooling."""
    fla = module("fla", "ops/hgrn/naive.py")
    torch = imported("torch")
    params, x = draw(qrnn, 0, 17, window=3)
    (inputs,) = batch(x.T)
    padded = torch.nn.functional.pad(inputs, (2, 0))
    z, f, o = (torch.conv1d(padded, W)[0].T for W in tensors(*(np.moveaxis(W, 0, -1) for W in params)))
    f = torch.sigmoid(f)
    c, _ = fla.naive_recurrent_hgrn(((1 - f) * torch.tanh(z))[None], f.log()[None])
    found = torch.sigmoid(o) * c[0]
    wrong = qrnn.parallel(params._replace(W_f=params.W_f[::-1]), x)
    agree(found, qrnn.parallel(params, x), wrong, SINGLE)
    agree(found, by_steps(qrnn, params, x), wrong, SINGLE)


# RetNet


def test_retnet() -> None:
    """ATT-7: the layer with its own γ, on whole sequences and token by token. A head's γ is learned by none of us."""
    imported("einops")
    torch = imported("torch")
    other = module("yet_another_retnet", "retention.py")
    heads, pair = 2, 4
    params, x = draw(retnet, 0, 17, width=16, heads=heads, pair=pair, value=2 * pair)
    layer = other.MultiScaleRetention(16, heads, bias=False, group_norm_eps=1e-5, dtype=torch.float64)
    gamma = other._build_decay_gammas(heads, dtype=torch.float64).numpy()
    params = replace(params, A=gamma[:, None] * params.A / abs(params.A))
    own = {
        "q_proj.weight": params.W_Q.T,
        "k_proj.weight": params.W_K.T * np.sqrt(2 * pair),  # which it divides by
        "v_proj.weight": params.W_V.T,
        "g_proj.weight": params.W_G.T,
        "out_proj.weight": params.W_O.T,
    }
    layer.load_state_dict(dict(zip(own, tensors(*own.values()), strict=True)) | {"thetas": layer.thetas})
    (inputs,) = batch(x)
    found, _ = layer.forward_parallel(inputs, inputs, inputs)
    wrong = retnet.parallel(replace(params, A=params.A**2), x)
    agree(found[0], retnet.parallel(params, x), wrong, TOLERANCE)
    agree(found[0], retnet.chunkwise(params, x, 4), wrong, TOLERANCE)
    state, tokens = None, []
    for t, token in enumerate(inputs[0]):
        y, state = layer.forward_recurrent(token[None], token[None], token[None], t, state)
        tokens.append(y[0])
    agree(torch.stack(tokens), by_steps(retnet, params, x), wrong, TOLERANCE)


# RWKV, by its author


def rwkv(name: str) -> Any:
    """One of the functions of the rwkv package, which sets torch's options for the whole process when imported."""
    torch = imported("torch")

    def matmul(a: Any, b: Any, *_: None, output_dtype: Any = None) -> Any:
        return a @ b

    names = {"torch": torch, "F": torch.nn.functional, "matmul": matmul}
    return function("rwkv", "model.py", name, names)


def normalised(x: np.ndarray) -> np.ndarray:
    """What its block does first: a LayerNorm whose learned scale is 1 here."""
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)


def test_rwkv_4() -> None:
    """ATT-20: the stable form of WKV."""
    att_one = rwkv("att_one")
    params, x = draw(rwkv4, 0, 17, width=8)
    zero, one = np.zeros(8), np.ones(8)
    before, a, b, p = tensors(zero, zero, zero, zero - 1e30)
    r, k, v = params.mu
    W_r, W_k, W_v = params.W
    own = tensors(one, zero, k, v, r, -params.w, params.u, W_k, W_v, W_r, params.W_o)
    found = np.empty_like(x)
    for t, token in enumerate(tensors(*x)):
        y, before, a, b, p = att_one(None, token, before, a, b, p, *own, *[None] * 16)
        found[t] = y - token
    wrong = rwkv4.parallel(replace(params, u=params.u + 1), normalised(x))
    agree(found, rwkv4.parallel(params, normalised(x)), wrong, TOLERANCE)
    agree(found, by_steps(rwkv4, params, normalised(x)), wrong, TOLERANCE)


def test_rwkv_6() -> None:
    """ATT-23. It takes the five token shifts in the order w, k, v, r, g, where d is w to us."""
    att_one = rwkv("att_one_v6_0")
    heads, width = 2, 8
    params, x = draw(rwkv6, 0, 17, width=width, heads=heads)
    order = [4, 1, 2, 0, 3]
    zero, one = np.zeros(width), np.ones(width)
    column = (heads, width // heads, 1)
    W_r, W_k, W_v, W_g, W_o = params.W
    own = tensors(
        *(one, zero, one, zero, params.mu_x, *params.lam[order]),
        *(np.concatenate(params.A[order], axis=1), params.B[order], params.A[5], params.B[5]),
        *(params.lam[5].reshape(column), params.u.reshape(column), W_k, W_v, W_r, W_g, W_o),
    )
    before, S = tensors(zero, rwkv6.first_state(params).S)
    found = np.empty_like(x)
    for t, token in enumerate(tensors(*x)):
        y, before, S = att_one(None, token, before, S, *own, *[None] * 20)
        found[t] = y - token
    wrong = rwkv6.parallel(replace(params, lam=params.lam[::-1]), normalised(x))
    agree(found, rwkv6.parallel(params, normalised(x)), wrong, SINGLE)
    agree(found, by_steps(rwkv6, params, normalised(x)), wrong, SINGLE)


def test_rwkv_7() -> None:
    """ATT-24, ATT-26. Its state is ours transposed; e^{−1/2} is rounded to six digits there."""
    mix = rwkv("RWKV_x070_TMix_one")
    heads, width = 2, 8
    params, x = draw(rwkv7, 0, 17, width=width, heads=heads)
    zero, one = np.zeros(width), np.ones(width)
    mu = dict(zip("rkvdag", params.mu, strict=True))
    lora = {name: (A, B) for name, A, B in zip("dag", params.A, params.B, strict=True)}
    W_r, W_k, W_v, W_o = params.W
    own = singles(
        *(mu[name] for name in "rdkvag"),
        *(params.lam[0], *lora["d"], params.lam[1], *lora["a"]),
        *(zero, zero, zero, *lora["g"], params.xi.ravel(), params.alpha.ravel(), params.rho.ravel()),
        *(W_r, W_k, W_v, W_o, one, zero),
    )
    before, S, v = singles(zero, rwkv7.first_state(params).S, zero)
    found = np.empty_like(x)
    for t, token in enumerate(singles(*x)):
        y, before, S, v = mix(0, heads, width // heads, token, before, v, S, *own)
        found[t] = y
    wrong = rwkv7.parallel(replace(params, lam=params.lam[::-1]), x)
    agree(found, rwkv7.parallel(params, x), wrong, SINGLE)
    agree(found, by_steps(rwkv7, params, x), wrong, SINGLE)


# S5 and SRU


def test_s5(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its C has no factor 2 for the other half of each pair."""
    torch = imported("torch")
    other = imported("s5.s5_model")
    monkeypatch.setattr(other.as_complex, "__defaults__", (torch.complex128,))
    params, x = draw(s5, 0, 17)
    Lambda, B, C, D, log_step = tensors(params.Lambda, params.B, 2 * params.C, params.D, np.log(params.delta))
    n, width = params.B.shape
    layer = other.S5SSM(
        Lambda, torch.eye(n), torch.eye(n, dtype=Lambda.dtype), width, n, 0.1, 1, bcInit="complex_normal"
    )
    layer.B, layer.C = torch.nn.Parameter(torch.view_as_real(B)), torch.nn.Parameter(C)
    layer.D, layer.log_step = torch.nn.Parameter(D), torch.nn.Parameter(log_step)
    (inputs,) = tensors(x)
    wrong = s5.parallel(replace(params, Lambda=params.Lambda.conj()), x)
    agree(layer(inputs), s5.parallel(params, x), wrong, TOLERANCE)
    agree(layer(inputs), by_steps(s5, params, x), wrong, TOLERANCE)


@pytest.mark.parametrize("version", [1, 2])
def test_sru(version: int) -> None:
    """GATE-4, GATE-5: with v_f = 0 and without. The package compiles C++ when imported; this is its loop in Python."""
    torch = imported("torch")
    names = {"torch": torch, "warnings": warnings}
    recurrence = function("sru", "ops.py", "elementwise_recurrence_naive", names)
    params, x = draw(sru, 0, 17)
    width = len(params.W)
    if version == 2:
        params = params._replace(v_f=np.random.default_rng(1).standard_normal(width))
    inputs, W, v, bias = tensors(
        x[:, None], np.array(params[:3]), np.concatenate(params[3:5]), np.concatenate(params[5:])
    )
    U = torch.einsum("tbn,kmn->tbmk", inputs, W).reshape(len(x), 1, -1)
    with their_warnings_ignored():
        found, _ = recurrence(U, inputs, v, bias, None, 0, width, bidirectional=False, has_skip_term=True)
    wrong = sru.parallel(params._replace(v_r=0 * params.v_r), x)
    agree(found[:, 0], sru.parallel(params, x), wrong, TOLERANCE)
    agree(found[:, 0], by_steps(sru, params, x), wrong, TOLERANCE)
    if version == 1:
        agree(found[:, 0], sru.as_affine_scan(params, x).outputs(), wrong, TOLERANCE)


# scipy.signal


def simulated(A: Any, B: Any, C: Any, D: float, delta: float, method: str, x: np.ndarray) -> np.ndarray:
    """y_t = C h_t + D x_t; its systems put out what they hold before the token, so C h_t is written C Ā h + C B̄ x."""
    A_bar, B_bar, *_ = scipy.signal.cont2discrete((A, B[:, None], C[None], [[0.0]]), delta, method)
    return scipy.signal.dlsim((A_bar, B_bar, (C @ A_bar)[None], [C @ B_bar + D], 1), x)[1][:, 0]


def test_s4() -> None:
    """CONV-9: the real LegS system itself, not its eigenbasis."""
    params, x = draw(s4, 0, 17)
    A, B = legs(params.B.shape[1])
    C = (params.C @ dplr_legs(len(A))[-1].conj().T).real
    found = [simulated(A, B, C[d], params.D[d], params.delta[d], "bilinear", x[:, d]) for d in range(len(C))]
    wrong = s4.parallel(replace(params, delta=params.delta[::-1]), x)
    agree(np.transpose(found), s4.parallel(params, x), wrong, TOLERANCE)
    agree(np.transpose(found), by_steps(s4, params, x), wrong, TOLERANCE)


def test_s4d() -> None:
    """Each complex state as two real ones."""
    params, x = draw(s4d, 0, 17)
    found = []
    for d, (A, B, C) in enumerate(zip(params.A, params.B, params.C, strict=True)):
        real = np.block([[np.diag(A.real), -np.diag(A.imag)], [np.diag(A.imag), np.diag(A.real)]])
        B_real, C_real = np.concatenate([B.real, B.imag]), 2 * np.concatenate([C.real, -C.imag])
        found.append(simulated(real, B_real, C_real, params.D[d], params.delta[d], "zoh", x[:, d]))
    wrong = s4d.parallel(replace(params, delta=params.delta[::-1]), x)
    agree(np.transpose(found), s4d.parallel(params, x), wrong, TOLERANCE)
    agree(np.transpose(found), by_steps(s4d, params, x), wrong, TOLERANCE)


# torch's convolutions


def causal(x: Any, filters: Any) -> Any:
    """The causal convolution of x (length, width) with filters (width, taps), the first of which meets x_t."""
    torch = imported("torch")
    padded = torch.nn.functional.pad(x.T[None], (filters.shape[1] - 1, 0))
    return torch.conv1d(padded, filters.flip(-1)[:, None], groups=len(filters))[0].T


def test_h3() -> None:
    params, x = draw(h3, 0, 17)
    inputs, W_Q, W_K, W_V, W_O, taps = tensors(x, params.W_Q, params.W_K, params.W_V, params.W_O, params.shift_C)
    K, D = tensors(s4d.kernel(params.diagonal, len(x)), params.diagonal.D)
    between = causal(inputs @ W_K.T, taps) * (inputs @ W_V.T)
    found = ((inputs @ W_Q.T) * (causal(between, K) + D * between)) @ W_O.T
    wrong = h3.parallel(replace(params, shift_C=params.shift_C[:, ::-1]), x)
    agree(found, h3.parallel(params, x), wrong, TOLERANCE)
    agree(found, by_steps(h3, params, x), wrong, TOLERANCE)


def test_hyena() -> None:
    params, x = draw(hyena, 0, 17)
    inputs, W, short, W_O = tensors(x, params.W, params.short, params.W_O)
    z, *gates = causal(inputs @ W.T, short).chunk(hyena.ORDER + 1, dim=1)
    for gate, filters, D in zip(gates, tensors(*params.filters[..., : len(x)]), tensors(*params.D), strict=True):
        z = gate * (causal(z, filters) + D * z)
    wrong = hyena.parallel(replace(params, D=params.D[::-1]), x)
    agree(z @ W_O.T, hyena.parallel(params, x), wrong, TOLERANCE)
    agree(z @ W_O.T, by_steps(hyena, params, x), wrong, TOLERANCE)
