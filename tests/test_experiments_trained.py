"""The experiments that train: their tasks, their layers, what they measure, and that what they find can be denied."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from ssm_edu.experiments import forgetting, induction_heads, selective_copying  # noqa: E402
from ssm_edu.experiments._layers import LAYERS, Model, TimeInvariantMamba  # noqa: E402
from ssm_edu.experiments._probe import setting, watched  # noqa: E402
from ssm_edu.experiments._training import Training, accuracy, generator, one_thread, train, untrained  # noqa: E402
from ssm_edu.experiments.result import CannotRun, Progress, Result  # noqa: E402

EXPERIMENTS = (selective_copying, induction_heads, forgetting)
COPYING = selective_copying.Settings(
    length=8, tokens=2, values=2, width=16, state=4, training=Training(50, 32, 3e-2, warmup=10, points=5), texts=64
)
HEADS = induction_heads.Settings(
    length=8, lengths=(8, 24, 50), texts=48, piece=16, width=16, state=8, vocabulary=5,
    training=Training(50, 64, 2e-2, warmup=10, points=5),
)  # fmt: skip
NO_STEPS = Training(1, 16, 0.0, warmup=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    with one_thread():
        yield


class Told(Progress):
    def __init__(self) -> None:
        self.shares: list[float] = []
        super().__init__(lambda fraction, note: self.shares.append(fraction))


# The tasks


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 6), st.integers(1, 5))
def test_the_tokens_to_copy_stand_among_noise_in_their_order(seed: int, tokens: int, noise: int, values: int) -> None:
    settings = dataclasses.replace(COPYING, length=tokens + noise, tokens=tokens, values=values)
    texts, answers = settings.draw(3, generator(seed, "cpu"))
    assert texts.shape == (3, 2 * tokens + noise)
    for text, answer in zip(texts.tolist(), answers.tolist(), strict=True):
        assert [token for token in text if token < values] == answer
        assert text[-tokens:] == [settings.vocabulary - 1] * tokens
        assert text.count(settings.noise) == noise


def test_the_places_differ_from_text_to_text() -> None:
    texts, _ = COPYING.draw(300, generator(0, "cpu"))
    often = (texts[:, : COPYING.length] < COPYING.values).double().mean(0)
    # 300 draws with p = 1/4: a standard deviation of 0.025
    assert (often - COPYING.tokens / COPYING.length).abs().max() < 0.1


@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(1, 45))
def test_the_special_token_comes_twice_and_its_follower_is_asked_for(seed: int, length: int, piece: int) -> None:
    rng = generator(seed, "cpu")
    marks, answers = HEADS.plan(length, 4, rng)
    starts = range(0, length, piece)
    pieces = [HEADS.piece_of(length, a, min(a + piece, length), marks, answers, rng) for a in starts]
    for text, mark, answer in zip(torch.cat(pieces, dim=1).tolist(), marks.tolist(), answers.tolist(), strict=True):
        assert [t for t, token in enumerate(text) if token == HEADS.special] == [mark, length - 1]
        assert text[mark + 1] == answer


# The layers


def test_one_layer_selects_and_the_other_does_not_and_nothing_else_differs() -> None:
    torch.manual_seed(0)
    selective, invariant = (LAYERS[kind](6, d_state=3) for kind in ("S6", "S4D"))
    u, v = torch.randn(2, 1, 12, 7)
    for found in (selective.select(u), selective.select(v)):
        assert [len(set(M[0].T)) for M in found] == [7, 7, 7]
    assert all(torch.equal(a, b) for a, b in zip(invariant.select(u), invariant.select(v), strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(selective.select(u), selective.select(v), strict=True))

    shapes = [{name: x.shape for name, x in layer.named_parameters()} for layer in (selective, invariant)]
    assert shapes[0].keys() - shapes[1].keys() == {"x_proj.weight", "dt_proj.weight"}
    assert shapes[1].keys() - shapes[0].keys() == {"B", "C"}
    assert all(shapes[0][name] == shapes[1][name] for name in shapes[0].keys() & shapes[1].keys())


def test_the_time_invariant_scan_is_a_convolution_and_the_selective_one_is_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 9, 6)
    late = torch.cat([torch.zeros(1, 4, 6), x], dim=1)
    differences = {}
    for kind, layer in LAYERS.items():
        block = layer(6, d_state=3, conv_bias=False)  # so that silence stays silent
        with torch.no_grad():
            y, y_late = (block(one) for one in (x, late))
            loud = [block.out_proj(scanned(block, factor * x)) for factor in (1.0, 2.0)]
        differences[kind] = (y_late[:, 4:] - y).abs().max(), (loud[1] - 2 * loud[0]).abs().max()
    shifted, scaled = differences["S4D"]
    # float32, sums of some dozens of terms below 1
    assert shifted < 1e-6
    assert scaled < 1e-6
    assert differences["S6"][1] > 1e-4


def scanned(block: Any, u: Any) -> Any:
    """The scan alone, of the first channels of u as its input."""
    from ssm_edu.torch import selective_scan_fn

    wide = torch.cat([u, u], dim=-1).transpose(1, 2)
    delta, B, C = block.select(wide)
    y = selective_scan_fn(wide, delta, block.A, B, C, delta_bias=block.dt_proj.bias, delta_softplus=True)
    return y.transpose(1, 2)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_text_in_pieces_or_token_by_token_is_the_text(kind: str) -> None:
    torch.manual_seed(0)
    model = Model(kind, vocabulary=6, width=8, layers=2, d_state=3)
    tokens = torch.randint(6, (2, 11))
    with torch.no_grad():
        whole = model(tokens)
        caches, single = model.first_caches(2), model.first_caches(2)
        pieces = torch.cat([model(tokens[:, a:b], caches) for a, b in ((0, 3), (3, 4), (4, 11))], dim=1)
        steps = torch.cat([stepped(model, tokens[:, t], single) for t in range(11)], dim=1)
    # logits of order 1, some hundred roundings in float32
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(steps, whole, rtol=0, atol=1e-5)
    assert [cache.h.shape for cache in caches] == [cache.h.shape for cache in model.first_caches(2)]


def stepped(model: Model, tokens: Any, caches: Any) -> Any:
    x = model.embedding(tokens)
    for norm, mixer, cache in zip(model.norms, model.mixers, caches, strict=True):
        x = x + mixer.step(norm(x), cache)
    return model.head(model.norm(x))[:, None]


# Training


def test_training_learns_and_keeps_a_curve() -> None:
    told = Told()
    settings = dataclasses.replace(COPYING, training=Training(15, 16, 1e-2, warmup=2, points=3))
    model = untrained(settings, "S6", "cpu", 0)
    curve = train(model, settings, generator(0, "cpu"), told)
    assert [point["step"] for point in curve] == [5, 10, 15]
    assert told.shares == pytest.approx([1 / 3, 2 / 3, 1])
    correct, asked = accuracy(model, settings, 40, generator(1, "cpu"))
    assert asked == 40 * 2
    assert curve[0]["loss"] > curve[-1]["loss"]
    model.head.weight.data.zero_()  # which makes every answer a 0
    zeros, _ = accuracy(model, settings, 40, generator(1, "cpu"))
    rng = generator(1, "cpu")
    assert zeros == sum(int((settings.draw(size, rng)[1] == 0).sum()) for size in (16, 16, 8))
    assert correct != zeros


def test_training_ends_early_when_it_is_enough() -> None:
    model = untrained(COPYING, "S6", "cpu", 0)
    content = dataclasses.replace(COPYING, training=dataclasses.replace(COPYING.training, enough=0.0))
    assert len(train(model, content, generator(0, "cpu"), Progress())) == 1


def test_the_rate_rises_stays_and_falls() -> None:
    training = Training(1000, 1, 0.5, warmup=100)
    assert [training.rate(step) for step in (0, 99, 300, 500, 750)] == pytest.approx([0.005, 0.5, 0.5, 0.5, 0.25])
    assert 0 < training.rate(999) < 0.01


def test_a_seed_decides_everything_and_leaves_no_trace() -> None:
    settings = dataclasses.replace(COPYING, training=Training(3, 4, 1e-2, warmup=1, points=2), texts=4)
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    runs = [selective_copying.measure(settings, "cpu", seed, Progress()) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), first)
    assert runs[0] == runs[1] != runs[2]


def test_threads_are_given_back() -> None:
    torch.set_num_threads(2)
    with contextlib.suppress(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


# What is found


@pytest.fixture(scope="module")
def copying_rows() -> tuple[list[dict[str, Any]], Told]:
    told = Told()
    return selective_copying.measure(COPYING, "cpu", 0, told), told


def test_selective_copying_tells_both_layers(copying_rows: tuple[list[dict[str, Any]], Told]) -> None:
    rows, told = copying_rows
    assert told.shares == sorted(told.shares)
    assert told.shares[-1] == 1.0
    assert {(row["layer"], row["what"]) for row in rows} == set(itertools.product(LAYERS, ("training", "test")))
    tests = {row["layer"]: row for row in rows if row["what"] == "test"}
    assert tests["S6"]["accuracy"] > 0.75  # of 128 answers; a guess is right in a half
    assert tests["S6"]["correct"] == round(tests["S6"]["accuracy"] * tests["S6"]["asked"])
    assert len({tuple(row) for row in rows}) == 1


def test_what_selective_copying_finds_follows_from_its_rows() -> None:
    def found(**shares: float) -> str:
        rows = [
            {"what": "test", "layer": kind, "step": 9, "accuracy": share, "correct": round(100 * share), "asked": 100}
            for kind, share in shares.items()
        ]
        return " ".join(selective_copying.findings(COPYING, rows))

    assert "S6 copies 98 of 100 tokens right (98.0%) after 9 steps" in found(S6=0.98, S4D=0.5)
    assert "Selectivity is what solves" in found(S6=0.98, S4D=0.5)
    assert "does not show" in found(S6=0.98, S4D=0.97)
    assert "does not show" in found(S6=0.7, S4D=0.5)
    assert "says nothing for selectivity" in found(S6=0.5, S4D=0.5)


def test_without_training_selectivity_is_not_credited() -> None:
    rows = selective_copying.measure(dataclasses.replace(COPYING, training=NO_STEPS), "cpu", 0, Progress())
    assert "Selectivity is what solves" not in " ".join(selective_copying.findings(COPYING, rows))


def test_induction_heads_are_learnt_and_their_reach_told() -> None:
    told = Told()
    rows = induction_heads.measure(HEADS, "cpu", 0, told)
    assert told.shares == sorted(told.shares)
    assert told.shares[-1] == pytest.approx(1.0)
    tests = {row["length"]: row for row in rows if row["what"] == "test"}
    assert tuple(tests) == HEADS.lengths
    assert tests[8]["accuracy"] > 0.75  # of 48 answers; a guess is right in a quarter
    untrained = induction_heads.measure(dataclasses.replace(HEADS, training=NO_STEPS), "cpu", 0, Progress())
    assert all(row["accuracy"] < 0.7 for row in untrained)
    assert "below 95% at length 8 already" in induction_heads.findings(HEADS, untrained)[-1]


@pytest.mark.parametrize(
    ("shares", "end"),
    [
        ((1.0, 1.0, 1.0), "up to length 50, 6.25 times that of its training."),
        ((1.0, 0.9, 1.0), "up to length 8, 1 times that of its training."),
        ((0.9, 1.0, 1.0), "It is below 95% at length 8 already."),
    ],
)
def test_the_reach_is_the_last_length_before_the_first_failure(shares: tuple[float, ...], end: str) -> None:
    rows = [
        {"what": "test", "length": length, "step": 7, "accuracy": share}
        for length, share in zip(HEADS.lengths, shares, strict=True)
    ]
    assert induction_heads.findings(HEADS, rows)[-1].endswith(end)


# Forgetting


def test_watching_changes_nothing() -> None:
    model = untrained(COPYING, "S6", "cpu", 0)
    tokens, _ = COPYING.draw(3, generator(0, "cpu"))
    with torch.no_grad():
        logits, seen = watched(model, tokens)
        # the same kernels, but for softplus and the bias, which are taken outside
        torch.testing.assert_close(logits, model(tokens), rtol=0, atol=1e-5)
        changed = [watched(model, tokens, torch.zeros_like, only)[1] for only in (None, 1, 2)]
    assert len(seen) == 2
    zeros = [[bool((scan.delta == 0).all()) for scan in one] for one in changed]
    assert zeros == [[True, True], [True, False], [False, True]]


def test_every_token_is_of_one_kind_but_the_marks() -> None:
    tokens, _ = COPYING.draw(20, generator(0, "cpu"))
    where = forgetting.kinds(COPYING, tokens, reach=4)
    total = sum(place.long() for place in where.values())
    assert (total == (tokens <= COPYING.noise)).all()
    signal, in_reach, after, before = (place.tolist() for place in where.values())
    for i, text in enumerate(tokens.tolist()):
        for t, token in enumerate(text):
            earlier = [s for s in range(t + 1) if text[s] < COPYING.values]
            distance = t - earlier[-1] if earlier else None
            assert signal[i][t] == (distance == 0)
            if token == COPYING.noise:
                found = in_reach[i][t], after[i][t], before[i][t]
                near = distance is not None and distance < 4
                assert found == (near, distance is not None and not near, distance is None)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_superiority_counts_pairs(seed: int, m: int, n: int) -> None:
    rng = generator(seed, "cpu")
    signal, noise = (torch.randint(4, (k, 3), generator=rng).double() for k in (m, n))
    pairs = signal[:, None] - noise[None]
    right = (pairs > 0).double().mean((0, 1)) + (pairs == 0).double().mean((0, 1)) / 2
    torch.testing.assert_close(forgetting.superiority(signal, noise), right, rtol=1e-12, atol=1e-12)


def ruled(settings: Any, on_signal: float, on_noise: float) -> Model:
    """A model whose Δ is made to follow a rule, by the token itself."""
    model = untrained(settings, "S6", "cpu", 0)
    tokens: list[Any] = []
    model.embedding.register_forward_hook(lambda module, inputs, output: tokens.append(inputs[0]))

    def select(self: Any, u: Any) -> Any:
        selected = type(self).select(self, u)
        where = forgetting.kinds(settings, tokens[-1], reach=self.d_conv)
        near = where["signal"] | where["noise, signal in reach"]
        delta = torch.where(near, on_signal, on_noise)[:, None].expand(u.shape)
        noisy = delta * (1 + 0.1 * torch.rand(u.shape, generator=generator(0, "cpu")))
        return selected._replace(delta=torch.log(torch.expm1(noisy)) - self.dt_proj.bias[:, None])

    for mixer in model.mixers:
        mixer.select = types.MethodType(select, mixer)
    return model


@pytest.mark.parametrize(
    ("on_signal", "on_noise", "verdict"),
    [(1.0, 0.1, "as Article 2 says"), (0.1, 1.0, "as Article 1 says"), (0.5, 0.5, "neither article")],
)
def test_what_forgetting_finds_is_what_the_model_does(on_signal: float, on_noise: float, verdict: str) -> None:
    rows = forgetting.measure(ruled(COPYING, on_signal, on_noise), COPYING, generator(0, "cpu"))
    effects = {
        (row["layer"], row["quantity"]): row["superiority"]
        for row in rows
        if (row["what"], row["kind"]) == ("effect", "near")
    }
    expected = {"as Article 2 says": 1.0, "as Article 1 says": 0.0, "neither article": 0.5}[verdict]
    for layer in (1, 2):
        # equal laws, some hundred tokens of each kind: a standard deviation near 0.04 in a channel, less in the mean
        assert effects[layer, "delta"] == pytest.approx(expected, abs=0.05)
        # the decay falls as Δ grows, but for two samples of tokens
        assert effects[layer, "decay"] == pytest.approx(1 - effects[layer, "delta"], abs=0.05)
    medians = {row["kind"]: row["q50"] for row in rows if row["what"] == "quantiles" and row["quantity"] == "delta"}
    for kind in forgetting.KINDS:
        assert medians[kind] == pytest.approx(on_signal if kind in forgetting.NEAR else on_noise, rel=0.1)
    assert verdict in forgetting.verdict(rows)
    assert "each taken to its end" in forgetting.findings(COPYING, rows)[-1]


def test_layers_that_disagree_are_told_apart() -> None:
    rows = [
        forgetting.row("effect", layer, "near", "delta", superiority=effect, channels_above=effect)
        for layer, effect in ((1, 0.7), (2, 0.4))
    ]
    said = forgetting.verdict(rows)
    assert "In layer 1, Δ grows on signal and shrinks on noise, as Article 2 says (a medium effect)." in said
    assert "In layer 2, Δ grows on noise and shrinks on signal, as Article 1 says (a small effect)." in said


def test_interventions_reach_what_they_name() -> None:
    """In a text of signal alone nothing can be changed on far noise, and all of it near a signal."""
    settings = dataclasses.replace(COPYING, length=4, tokens=4)
    model = untrained(settings, "S6", "cpu", 0)
    tokens, _ = settings.draw(5, generator(0, "cpu"))
    where = forgetting.kinds(settings, tokens, reach=4)
    far = where[forgetting.AFTER] | where[forgetting.BEFORE]
    with torch.no_grad():
        right, _ = watched(model, tokens)
        same, _ = watched(model, tokens, setting(far, 10.0))
        other, seen = watched(model, tokens, setting(where["signal"], 10.0))
    assert torch.equal(same, right)
    assert not torch.equal(other, right)
    assert all((scan.delta[..., :4] == 10).all() and (scan.delta[..., 4:] != 10).all() for scan in seen)


# All of them


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_run_is_a_result_with_a_figure(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    settings = HEADS if experiment is induction_heads else COPYING
    quick = dataclasses.replace(settings, training=Training(3, 4, 1e-2, points=3), texts=8)
    monkeypatch.setitem(experiment.SIZES, "small", quick)
    told = Told()
    result = experiment.run("small", device="cpu", seed=3, progress=told)
    assert (result.experiment, result.size, result.seed, result.device) == (
        experiment.__name__.rpartition(".")[2], "small", 3, "cpu",
    )  # fmt: skip
    again = Result.from_json(result.to_json())
    assert again.measured == result.measured
    assert all(len(finding) > 20 for finding in result.findings)
    assert 0 < told.shares[0] <= told.shares[-1] <= 1
    for one in (result, again):
        drawn = experiment.figure(one)
        assert all(axes.get_xlabel() for axes in drawn.axes)
    with pytest.raises(CannotRun, match="takes a GPU, but the device is 'cpu'"):
        experiment.run("paper", device="cpu", seed=0, progress=told)


def test_the_paper_sizes_are_the_papers() -> None:
    """Source: Mamba, appendix E.1."""
    copying, heads = selective_copying.SIZES["paper"], induction_heads.SIZES["paper"]
    assert (copying.length, copying.tokens, copying.width, copying.layers) == (4096, 16, 64, 2)
    assert copying.vocabulary == heads.vocabulary == 16
    assert heads.length == 256
    assert heads.lengths == tuple(2**k for k in range(6, 21))
    assert TimeInvariantMamba in LAYERS.values()
