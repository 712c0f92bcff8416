"""Forgetting: what Δ does on noise and on signal in a model that was trained to tell them apart.

Article 1, §2.2 says that on noise Δ grows and on a key signal it shrinks; Article 2 and Mamba, §3.5.2 say the reverse.
What either rule would do to a state is a matter of algebra (claims SEL-10 to SEL-12). Which of them a model learns is
measured here, on the selective layer of `selective_copying`: Δ after softplus, the decay exp(ΔA) and what is written,
|B̄u| = Δ|B u|, on tokens to be copied and on noise; and how well it copies with Δ on noise set by hand to either rule.
Both layers stand behind a convolution, which hands a signal on to the next few tokens.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ssm_edu.experiments import figures
from ssm_edu.experiments._layers import Model
from ssm_edu.experiments._probe import quantities, sampled, setting, watched
from ssm_edu.experiments._training import generator, one_thread, right, trained
from ssm_edu.experiments.result import Progress, Result, Rows, Size, sized
from ssm_edu.experiments.selective_copying import SIZES, Settings

TITLE = "What Δ does on noise"
QUESTION = "Does Δ grow on noise, to forget it (Article 1), or on what is to be remembered (Article 2)?"
PAPER = "a GPU: the selective model of selective_copying at the paper's size, and so its training."
AFTER, BEFORE = "noise after it", "noise before any"
NEAR = ("signal", "noise, signal in reach")
KINDS = (*NEAR, AFTER, BEFORE)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LARGE = 10.0  # Article 1's number for a Δ that forgets
EFFECTS = {"large": 0.71, "medium": 0.64, "small": 0.56}  # Vargha and Delaney's words for a superiority from there on
TEXTS, TOKENS = 64, 512  # to look at, and at most so many tokens of each kind in them


@one_thread()
def run(size: Size, *, device: str, seed: int, progress: Progress) -> Result:
    """Train the selective model, look into its scans, and set Δ by hand.

    Raises:
        ValueError: another size.
        CannotRun: the paper's size is asked for on a CPU.
    """
    settings = sized(SIZES, size, device)
    model, _ = trained(settings, "S6", device, seed, progress.part(0, 0.95))
    rows = measure(model, settings, generator(seed + 1, device))
    return Result("forgetting", size, seed, device, asdict(settings), rows, findings(settings, rows))


@torch.no_grad()
def measure(model: Model, settings: Settings, rng: torch.Generator) -> Rows:
    """Rows of quantiles, of each kind of token against noise after a signal, and of interventions on Δ.

    That noise is the articles': their sequence begins with what is useful. Noise before any signal finds an empty
    memory, and is told apart.
    """
    tokens, answers = settings.draw(TEXTS, rng)
    where = kinds(settings, tokens, reach=model.mixers[0].d_conv)
    near, far = (torch.stack([where[kind] for kind in some]).any(0) for some in (NEAR, (AFTER, BEFORE)))
    _, seen = watched(model, tokens)
    rows = []
    for layer, scan in enumerate(seen, start=1):
        found = {kind: quantities(scan, sampled(place, TOKENS, rng)) for kind, place in where.items()}
        rows += [
            row("quantiles", layer, kind, name, tokens=len(x), **quantiles(x))
            for kind, values in found.items()
            for name, x in values.items()
        ]
        noise = found.pop(AFTER)
        found["near"] = quantities(scan, sampled(near, TOKENS, rng))
        rows += [
            row("effect", layer, kind, name, tokens=len(x), **effect(superiority(x, noise[name])))
            for kind, values in found.items()
            for name, x in values.items()
        ]
    return rows + interventions(model, tokens, answers, near, far)


def effect(each: Tensor) -> dict[str, float]:
    return {"superiority": each.mean().item(), "channels_above": (each > 0.5).double().mean().item()}


def interventions(model: Model, tokens: Tensor, answers: Tensor, near: Tensor, far: Tensor) -> Rows:
    """How well the model copies with Δ set by hand, in all layers and in each."""
    rows = []
    for name, (place, value) in {
        "as trained": (torch.zeros_like(far), 0.0),
        "Δ = 0 on far noise": (far, 0.0),
        f"Δ = {LARGE:g} on far noise": (far, LARGE),
        "Δ = 0 near signal": (near, 0.0),
    }.items():
        for only in [None] if name == "as trained" else [None, *range(1, len(model.mixers) + 1)]:
            logits, _ = watched(model, tokens, setting(place, value), only)
            share = right(logits[:, -answers.shape[1] :], answers).double().mean().item()
            rows.append(row("intervention", only, name, "delta", tokens=answers.numel(), accuracy=share))
    return rows


def row(what: str, layer: int | None, kind: str, quantity: str, **found: Any) -> dict[str, Any]:
    """All rows have the same keys; a layer of None is all of them at once."""
    names = ["tokens", *map(quantile_name, QUANTILES), "superiority", "channels_above", "accuracy"]
    return {"what": what, "layer": layer, "kind": kind, "quantity": quantity} | dict.fromkeys(names) | found


def kinds(settings: Settings, tokens: Tensor, reach: int) -> dict[str, Tensor]:
    """Where each of `KINDS` stands, (batch, length + tokens); the marks at the end are none of them.

    Δ comes from the last `reach` inputs of the convolution, so a signal may be written up to reach − 1 tokens late:
    noise that has a signal in reach is no evidence of what Δ does on noise.
    """
    signal, noise = tokens < settings.values, tokens == settings.noise
    in_reach = torch.stack([functional.pad(signal, (k, 0))[:, : signal.shape[1]] for k in range(reach)]).any(0)
    begun = signal.cumsum(1) > 0
    masks = (signal, noise & in_reach, noise & ~in_reach & begun, noise & ~begun)
    return dict(zip(KINDS, masks, strict=True))


def quantile_name(q: float) -> str:
    return f"q{round(100 * q):02d}"


def quantiles(x: Tensor) -> dict[str, float]:
    """Over tokens and channels alike."""
    ordered = x.double().flatten().sort().values
    return {quantile_name(q): ordered[round(q * (len(ordered) - 1))].item() for q in QUANTILES}


def superiority(signal: Tensor, noise: Tensor) -> Tensor:
    """For each channel P(signal > noise) + ½ P(signal = noise), of a token of each (tokens, channels): ½ is no effect.

    Vargha and Delaney's A. It compares orders alone, so the scales of the channels do not matter.
    """
    ordered, values = noise.T.contiguous().sort(dim=1).values, signal.T.contiguous()
    below, not_above = (torch.searchsorted(ordered, values, right=side).double() for side in (False, True))
    return ((below + not_above) / 2).mean(1) / ordered.shape[1]


def findings(settings: Settings, rows: Rows) -> list[str]:
    """Δ near a signal and on noise in each layer, whose reading that is, and what the model can do without."""
    medians = {(r["layer"], r["kind"]): r["q50"] for r in rows if (r["what"], r["quantity"]) == ("quantiles", "delta")}
    before = effects(rows, BEFORE)
    said = []
    for layer, near in effects(rows, "near").items():
        each = "; ".join(f"{kind}, {medians[layer, kind]:.2g}" for kind in KINDS)
        said.append(
            f"Layer {layer}: where a signal is in the convolution's reach, Δ is larger than on noise after it in "
            f"{near['superiority']:.0%} of pairs in a channel (50% is no effect), and mostly so in "
            f"{near['channels_above']:.0%} of the channels. Where noise comes before any signal, with nothing to "
            f"remember, it is larger in {before[layer]['superiority']:.0%} of pairs. Medians over all channels: {each}."
        )
    shares = {r["kind"]: r["accuracy"] for r in rows if r["what"] == "intervention" and r["layer"] is None}
    by_hand = "; ".join(f"{kind}, {share:.1%}" for kind, share in shares.items())
    return [
        *said,
        verdict(rows),
        f"Tokens copied right: {by_hand}; a guess is right in {settings.chance:.1%}. Δ is set by hand in all layers; "
        f"0 on noise is Article 2's rule and {LARGE:g} Article 1's, each taken to its end.",
    ]


def effects(rows: Rows, kind: str) -> dict[int, dict[str, Any]]:
    """By layer, the row of Δ on this kind of token against noise after a signal."""
    return {r["layer"]: r for r in rows if (r["what"], r["kind"], r["quantity"]) == ("effect", kind, "delta")}


def verdict(rows: Rows) -> str:
    """Whose reading each layer follows."""
    readings = {layer: reading(near["superiority"]) for layer, near in effects(rows, "near").items()}
    if len(set(readings.values())) == 1:
        return f"In every layer, {readings[1]}."
    return " ".join(f"In layer {layer}, {said}." for layer, said in readings.items())


def reading(share: float) -> str:
    """In words; an effect less than small, in either direction, does not count."""
    size = next((word for word, least in EFFECTS.items() if max(share, 1 - share) >= least), None)
    if size is None:
        return "Δ is about as large on noise as on signal, as neither article says"
    if share > 0.5:
        return f"Δ grows on signal and shrinks on noise, as Article 2 says (a {size} effect)"
    return f"Δ grows on noise and shrinks on signal, as Article 1 says (a {size} effect)"


def shown(rows: Rows) -> Rows:
    """What a terminal has room for: Δ on each kind of token, and how often it is larger than on noise after it."""
    spread = [r for r in rows if (r["what"], r["quantity"]) == ("quantiles", "delta")]
    above = {(layer, kind): r["superiority"] for kind in KINDS for layer, r in effects(rows, kind).items()}
    return [
        {
            "layer": r["layer"],
            "token": r["kind"],
            "median_Δ": r["q50"],
            "middle_half": f"{r['q25']:.2g} to {r['q75']:.2g}",
            "above_noise_after_it": f"{above[key]:.0%}" if (key := (r["layer"], r["kind"])) in above else None,
        }
        for r in spread
    ]


def figure(result: Result) -> Any:
    """Δ on each kind of token, a panel for each layer; and how well the model copies with Δ set by hand."""
    rows = [r for r in result.measured if r["quantity"] == "delta"]
    spread = [r for r in rows if r["what"] == "quantiles"]
    layers = sorted({r["layer"] for r in spread})
    with figures.style():
        drawn, panels = figures.panels(len(layers) + 1, height=3.0)
        for axes, layer in zip(panels, layers, strict=False):
            here = [r for r in spread if r["layer"] == layer]
            for y, r in enumerate(here):
                colour = figures.ORANGE if r["kind"] in NEAR else figures.BLUE
                q05, q25, q50, q75, q95 = (r[quantile_name(q)] for q in QUANTILES)
                axes.plot([q05, q95], [y, y], color=colour, linewidth=1.5)
                axes.plot([q25, q75], [y, y], color=colour, linewidth=7, solid_capstyle="butt")
                axes.plot(q50, y, marker="o", color="white", markeredgecolor=colour)
            axes.set_xscale("log")
            axes.set_yticks(range(len(here)), [r["kind"] for r in here])
            axes.set(ylim=(len(here) - 0.5, -0.5), xlabel="Δ: median, middle half, middle 90%")
            axes.set_title(f"Layer {layer}")
        changed = [r for r in rows if r["what"] == "intervention" and r["layer"] is None]
        last = panels[-1]
        shares = [100 * r["accuracy"] for r in changed]
        last.barh(range(len(changed)), shares, color=figures.GREY, height=0.6)
        for y, share in enumerate(shares):
            last.annotate(f"{share:.0f}", (share, y), xytext=(4, 0), textcoords="offset points", va="center")
        last.set_yticks(range(len(changed)), [r["kind"] for r in changed])
        last.set(ylim=(len(changed) - 0.5, -0.5), xlim=(0, 112), xlabel="tokens copied right, %")
        last.set_title("With Δ set by hand, not trained again")
    return drawn
