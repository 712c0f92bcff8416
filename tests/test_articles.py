"""The table of the articles' statements, what its check catches, and the block that Article 1 gives in code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssm_edu
from ssm_edu.atlas import h3, hyena, lstm, mamba, s4d, s6
from ssm_edu.atlas import mamba_block_specific as block
from ssm_edu.derivations import load, select
from ssm_edu.ledger import claims_of
from ssm_edu.scan import SCANS
from tests.atlas.common import (
    assert_close,
    check_bad_input,
    check_card,
    check_complexity,
    check_model,
    draw,
    lengths,
    run_steps,
    seeds,
)

articles = load("articles")
CLAIMS = {one.id: one for one in select([])}
ROWS = [pytest.param(row, id=f"{row.place}: {row.quote}") for row in articles.TABLE]


def verdict(id):
    return next(one for one in claims_of(vars(articles)) if one.id == id).check().verdict


# The table


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_place_a_verdict_and_claims_or_a_reason(row):
    assert row.place.startswith(("Article 1, ", "Article 2, "))
    assert row.quote
    assert row.verdict in ("proved", "verified", "refuted", "open")
    assert bool(row.ids) != (row.verdict == "open")
    assert row.ids or row.note
    assert len(set(row.ids)) == len(row.ids)
    assert set(row.ids) <= set(CLAIMS)


def test_both_articles_are_in_the_table_each_statement_once():
    places = {row.place.partition(",")[0] for row in articles.TABLE}
    assert places == {"Article 1", "Article 2"}
    statements = [(row.place, row.quote) for row in articles.TABLE]
    assert len(set(statements)) == len(statements)


def test_every_claim_of_the_page_is_used_in_the_table():
    """ART-22 is the table itself; a correction stands in the table by the claim that it corrects."""
    named = {id for row in articles.TABLE for id in row.ids}
    named |= {CLAIMS[id].corrected_by for id in named}
    assert {one.id for one in claims_of(vars(articles))} - named == {"ART-22"}


def test_a_table_is_read_as_it_is_written():
    text = "Article 1, §1\n- a | proved | X-1 ¬X-2\n  why not\n- b | open\n  since\nArticle 2, Δ\n- c | refuted | X-3\n"
    assert list(articles.rows_of(text)) == [
        articles.Row("Article 1, §1", "a", "proved", ("X-1",), ("X-2",), "why not"),
        articles.Row("Article 1, §1", "b", "open", note="since"),
        articles.Row("Article 2, Δ", "c", "refuted", ("X-3",)),
    ]


def found(row=None, table=articles.TABLE, not_said=articles.NOT_SAID):
    """The mistakes of the table, with a row instead of its first proved one."""
    if row is not None:
        first = next(k for k, one in enumerate(table) if one.verdict == "proved" and one.by and not one.denies)
        table = (*table[:first], replace(table[first], **row), *table[first + 1 :])
    return list(articles.mistakes(table, not_said, CLAIMS))


def test_the_table_has_no_mistake():
    assert found() == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"by": ("ZOH-none",)}, "no claim ZOH-none"),
        ({"by": ()}, "no claim is named"),
        ({"verdict": "verified", "by": ("ZOH-3",)}, "verified in the table, proved by ZOH-3"),
        ({"verdict": "proved", "by": ("ZOH-3", "STAB-3")}, "proved in the table, verified by"),
        ({"verdict": "proved", "by": ("SEL-10",)}, "proved in the table, refuted by SEL-10"),
        ({"verdict": "refuted", "by": ("SEL-11",)}, "refuted in the table, proved by SEL-11"),
        ({"verdict": "proved", "denies": ("SEL-11",)}, "proved in the table, contradicted by"),
        ({"verdict": "open", "by": (), "note": ""}, "an open statement needs a reason"),
        ({"verdict": "open", "note": "why"}, "an open statement needs a reason and no claim"),
        ({"verdict": "true"}, "true in the table"),
    ],
)
def test_the_check_finds_a_row_that_is_wrong(row, words):
    [mistake] = found(row)
    assert words in mistake


def test_the_check_finds_a_refutation_that_is_missing_or_in_both_places():
    without = tuple(row for row in articles.TABLE if "COST-6" not in row.ids)
    assert found(table=without) == ["COST-6 refutes an article, and is in neither of table and NOT_SAID"]
    assert found(not_said={**articles.NOT_SAID, "COST-6": "why"}) == [
        "COST-6 refutes an article, and is in both of table and NOT_SAID"
    ]
    assert found(not_said={**articles.NOT_SAID, "ZOH-none": "why"}) == ["ZOH-none in NOT_SAID refutes no article"]
    assert found(not_said={**articles.NOT_SAID, "ZOH-3": "why"}) == ["ZOH-3 in NOT_SAID refutes no article"]


def test_the_claim_fails_with_a_wrong_table(monkeypatch):
    """ART-22"""
    wrong = replace(articles.TABLE[1], by=("ZOH-none",))
    monkeypatch.setattr(articles, "TABLE", (articles.TABLE[0], wrong, *articles.TABLE[2:]))
    assert verdict("ART-22") == "refuted"


# Article 1's block


@given(seed=seeds, length=lengths, other=st.booleans())
def test_all_forms_of_the_block_agree_and_none_looks_ahead(seed, length, other):
    check_model(block, seed, length, **({"width": 3, "state": 5} if other else {}))


@pytest.mark.parametrize("sizes", [{}, {"width": 3, "state": 5}, {"width": 1, "state": 1}])
def test_the_blocks_card(sizes):
    """ART-9, ART-14"""
    for length in (2, 11):
        check_card(block, length, **sizes)


def test_the_blocks_work_and_its_bad_input():
    check_complexity(block)
    check_bad_input(block)
    check_model(block, 0, 6, width=1, state=1)


@settings(max_examples=10)  # the state is one array: a few cases show whether it is handed on
@given(seed=seeds)
def test_the_block_goes_on_from_its_state(seed):
    params, x = draw(block, seed, 10)
    state, y = run_steps(block, params, x[:5])[1], []
    for x_t in x[5:]:
        y_t, state = block.step(params, state, x_t)
        y.append(y_t)
    assert_close(np.array(y), run_steps(block, params, x)[0][5:], "the second half")


@given(seed=seeds, length=lengths)
def test_the_block_is_the_selective_scan_between_its_projections(seed, length):
    """SEL-26, on the block as a whole."""
    params, x = draw(block, seed, length)
    x_in, res = block.project(params, x)
    delta, B, C = block.select(params, x_in)
    y = ssm_edu.selective_scan(
        *(x_in.T[None], delta.T[None], params.A, B.T[None], C.T[None], params.D, res.T[None]), backend="reference"
    )
    assert_close(block.parallel(params, x), y[0].T, "the block")
    for scan in SCANS:
        assert_close(block.as_affine_scan(params, x).outputs(scan), y[0].T, scan)


# Each check of the page fails something wrong


def test_the_first_two_claims_fail_wrong_formulas(monkeypatch):
    """ART-1: a derivative of the wrong sign; ART-2: a B̄ that shrinks."""
    import sympy as sp

    differentiate = sp.diff
    monkeypatch.setattr(articles.sp, "diff", lambda *args: -differentiate(*args))
    assert verdict("ART-1") == "refuted"
    monkeypatch.undo()
    monkeypatch.setattr(load("selectivity"), "maps", lambda name, delta, a: (sp.exp(delta * a), sp.exp(delta * a) / -a))
    assert verdict("ART-2") == "refuted"


def test_a_map_that_drifts_is_not_constant(monkeypatch):
    """ART-3"""
    right = s4d.as_affine_scan

    def drifting(params, x):
        scan = right(params, x)
        return replace(scan, a=scan.a * np.linspace(0.9, 1, len(x)))

    monkeypatch.setattr(s4d, "as_affine_scan", drifting)
    assert verdict("ART-3") == "refuted"
    monkeypatch.undo()
    constant = s4d.init(np.random.default_rng(0))
    monkeypatch.setattr(s6, "as_affine_scan", lambda _, x: right(constant, x))
    assert verdict("ART-3") == "refuted"


def test_selection_that_is_not_as_claimed_is_noticed(monkeypatch):
    """ART-4: a linear Δ; ART-5: one for each channel by itself; ART-6, ART-7: by all of x, not by 2N + 1 numbers."""
    right = block.select

    def own(params, x_in):
        chosen = right(params, x_in)
        return chosen._replace(delta=np.logaddexp(0, x_in + params.b_delta))

    monkeypatch.setattr(articles, "softplus", lambda value: value)
    assert verdict("ART-4") == "proved"
    monkeypatch.setattr(block, "select", own)
    assert verdict("ART-5") == "refuted"
    assert verdict("ART-6") == "verified"
    assert verdict("ART-7") == "refuted"


def test_a_transposed_array_and_a_wrong_block_are_noticed(monkeypatch):
    """ART-8"""
    monkeypatch.setitem(articles.COMMENTS, "dA", "b D L N")
    assert verdict("ART-8") == "refuted"
    monkeypatch.undo()
    right = block.maps

    def off(params, selected):
        A_bar, B_bar = right(params, selected)
        return A_bar, 1.001 * B_bar

    monkeypatch.setattr(block, "maps", off)
    assert verdict("ART-8") == "refuted"


@pytest.mark.parametrize(
    ("module", "wrong", "id"),
    [
        (block, {"memory": lambda *, width, state, **_: 2 * width**2 + 3 * width * state}, "ART-9"),
        (lstm, {"flops": lambda *, width, **_: 12 * width**2}, "ART-12"),
        (mamba, {"state_size": lambda *, width, expand, state, **_: expand * width * state}, "ART-14"),
        (s6, {"memory": lambda *, width, state, rank, **_: width * (3 * state + rank)}, "ART-18"),
    ],
)
def test_a_wrong_card_is_noticed(monkeypatch, module, wrong, id):
    monkeypatch.setattr(module, "CARD", replace(module.CARD, **wrong))
    assert verdict(id) == "refuted"


def test_a_block_with_a_residual_connection_would_be_told_apart(monkeypatch):
    """ART-10, ART-11"""
    right = block.parallel
    monkeypatch.setattr(block, "parallel", lambda params, x: right(params, x) + x)
    assert verdict("ART-10") == "verified"
    assert verdict("ART-11") == "refuted"


def test_a_released_block_without_taps_and_expansion_would_keep_the_state_alone(monkeypatch):
    """ART-13"""
    small = replace(mamba.CARD, state_size=lambda *, width, state, **_: width * state)
    monkeypatch.setattr(mamba, "CARD", small)
    assert verdict("ART-13") == "proved"


def test_other_relatives_are_told_apart(monkeypatch):
    """ART-15: a system that does not shift by one; ART-16: gates that trade places."""
    right = articles.h3_as_hyena
    monkeypatch.setattr(articles, "h3_as_hyena", lambda p, n: right(replace(p, W_Q=p.W_K, W_K=p.W_Q), n))
    assert verdict("ART-16") == "refuted"
    params, x = draw(h3, 0, 9)
    assert_close(hyena.parallel(right(params, 9), x), h3.parallel(params, x), "H3 by Hyena")
    monkeypatch.setattr(articles.sp, "Matrix", lambda *args, matrix=articles.sp.Matrix: matrix(*args) * 2)
    assert verdict("ART-15") == "refuted"


def test_a_scan_that_stores_less_is_told_apart(monkeypatch):
    """ART-17: the limit is taken of what is there."""
    right = articles.sp.limit
    monkeypatch.setattr(articles.sp, "limit", lambda *args: right(*args) / 2)
    assert verdict("ART-17") == "refuted"


def test_another_activation_is_no_gated_mlp(monkeypatch):
    """ART-19"""
    monkeypatch.setattr(mamba, "silu", np.tanh)
    assert verdict("ART-19") == "refuted"


def test_a_gate_that_hears_the_state_would_be_told_apart(monkeypatch):
    """ART-20, ART-21"""
    right = s6.step

    def hears(params, state, x_t):
        y, h = right(params, state, x_t)
        return y, h + 1e-3 * np.tanh(state)

    monkeypatch.setattr(s6, "step", hears)
    assert verdict("ART-20") == "verified"
    assert verdict("ART-21") == "refuted"
