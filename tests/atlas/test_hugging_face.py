"""Models of the atlas against those of Hugging Face's transformers, on their weights, by their path without kernels.

RWKV-4 is in test_linear_attention.py. transformers has none of S4, S5, H3, Hyena, RetNet, GLA, HGRN, QRNN and SRU, and
no RWKV after the fourth: see test_other_packages.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ssm_edu.atlas import mamba, mamba2, transformer
from ssm_edu.atlas._common import tapped
from ssm_edu.atlas._heads import decayed_scores, merge, split
from ssm_edu.selective.reference import sigmoid, silu
from tests.atlas.common import draw, run_steps
from tests.atlas.others import SINGLE, agree, imported, their_warnings_ignored

TOKENS = np.random.default_rng(0).standard_normal((17, 24))


def disturbed(build: Any) -> Any:
    """What `build` makes, in evaluation, with weights none of which is as it was initialised: a D of ones hides D."""
    torch = imported("torch")
    torch.manual_seed(0)
    with their_warnings_ignored(), torch.no_grad():
        module = build().eval()
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def outputs(module: Any, x: np.ndarray, *arguments: Any) -> Any:
    torch = imported("torch")
    with their_warnings_ignored(), torch.no_grad():
        return module(torch.tensor(x[None], dtype=torch.float32), *arguments)


def weights(module: Any) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("options", [{}, {"conv_kernel": 2, "expand": 3}])
def test_mamba(options: dict[str, int]) -> None:
    """Their mixer is the block, by its scan and step by step; the weights come by `ssm_edu.torch`'s two loaders."""
    modeling = imported("transformers.models.mamba.modeling_mamba")
    config = modeling.MambaConfig(hidden_size=24, state_size=5, num_hidden_layers=1, vocab_size=8, **options)
    mixer = disturbed(lambda: modeling.MambaMixer(config, layer_idx=0))
    from ssm_edu.torch.mamba import Mamba, to_atlas

    params = to_atlas(Mamba.from_state_dict(mixer.state_dict()))
    found = outputs(mixer, TOKENS)[0]
    backwards = mamba.Parameters(params.W_in, params.conv[:, ::-1], params.conv_bias, params.ssm, params.W_out)
    agree(found, mamba.parallel(params, TOKENS), mamba.parallel(backwards, TOKENS), SINGLE)
    agree(found, run_steps(mamba, params, TOKENS)[0], run_steps(mamba, backwards, TOKENS)[0], SINGLE)


def mamba2_mixer(own: dict[str, np.ndarray], x: np.ndarray, state: int, epsilon: float) -> np.ndarray:
    """W_out (g ⊙ RMSNorm(SSD(s) ⊙ silu(z))) with s = silu(conv(u)), after the released code; SSD is the atlas'."""
    heads, inner = len(own["D"]), own["out_proj.weight"].shape[1]
    z, u, delta = np.split(x @ own["in_proj.weight"].T, [inner, 2 * inner + 2 * state], axis=1)
    s = silu(tapped(u, own["conv1d.weight"][:, 0, ::-1]) + own["conv1d.bias"])
    X, B, C = np.split(s, [inner, inner + state], axis=1)
    delta, X = np.logaddexp(0, delta + own["dt_bias"]), split(X, heads)
    selected = mamba2.Selected(-delta * np.exp(own["A_log"]), delta[..., None] * X, B, C, own["D"][:, None] * X)
    y = mamba2.attend(selected) * silu(z)
    return (y / np.sqrt((y * y).mean(axis=1, keepdims=True) + epsilon) * own["norm.weight"]) @ own["out_proj.weight"].T


def test_mamba_2() -> None:
    """SSD-8, SSD-9: their mixer, by chunks of 4 tokens, around the atlas' quadratic form."""
    modeling = imported("transformers.models.mamba2.modeling_mamba2")
    config = modeling.Mamba2Config(
        hidden_size=24,
        state_size=5,
        num_heads=6,
        head_dim=8,
        n_groups=1,
        chunk_size=4,
        num_hidden_layers=1,
        vocab_size=8,
    )
    mixer = disturbed(lambda: modeling.Mamba2Mixer(config, layer_idx=0))
    own = weights(mixer)
    expected = mamba2_mixer(own, TOKENS, 5, config.layer_norm_epsilon)
    wrong = mamba2_mixer(own | {"A_log": own["A_log"][::-1]}, TOKENS, 5, config.layer_norm_epsilon)
    agree(outputs(mixer, TOKENS)[0], expected, wrong, SINGLE)


def lightning_attention(own: dict[str, np.ndarray], x: np.ndarray, log_a: np.ndarray, epsilon: float) -> np.ndarray:
    """W_out (σ(W_gate x) ⊙ RMSNorm(o)), o by a retention of silu(W x) that forgets at a rate of log a, (heads,)."""
    q, k, v = np.split(split(silu(x @ own["qkv_proj.weight"].T), len(log_a)), 3, axis=-1)
    scores = decayed_scores(q, k, np.broadcast_to(log_a[:, None], q.shape))
    o = merge(np.einsum("hti,ihv->thv", scores, v))
    o = o / np.sqrt((o * o).mean(axis=1, keepdims=True) + epsilon) * own["norm.weight"]
    return (sigmoid(x @ own["output_gate.weight"].T) * o) @ own["out_proj.weight"].T


def test_retention_is_minimaxs_lightning_attention() -> None:
    """ATT-7, ATT-8: by blocks of 4 tokens, without RetNet's rotations, and with another norm and gate around it."""
    modeling = imported("transformers.models.minimax.modeling_minimax")
    config = modeling.MiniMaxConfig(
        hidden_size=24, num_attention_heads=3, head_dim=8, block_size=4, num_hidden_layers=2, vocab_size=8
    )
    layer = disturbed(lambda: modeling.MiniMaxLightningAttention(config, layer_idx=0))
    own, log_a = weights(layer), -layer.slope_rate.double().numpy().ravel()
    expected, wrong = (lightning_attention(own, TOKENS, rate, 1e-6) for rate in (log_a, 2 * log_a))
    agree(outputs(layer, TOKENS, None, None)[0][0], expected, wrong, SINGLE)


def test_the_transformer_layer_is_llamas() -> None:
    """COST-12: rotary positions too, of which they turn the first half of a head against the second."""
    torch = imported("torch")
    modeling = imported("transformers.models.llama.modeling_llama")
    heads, pair = 3, 4
    params, x = draw(transformer, 0, 17, width=24, heads=heads, pair=pair, hidden=40)
    config = modeling.LlamaConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=heads,
        vocab_size=8,
        rms_norm_eps=transformer.EPSILON,
        attn_implementation="eager",
    )
    with their_warnings_ignored():
        model = modeling.LlamaModel(config).eval()
    model.norm = torch.nn.Identity()
    halves = np.concatenate([np.arange(0, 2 * pair, 2), np.arange(1, 2 * pair, 2)])
    W_q, W_k, W_v, W_o = params.attention
    own = {
        "input_layernorm.weight": params.g_attention,
        "self_attn.q_proj.weight": W_q[:, halves].reshape(-1, 24),
        "self_attn.k_proj.weight": W_k[:, halves].reshape(-1, 24),
        "self_attn.v_proj.weight": W_v.reshape(-1, 24),
        "self_attn.o_proj.weight": merge(W_o.swapaxes(0, 1)),
        "post_attention_layernorm.weight": params.g_mlp,
        "mlp.gate_proj.weight": params.W_gate,
        "mlp.up_proj.weight": params.W_up,
        "mlp.down_proj.weight": params.W_down,
    }
    model.layers[0].load_state_dict({name: torch.from_numpy(value) for name, value in own.items()})
    with their_warnings_ignored(), torch.no_grad():
        found = model(inputs_embeds=torch.tensor(x[None], dtype=torch.float32), use_cache=False).last_hidden_state[0]
    unturned = params._replace(attention=params.attention._replace(W_q=W_q[:, halves], W_k=W_k[:, halves]))
    agree(found, transformer.parallel(params, x), transformer.parallel(unturned, x), SINGLE)
    agree(found, run_steps(transformer, params, x)[0], transformer.parallel(unturned, x), SINGLE)
