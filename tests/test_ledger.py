"""The ledger: verdicts are earned, and a claim that is wrong fails."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import strategies as st

from ssm_edu.ledger import Refuted, Work, claim, claims_of, lines_of, run_as_script

x, y = sp.symbols("x y")
n = sp.Symbol("n", integer=True, positive=True)


def outcome(method, declared, body, corrected_by=None):
    return claim("T-1", "s", source="Mamba", method=method, declared=declared, corrected_by=corrected_by)(body).check()


def test_a_true_identity_is_proved():
    result = outcome("symbolic", "proved", lambda work: work.equal(sp.sin(x) ** 2 + sp.cos(x) ** 2, 1, "Pythagoras"))
    assert (result.verdict, result.ok) == ("proved", True)
    assert result.evidence.steps[0].latex
    assert "sin" in result.evidence.steps[0].math


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (sp.exp(x + y), sp.exp(x) * sp.exp(y) + sp.Rational(1, 10**12)),
        ((x + y) ** 2, x**2 + y**2),
        (sp.Matrix([[x, y]]), sp.Matrix([[y, x]])),
        (sp.factorial(n + 1), n * sp.factorial(n)),
        (sp.Abs(x), x),
    ],
)
def test_a_false_identity_is_refuted_with_a_point(left, right):
    result = outcome("symbolic", "proved", lambda work: work.equal(left, right))
    assert (result.verdict, result.ok) == ("refuted", False)
    assert "the two sides differ" in result.evidence.witness


def test_matrices_of_different_shapes_are_an_error_and_no_proof():
    assert outcome("symbolic", "proved", lambda w: w.equal(sp.eye(2), sp.eye(3))).verdict == "error"


def test_what_sympy_cannot_decide_is_an_error():
    f = sp.Function("f")
    result = outcome("symbolic", "proved", lambda work: work.equal(f(x), f(y)))
    assert result.verdict == "error"
    assert "cannot decide" in result.evidence.witness


def test_checking_nothing_is_an_error():
    assert "checks nothing" in outcome("numeric", "verified", lambda work: work.show("words")).evidence.witness


def test_an_exception_is_an_error_and_never_a_refutation():
    result = outcome("numeric", "refuted", lambda work: 1 / 0, corrected_by="T-2")
    assert (result.verdict, result.ok) == ("error", False)
    assert "ZeroDivisionError" in result.evidence.witness


def test_a_numeric_check_cannot_prove():
    result = outcome("symbolic", "proved", lambda work: work.within(0.0, 1.0))
    assert result.verdict == "error"
    assert outcome("numeric", "verified", lambda work: work.within(0.0, 1.0)).verdict == "verified"


@pytest.mark.parametrize("error", [2.0, np.nan, np.inf, [0.1, 2.0], [0.1, np.nan]])
def test_an_error_past_its_bound_refutes(error):
    result = outcome("numeric", "verified", lambda work: work.within(error, 1.0, "the case"))
    assert (result.verdict, result.ok) == ("refuted", False)
    assert "the case" in result.evidence.witness


def test_the_worst_error_is_kept_by_its_ratio_to_the_bound():
    def body(work):
        work.within([1e-3, 5e-9], [1.0, 1e-8])
        work.within(0.2, 1.0)

    evidence = outcome("numeric", "verified", body).evidence
    assert (evidence.worst_error, evidence.bound, evidence.cases) == (5e-9, 1e-8, 3)


def test_true_in_a_symbolic_claim_wants_sympys_true():
    assert outcome("symbolic", "proved", lambda w: w.true(sp.exp(x).is_nonzero is not False)).verdict == "proved"
    assert outcome("symbolic", "proved", lambda w: w.true(sp.Symbol("t", positive=True) > 0)).verdict == "proved"
    assert outcome("symbolic", "proved", lambda w: w.true(x > 0)).verdict == "error"
    assert outcome("symbolic", "proved", lambda w: w.true(sp.pi < 3)).verdict == "refuted"


def test_forall_shrinks_its_counterexample():
    def body(work):
        def check(value):
            work.within(value, 100)

        work.forall(st.integers(0, 10**6), check)

    result = outcome("property", "verified", body)
    assert result.verdict == "refuted"
    assert "for 101" in result.evidence.witness


def test_forall_draws_the_same_cases_every_time():
    def draws():
        seen = []
        Work("property").forall(st.floats(0, 1), seen.append)
        return seen

    assert draws() == draws()


def test_a_declared_refutation_must_fail_its_check():
    assert outcome("symbolic", "refuted", lambda w: w.equal(x, x), corrected_by="T-2").ok is False
    assert outcome("symbolic", "refuted", lambda w: w.equal(x, y), corrected_by="T-2").ok is True


@pytest.mark.parametrize(
    ("method", "declared", "corrected_by", "message"),
    [
        ("guess", "proved", None, "method 'guess' is none of symbolic"),
        ("symbolic", "error", None, "declared verdict 'error' is none of"),
        ("symbolic", "refuted", None, "a refuted claim needs one"),
        ("symbolic", "proved", "T-2", "corrected_by goes with a refuted claim"),
    ],
)
def test_a_claim_that_is_ill_declared_is_refused(method, declared, corrected_by, message):
    function = claim.__wrapped__  # the annotations would speak first
    with pytest.raises(ValueError, match=message):
        function("T-1", "s", source="Mamba", method=method, declared=declared, corrected_by=corrected_by)


def test_a_script_prints_its_steps_and_exits_with_1_on_a_wrong_verdict(capsys):
    @claim("T-1", "x = x", source="Mamba", method="symbolic", declared="proved")
    def right(work):
        work.equal(x, x, "a step")

    @claim("T-2", "x = y", source="Mamba", method="symbolic", declared="proved")
    def wrong(work):
        work.equal(x, y, "another")

    assert [one.id for one in claims_of({"a": right, "b": 3, "c": wrong})] == ["T-1", "T-2"]
    run_as_script({"a": right})
    with pytest.raises(SystemExit) as exit_:
        run_as_script({"a": right, "b": wrong})
    assert exit_.value.code == 1
    printed = capsys.readouterr().out
    assert "a step" in printed
    assert "declared proved, but refuted" in printed
    assert any("source: Mamba" in line for line in lines_of(right.check()))


def test_refuted_is_raised_at_once():
    work = Work("numeric")
    with pytest.raises(Refuted):
        work.true(False, witness="so")


def test_a_premise_that_fails_is_an_error_and_no_refutation():
    def body(holds):
        def check(work):
            with work.premise():
                work.true(holds, "the premise")
            work.equal(x, y)

        return check

    assert outcome("symbolic", "refuted", body(True), corrected_by="T-2").ok
    result = outcome("symbolic", "refuted", body(False), corrected_by="T-2")
    assert (result.verdict, result.ok) == ("error", False)
    assert "a premise does not hold: the premise" in result.evidence.witness


def test_an_infinite_bound_is_an_error():
    result = outcome("numeric", "verified", lambda work: work.within([0.0, 1.0], [1.0, np.inf]))
    assert (result.verdict, result.ok) == ("error", False)
    assert "infinite bound" in result.evidence.witness


def test_a_notebook_shows_statement_verdict_and_steps():
    one = claim("T-1", r"\alpha_1", source="Mamba", method="symbolic", declared="proved")

    def squares(work: Work) -> None:
        """The square of a sum"""
        work.equal((x + y) ** 2, x**2 + 2 * x * y + y**2, "a_b * c*")

    shown = one(squares)._repr_markdown_()
    assert shown.startswith('**T-1** The square of a sum <span class="verdict verdict-proved">proved</span>')
    assert "$$\n\\alpha_1\n$$" in shown
    assert r"- a\_b \* c\*" in shown
    assert r"\left(x + y\right)^{2}" in shown


def test_a_notebook_shows_a_verdict_out_of_place():
    def wrong(work: Work) -> None:
        work.equal(x, y)

    shown = claim("T-1", "s", source="Mamba", method="symbolic", declared="proved")(wrong)._repr_markdown_()
    assert ">refuted</span>, though declared proved" in shown
    assert "the two sides differ" in shown
