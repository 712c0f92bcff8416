"""The Mamba block in PyTorch: against NumPy's, its steps, its gradients, and weights in others' layouts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssm_edu.atlas import mamba as atlas_mamba

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from ssm_edu.torch import Mamba, mamba_simple  # noqa: E402
from ssm_edu.torch.mamba import to_atlas  # noqa: E402

# What mamba_ssm's Mamba(d_model) keeps, by name, for d_inner channels of N states and a rank of Δ.
LAYOUT: dict[str, Callable[..., tuple[int, ...]]] = {
    "in_proj.weight": lambda d, inner, N, rank: (2 * inner, d),
    "conv1d.weight": lambda d, inner, N, rank: (inner, 1, 4),
    "conv1d.bias": lambda d, inner, N, rank: (inner,),
    "x_proj.weight": lambda d, inner, N, rank: (rank + 2 * N, inner),
    "dt_proj.weight": lambda d, inner, N, rank: (inner, rank),
    "dt_proj.bias": lambda d, inner, N, rank: (inner,),
    "A_log": lambda d, inner, N, rank: (inner, N),
    "D": lambda d, inner, N, rank: (inner,),
    "out_proj.weight": lambda d, inner, N, rank: (d, inner),
}


def atlas_block(seed: int = 0, **sizes: int) -> tuple[atlas_mamba.Parameters, np.ndarray]:
    """Parameters and a text of 13 tokens."""
    rng = np.random.default_rng(seed)
    params = atlas_mamba.init(rng, **sizes)
    return params, rng.standard_normal((13, len(params.W_out)))


def found_by(block: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return block(torch.from_numpy(x)[None].to(block.D.dtype))[0].double().numpy()


def worst(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(found - right).max() / np.abs(right).max())


# Against NumPy


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 5),
)  # fmt: skip
def test_it_is_the_block_of_the_atlas(seed: int, width: int, state: int, rank: int, expand: int, taps: int) -> None:
    params, x = atlas_block(seed, width=width, state=state, rank=rank, expand=expand, taps=taps)
    block, right = Mamba.from_atlas(params), atlas_mamba.parallel(params, x)
    # A few hundred roundings of terms no larger than the outputs by much: some 1e-14 and, in float32, some 1e-6.
    assert worst(found_by(block, x), right) < 1e-10
    assert worst(found_by(block.float(), x), right) < 1e-5


def test_the_weights_go_there_and_back() -> None:
    params, x = atlas_block()
    again = to_atlas(Mamba.from_atlas(params))
    for name in ("W_in", "conv", "conv_bias", "W_out"):
        np.testing.assert_array_equal(getattr(again, name), getattr(params, name))
    for name in ("D", "W_B", "W_C", "W_down", "W_up", "delta_bias"):
        np.testing.assert_array_equal(getattr(again.ssm, name), getattr(params.ssm, name))
    # through a logarithm below 3 and back
    np.testing.assert_allclose(again.ssm.A, params.ssm.A, rtol=8 * 2**-53)
    torch.manual_seed(0)
    block = Mamba(6, d_state=3, conv_bias=False, dtype=torch.float64)
    x = np.random.default_rng(0).standard_normal((9, 6))
    assert worst(atlas_mamba.parallel(to_atlas(block), x), found_by(block, x)) < 1e-10


WRONG = {
    "taps in reverse": ("conv1d.weight", lambda w: w.flip(-1)),
    "B for C": ("x_proj.weight", lambda w: torch.cat([w[:2], w[10:], w[2:10]])),
    "no skip": ("D", torch.zeros_like),
    "A for log(−A)": ("A_log", torch.exp),
    "gate for input": ("in_proj.weight", lambda w: w.roll(len(w) // 2, 0)),
    "no bias of Δ": ("dt_proj.bias", torch.zeros_like),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_weights_are_told(wrong: str) -> None:
    params, x = atlas_block()
    block, (name, change) = Mamba.from_atlas(params), WRONG[wrong]
    with torch.no_grad():
        parameter = block.get_parameter(name)
        parameter.copy_(change(parameter.clone()))
    assert worst(found_by(block, x), atlas_mamba.parallel(params, x)) > 1e-4


# Steps, pieces, gradients


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [False, True])
def test_steps_and_pieces_make_the_forward(dtype: Any, bias: bool) -> None:
    torch.manual_seed(0)
    block, x = Mamba(8, d_state=5, bias=bias, dtype=dtype), torch.randn(3, 11, 8, dtype=dtype)
    tolerance = {"rtol": 0.0, "atol": 64 * torch.finfo(dtype).eps}  # outputs below 1, some dozens of roundings each
    with torch.no_grad():
        right = block(x)
        stepped, pieced = block.first_cache(3), block.first_cache(3)
        where = stepped.h.data_ptr(), stepped.recent.data_ptr()
        y = torch.stack([block.step(x[:, t], stepped) for t in range(11)], dim=1)
        torch.testing.assert_close(y, right, **tolerance)
        assert where == (stepped.h.data_ptr(), stepped.recent.data_ptr())  # constant memory: written in place
        assert (stepped.h.shape, stepped.recent.shape) == ((3, 16, 5), (3, 16, 4))
        pieces = [block(x[:, :1], pieced), block(x[:, 1:3], pieced), block(x[:, 3:], pieced)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), right, **tolerance)
        torch.testing.assert_close(pieced.h, stepped.h, **tolerance)
        torch.testing.assert_close(pieced.recent, stepped.recent, **tolerance)
        forgetful = torch.cat([block(x[:, :3]), block(x[:, 3:])], dim=1)
    assert (forgetful - right).abs().max() > 1e-3


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    block, x = Mamba(2, d_state=2, d_conv=2, dtype=torch.float64), torch.randn(1, 3, 2, dtype=torch.float64)
    names = [name for name, _ in block.named_parameters()]

    def forward(*values: Any) -> Any:
        return torch.func.functional_call(block, dict(zip(names, values[1:], strict=True)), values[:1])

    inputs = [x.requires_grad_(), *block.parameters()]
    assert torch.autograd.gradcheck(forward, inputs)


def test_narrow_numbers_and_autocast() -> None:
    torch.manual_seed(0)
    block, x = Mamba(8), torch.randn(2, 9, 8)
    right = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(x)
    narrow = Mamba(8, dtype=torch.bfloat16)
    assert (narrow.A_log.dtype, narrow.in_proj.weight.dtype) == (torch.float32, torch.bfloat16)
    narrow.load_state_dict(block.state_dict())
    cache = narrow.first_cache(2)
    y = torch.stack([narrow.step(token, cache) for token in x.bfloat16().unbind(1)], dim=1)
    for one in (found, narrow(x.bfloat16()), y):
        assert one.dtype == torch.bfloat16
        # four matrix products with a unit roundoff of 2⁻⁸ each, of sums with some cancellation
        assert (one - right).abs().max() < 16 * 2**-8 * right.abs().max()


def test_it_compiles_whole() -> None:
    torch.manual_seed(0)
    block, x = Mamba(4), torch.randn(2, 5, 4)
    torch.compiler.reset()
    assert torch.equal(torch.compile(block, fullgraph=True, backend="aot_eager")(x), block(x))


# What it starts from, and others' layouts


def test_names_shapes_and_first_values_are_mamba_ssms() -> None:
    """Claims HIPPO-16, HIPPO-17 and HIPPO-19."""
    torch.manual_seed(0)
    d, inner, N, rank = 40, 80, 16, 3
    block = Mamba(d)
    assert {name: tuple(x.shape) for name, x in block.named_parameters()} == {
        name: shape(d, inner, N, rank) for name, shape in LAYOUT.items()
    }
    torch.testing.assert_close(block.A, -torch.arange(1.0, N + 1).expand(inner, N))
    assert (block.D == 1).all()
    assert block.dt_proj.weight.abs().max() <= rank**-0.5
    delta = functional.softplus(block.dt_proj.bias.double())
    assert delta.min() >= 1e-3 * (1 - 1e-4)
    assert delta.max() <= 1e-1 * (1 + 1e-4)
    # the mean of 80 numbers uniform in an interval of length log 100: five standard deviations
    middle = math.log(1e-2)
    assert abs(delta.log().mean() - middle) < 5 * math.log(100) / math.sqrt(12 * inner)


@pytest.mark.parametrize("options", [{}, {"use_bias": True}, {"use_conv_bias": False}, {"expand": 3, "conv_kernel": 2}])
def test_it_loads_hugging_faces_mixer(options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        from transformers.models.mamba.modeling_mamba import MambaMixer

        torch.manual_seed(0)
        config = transformers.MambaConfig(
            hidden_size=24,
            state_size=5,
            num_hidden_layers=1,
            vocab_size=8,
            pad_token_id=0,
            eos_token_id=None,
            **options,
        )
        theirs = MambaMixer(config, layer_idx=0).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            x = torch.randn(2, 10, 24)
            right = theirs(x)
    prefix = "backbone.layers.0.mixer."
    block = Mamba.from_state_dict({prefix + name: value for name, value in theirs.state_dict().items()}, prefix)
    with torch.no_grad():
        found = block(x)
        cache = block.first_cache(2)
        steps = torch.stack([block.step(token, cache) for token in x.unbind(1)], dim=1)
    # float32, sums of some hundred terms
    for one in (found, steps):
        assert (one - right).abs().max() < 1e-5 * right.abs().max()


# Errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"d_model": 0}, ValueError, "d_model is 0"),
        ({"d_state": True}, TypeError, "d_state is True"),
        ({"expand": -1}, ValueError, "expand is -1"),
        ({"dt_rank": 0}, ValueError, "dt_rank is 0"),
        ({"dt_min": 0.2}, ValueError, "dt_min, dt_max and dt_floor are 0.2"),
        ({"dt_floor": 0.0}, ValueError, "0 < dt_floor"),
    ],
)
def test_bad_sizes_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Mamba(**{"d_model": 4} | options)


def test_bad_inputs_are_named() -> None:
    block = Mamba(4, d_state=2)
    with pytest.raises(ValueError, match=r"x has shape \(2, 5\), expected \(batch, length, d_model = 4\)"):
        block(torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"x_t has shape \(2, 3\)"):
        block.step(torch.ones(2, 3), block.first_cache(2))
    for wrong, error, message in (
        (np.ones((2, 5, 4), np.float32), TypeError, "x"),
        (torch.ones(2, 5, 4, dtype=torch.int32), TypeError, "x has dtype int32, expected floating-point numbers"),
        (torch.ones(2, 5, 4).double(), TypeError, r"x has dtype float64, expected float32, as in_proj\.weight has"),
    ):
        with pytest.raises(error, match=message):
            block(wrong)
    with pytest.raises(ValueError, match=r"cache\.recent has shape"):
        block(torch.ones(2, 5, 4), block.first_cache(3))
    with pytest.raises(ValueError, match=r"cache\.h has shape"):
        block.step(torch.ones(2, 4), type(block.first_cache(2))(block.first_cache(2).recent, torch.zeros(2, 8, 3)))
    with pytest.raises(ValueError, match="block has biases"):
        to_atlas(Mamba(4, bias=True))


def test_of_no_tokens_there_is_no_output() -> None:
    block = Mamba(4, d_state=2)
    y, cache = block(torch.ones(2, 0, 4)), block.first_cache(2)
    assert y.shape == (2, 0, 4)
    y.sum().backward()
    assert not any(parameter.grad.any() for parameter in block.parameters())
    assert block(torch.ones(2, 0, 4), cache).shape == (2, 0, 4)
    assert (cache.recent.shape, cache.h.shape) == ((2, 8, 4), (2, 8, 2))


# As mamba_ssm builds and calls it


class InferenceParams(NamedTuple):
    """What mamba_ssm's has that a block reads."""

    seqlen_offset: int
    key_value_memory_dict: dict[int, Any]


def test_it_takes_what_mamba_ssms_takes() -> None:
    torch.manual_seed(0)
    options = (5, 3, 2, 3, 0.01, 0.02, "constant", 0.5, 1e-4, False, True, False, 7, "cpu", torch.float64)
    block = mamba_simple.Mamba(6, *options)
    assert (block.d_state, block.d_conv, block.expand, block.d_inner, block.dt_rank) == (5, 3, 2, 12, 3)
    assert (block.conv1d.bias, block.in_proj.bias.shape, block.layer_idx) == (None, (24,), 7)
    assert block.D.dtype == torch.float64
    assert torch.equal(block.dt_proj.weight, torch.full((12, 3), 0.5 * 3**-0.5, dtype=torch.float64))
    delta = functional.softplus(block.dt_proj.bias)
    assert 0.01 * (1 - 1e-12) <= delta.min() <= delta.max() <= 0.02 * (1 + 1e-12)
    drawn = mamba_simple.Mamba(40, dt_scale=0.1).dt_proj.weight
    # 240 numbers uniform within a limit: that none is in its upper half has a probability of 2⁻²⁴⁰
    assert 0.05 * 3**-0.5 < drawn.abs().max() <= 0.1 * 3**-0.5
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    assert torch.equal(block(x), Mamba.from_state_dict(block.state_dict())(x))
    assert all(parameter._no_weight_decay for parameter in (block.A_log, block.D))
    assert block.dt_proj.bias._no_reinit


def test_it_decodes_as_mamba_ssms_does() -> None:
    torch.manual_seed(0)
    block, x = mamba_simple.Mamba(8, d_state=5, layer_idx=3, dtype=torch.float64), torch.randn(2, 7, 8).double()
    right, kept = block(x), dict[int, Any]()
    states = block.allocate_inference_cache(2, 100)
    kept[3] = tuple(state.fill_(9.0) for state in states)  # another text's, which the first call overwrites
    pieces = [block(x[:, :4], InferenceParams(0, kept))]
    pieces += [block(x[:, t : t + 1], InferenceParams(t, kept)) for t in (4, 5)]
    found, conv_state, ssm_state = block.step(x[:, 6:], *kept[3])
    # outputs below 1, some dozens of roundings each
    torch.testing.assert_close(torch.cat([*pieces, found], dim=1), right, rtol=0, atol=64 * 2**-52)
    assert (conv_state is states[0], ssm_state is states[1]) == (True, True)
    assert not any(state.requires_grad for state in states)
    fresh = dict[int, Any]()
    assert torch.equal(block(x[:, :4], inference_params=InferenceParams(0, fresh)), pieces[0])
    assert [tuple(state.shape) for state in fresh[3]] == [(2, 16, 4), (2, 16, 5)]


def test_bad_calls_as_mamba_ssms_are_named() -> None:
    for options, message in (({"dt_init": "zero"}, "dt_init is 'zero'"), ({"dt_scale": 0.0}, "dt_scale is 0.0")):
        with pytest.raises(ValueError, match=message):
            mamba_simple.Mamba(4, **options)
    block, x = mamba_simple.Mamba(4, layer_idx=0), torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match=r"hidden_states has shape \(2, 3, 4\), expected one token"):
        block.step(x, *block.allocate_inference_cache(2, 1))
    with pytest.raises(TypeError, match="hidden_states"):
        block([x])
    with pytest.raises(ValueError, match="layer_idx is None"):
        mamba_simple.Mamba(4)(x, InferenceParams(0, {}))
    with pytest.raises(ValueError, match=r"cache\.recent has shape \(1, 8, 4\)"):
        block(x, InferenceParams(0, {0: block.allocate_inference_cache(1, 1)}))


def test_a_bad_state_dict_is_named() -> None:
    weights = Mamba(4).state_dict()
    with pytest.raises(ValueError, match=r"state_dict has no mixer\.A_log, mixer\.conv1d"):
        Mamba.from_state_dict(weights, "mixer.")
    with pytest.raises(ValueError, match=r"(?s)is no Mamba block's.*x_proj"):
        Mamba.from_state_dict({name: x for name, x in weights.items() if name != "x_proj.weight"})
    with pytest.raises(ValueError, match=r"(?s)is no Mamba block's.*extra"):
        Mamba.from_state_dict(weights | {"extra": torch.ones(1)})
