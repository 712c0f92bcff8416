"""Models by plain loops over heads and tokens, as their papers' equations stand, without a function of theirs.

All forms of a model share its maps, gates and norms, so that they agree on a mistake there; a loop does not. It is
held to the tolerance of `common`, with the norms' stretch as `test_linear_attention` has it.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.atlas import attention, gru, lstm, rwkv4, rwkv6, rwkv7, sru, transformer
from tests.atlas.common import assert_close, draw, layer_norm, lengths, seeds, sigma, silu

few, widths, head_sizes = st.integers(1, 3), st.integers(1, 6), st.integers(2, 4)


def softmax_mean(scores, values):
    weights = np.exp(scores)
    return weights @ values / weights.sum()


def with_token_before(x):
    return zip(x, [np.zeros_like(x[0]), *x[:-1]], strict=True)


# Gated recurrences


@given(seeds, lengths, widths)
def test_an_lstm_by_loops(seed, length, width):
    """The forget gate keeps the cell; the output reads the new cell, and no gate reads any."""
    params, x = draw(lstm, seed, length, width=width)
    h, c, y = np.zeros(width), np.zeros(width), []
    for x_t in x:
        i, f, g, o = (W @ x_t + U @ h + b for W, U, b in zip(*params, strict=True))
        c = sigma(f) * c + sigma(i) * np.tanh(g)
        h = sigma(o) * np.tanh(c)
        y.append(h)
    assert_close(lstm.parallel(params, x), np.array(y), "by loops")


@given(seeds, lengths, widths)
def test_a_gru_by_loops(seed, length, width):
    """Cho 2014, eq. 5 to 8: z keeps the old state, r resets it before its matrix."""
    params, x = draw(gru, seed, length, width=width)
    (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = params
    h, y = np.zeros(width), []
    for x_t in x:
        r, z = sigma(W_r @ x_t + U_r @ h + b_r), sigma(W_z @ x_t + U_z @ h + b_z)
        h = z * h + (1 - z) * np.tanh(W_n @ x_t + U_n @ (r * h) + b_n)
        y.append(h)
    assert_close(gru.parallel(params, x), np.array(y), "by loops")


@given(seeds, lengths, widths)
def test_an_sru_by_loops(seed, length, width):
    """SRU, eq. 1 to 4: both gates read the cell before; the highway carries the token."""
    params, x = draw(sru, seed, length, width=width)
    params = params._replace(v_f=np.random.default_rng(seed).standard_normal(width))
    W, W_f, W_r, v_f, v_r, b_f, b_r = params
    c, y = np.zeros(width), []
    for x_t in x:
        f, r = sigma(W_f @ x_t + v_f * c + b_f), sigma(W_r @ x_t + v_r * c + b_r)
        c = f * c + (1 - f) * (W @ x_t)
        y.append(r * c + (1 - r) * x_t)
    assert_close(sru.parallel(params, x), np.array(y), "by loops")


# Attention


@given(seeds, lengths, widths, few, few)
def test_attention_by_loops(seed, length, width, heads, size):
    """Vaswani 2017, eq. 1 and §3.2.2: the token sees itself and those before."""
    params, x = draw(attention, seed, length, width=width, heads=heads, size=size)
    y = np.zeros_like(x)
    for W_q, W_k, W_v, W_o in zip(*params, strict=True):
        for t in range(length):
            scores = [(W_q @ x[t]) @ (W_k @ x[s]) / size**0.5 for s in range(t + 1)]
            y[t] += W_o @ softmax_mean(scores, x[: t + 1] @ W_v.T)
    assert_close(attention.parallel(params, x), y, "by loops")


def rms_norm(x, g):
    return np.array([g * row / np.sqrt((row**2).mean() + 1e-6) for row in x])


def turned(x_t, t):
    """Su 2021, eq. 15: a matrix of 2 × 2 blocks, for coordinates 2i and 2i + 1 and the angle tθ_i."""
    R = np.zeros((len(x_t), len(x_t)))
    for i in range(len(x_t) // 2):
        angle = t * 10000 ** (-2 * i / len(x_t))
        R[2 * i, 2 * i], R[2 * i, 2 * i + 1] = np.cos(angle), -np.sin(angle)
        R[2 * i + 1, 2 * i], R[2 * i + 1, 2 * i + 1] = np.sin(angle), np.cos(angle)
    return R @ x_t


@given(seeds, lengths, widths, few, few, widths)
def test_a_transformer_layer_by_loops(seed, length, width, heads, pair, hidden):
    """Touvron 2023, §2.2: a norm before each half, and a sum after it; v is not turned."""
    params, x = draw(transformer, seed, length, width=width, heads=heads, pair=pair, hidden=hidden)
    normed, middle = rms_norm(x, params.g_attention), x.copy()
    for W_q, W_k, W_v, W_o in zip(*params.attention, strict=True):
        for t in range(length):
            q = turned(W_q @ normed[t], t)
            scores = [q @ turned(W_k @ normed[s], s) / (2 * pair) ** 0.5 for s in range(t + 1)]
            middle[t] += W_o @ softmax_mean(scores, normed[: t + 1] @ W_v.T)
    y = [
        x_t + params.W_down @ (silu(params.W_gate @ n) * (params.W_up @ n))
        for x_t, n in zip(middle, rms_norm(middle, params.g_mlp), strict=True)
    ]
    assert_close(transformer.parallel(params, x), np.array(y), "by loops")


# RWKV


@given(seeds, lengths, widths)
def test_rwkv4_by_loops(seed, length, width):
    """The bonus u is the present token's alone, and the token before it has not faded yet."""
    params, x = draw(rwkv4, seed, length, width=width)
    mixed = [[(m * now + (1 - m) * before) @ W for m, W in zip(params.mu, params.W, strict=True)]
             for now, before in with_token_before(x)]  # fmt: skip
    y = np.empty_like(x)
    for t, (r, k, v) in enumerate(mixed):
        above, below = np.exp(params.u + k) * v, np.exp(params.u + k)
        for i, (_, k_i, v_i) in enumerate(mixed[:t]):
            weight = np.exp(-(t - 1 - i) * params.w + k_i)
            above, below = above + weight * v_i, below + weight
        y[t] = (sigma(r) * above / below) @ params.W_o
    assert_close(rwkv4.parallel(params, x), y, "by loops")


@given(seeds, lengths, few, head_sizes, few)
def test_rwkv6_by_loops(seed, length, heads, size, rank):
    """Finch: each of r, k, v, g and d mixes in the token before by a lora of its own."""
    params, x = draw(rwkv6, seed, length, width=heads * size, heads=heads, rank=rank)
    loras = list(zip(params.lam, params.A, params.B, strict=True))
    W_r, W_k, W_v, W_g, W_o = params.W
    y, S = np.empty_like(x), np.zeros((heads, size, size))

    def lora(which, z):
        lam, A, B = loras[which]
        return lam + np.tanh(z @ A) @ B

    for t, (now, before) in enumerate(with_token_before(x)):
        x_r, x_k, x_v, x_g, x_d = (
            now + (before - now) * lora(which, now + (before - now) * params.mu_x) for which in range(5)
        )
        r, k, v, w = (z.reshape(heads, size) for z in (x_r @ W_r, x_k @ W_k, x_v @ W_v, np.exp(-np.exp(lora(5, x_d)))))
        o = np.empty((heads, size))
        for h in range(heads):
            o[h] = layer_norm(r[h] @ (S[h] + np.diag(params.u[h]) @ np.outer(k[h], v[h])), 64e-5)
            S[h] = np.diag(w[h]) @ S[h] + np.outer(k[h], v[h])
        y[t] = (silu(x_g @ W_g) * o.ravel()) @ W_o
    assert_close(rwkv6.parallel(params, x), y, "by loops")


@given(seeds, lengths, few, head_sizes, few)
def test_rwkv7_by_loops(seed, length, heads, size, rank):
    """Goose, with its state (value, key) and its transition as the matrix that it is."""
    params, x = draw(rwkv7, seed, length, width=heads * size, heads=heads, rank=rank)
    (A_d, A_a, A_g), (B_d, B_a, B_g), (lam_d, lam_a) = params.A, params.B, params.lam
    W_r, W_k, W_v, W_o = params.W
    y, S = np.empty_like(x), np.zeros((heads, size, size))
    for t, (now, before) in enumerate(with_token_before(x)):
        x_r, x_k, x_v, x_d, x_a, x_g = (now + mu * (before - now) for mu in params.mu)
        w = np.exp(-np.exp(-0.5) * sigma(lam_d + np.tanh(x_d @ A_d) @ B_d))
        a = sigma(lam_a + x_a @ A_a @ B_a)
        r, k, v, w, a = (z.reshape(heads, size) for z in (x_r @ W_r, x_k @ W_k, x_v @ W_v, w, a))
        p = np.empty((heads, size))
        for h in range(heads):
            kappa = k[h] * params.xi[h] / np.linalg.norm(k[h] * params.xi[h])
            written = k[h] * (1 - params.alpha[h] + a[h] * params.alpha[h])
            S[h] = S[h] @ (np.diag(w[h]) - np.outer(kappa, a[h] * kappa)) + np.outer(v[h], written)
            p[h] = layer_norm(S[h] @ r[h], 64e-5) + r[h] @ (params.rho[h] * written) * v[h]
        y[t] = (sigma(x_g @ A_g) @ B_g * p.ravel()) @ W_o
    assert_close(rwkv7.parallel(params, x), y, "by loops")
