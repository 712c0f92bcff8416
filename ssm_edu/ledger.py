"""The ledger of claims: what a derivation states, how it is checked, and the verdict it must come to.

A claim is a function of one argument, the :class:`Work`, on which it shows its steps and puts its checks:

    @claim("ZOH-2", r"\\int_0^\\Delta e^{uA}du = A^{-1}(e^{\\Delta A}-I)", source="Article 1, §1.2",
           method="symbolic", declared="proved")
    def integral(work):
        work.equal(sp.integrate(sp.exp(u * A), (u, 0, Delta)), (sp.exp(Delta * A) - 1) / A)

The verdict is never typed in: it is *proved* when every check is SymPy's and holds, for all values of its symbols;
*verified* when every check holds and some are numeric; *refuted* when a check failed with a witness. A claim that
checks nothing, that SymPy cannot decide, or that raises has the verdict *error*, which nobody can declare.

What SymPy checks are formulas; how they make up the statement is said in words beside them. A statement about every
length or size is proved by an induction step, or another check in which the size is a symbol; where none is given, it
is proved for the sizes that the statement or the evidence names, and no others.
"""

from __future__ import annotations

import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Method = Literal["symbolic", "numeric", "property", "measured"]
Verdict = Literal["proved", "verified", "refuted", "error"]
METHODS = ("symbolic", "numeric", "property", "measured")
DECLARABLE = ("proved", "verified", "refuted")


class Refuted(Exception):
    """A check failed, with a witness."""


class Undecided(Exception):
    """SymPy neither proved nor refuted an identity."""


@dataclass
class Step:
    """One line of the derivation: words, and the mathematics beside them as text and as LaTeX."""

    text: str
    math: str = ""
    latex: str = ""


@dataclass
class Evidence:
    """What was checked, on how many cases; the worst error, and the bound it had to stay within."""

    checked: str = ""
    cases: int = 0
    worst_error: float | None = None
    bound: float | None = None
    witness: str = ""
    steps: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        words = self.checked or f"{self.cases} case{'s' * (self.cases != 1)}"
        if self.worst_error is not None:
            words += f"; worst error {self.worst_error:.2g} of {self.bound:.2g}"
        return words + (f"; {self.witness}" if self.witness else "")


@dataclass(frozen=True)
class Result:
    """A claim's outcome. `ok` is whether the verdict is the declared one."""

    id: str
    statement: str
    source: str
    method: Method
    declared: Verdict
    verdict: Verdict
    evidence: Evidence
    derivation: str
    corrected_by: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        return self.verdict == self.declared

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Work:
    """Where a claim shows its steps and puts its checks. The first check that fails ends the claim."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.evidence = Evidence()
        self.checks = 0

    def show(self, text: str, expr: Any = None) -> None:
        """Record a step: words, and a SymPy expression, matrix or equation."""
        if expr is None:
            self.evidence.steps.append(Step(text))
            return
        import sympy as sp

        self.evidence.steps.append(Step(text, sp.pretty(expr, num_columns=100), sp.latex(expr)))

    def summary(self, text: str) -> None:
        """What was checked, in one line, in place of the count of cases."""
        self.evidence.checked = text

    def _count(self, cases: int = 1) -> None:
        self.checks += 1
        self.evidence.cases += cases

    def equal(self, left: Any, right: Any, text: str = "") -> None:
        """left = right, as SymPy expressions or matrices, for all values of their symbols.

        Proved by simplifying the difference to zero; refuted by a point where it is not zero."""
        import sympy as sp

        if text:
            self.show(text, sp.Eq(left, right, evaluate=False))
        self._count()
        left, right = sp.sympify(left), sp.sympify(right)
        difference = left - right
        entries = list(difference) if isinstance(difference, sp.MatrixBase) else [difference]
        for entry in entries:
            if not _is_zero(entry):
                point = _nonzero_at(entry)
                if point is None:
                    raise Undecided(f"SymPy cannot decide whether {sp.sstr(sp.simplify(entry))} is zero")
                values, value = point
                where = ", ".join(f"{s} = {sp.N(v, 4)}" for s, v in values.items()) or "no free symbol"
                raise Refuted(f"at {where} the two sides differ by {sp.N(value, 4)}")

    def true(self, condition: Any, text: str = "", witness: str = "") -> None:
        """A condition that must hold; a symbolic claim needs SymPy's `true`, and anything undecided is an error."""
        import sympy as sp

        if text:
            self.show(text)
        self._count()
        if self.method == "symbolic":
            if condition is None:
                raise Undecided("SymPy cannot decide it: the condition is None")
            condition = sp.sympify(bool(condition) if type(condition).__name__ == "bool_" else condition)
            if condition not in (sp.true, sp.false):
                condition = sp.simplify(condition)
            if condition not in (sp.true, sp.false):
                raise Undecided(f"SymPy cannot decide whether {condition}")
        if not condition:
            raise Refuted(witness or text or "the condition does not hold")

    def within(self, error: Any, bound: Any, case: str = "", cases: int | None = None) -> None:
        """error ≤ bound, elementwise for arrays. NaN fails. Keeps the pair that came closest to failing."""
        import numpy as np

        if self.method == "symbolic":
            raise TypeError("a symbolic claim rests on equal() and true() alone; this one calls within()")
        errors, bounds = np.broadcast_arrays(np.asarray(error, float), np.asarray(bound, float))
        if errors.size == 0:
            raise ValueError("within() was given no case")
        if np.isposinf(bounds).any():
            raise ValueError("within() was given an infinite bound, which checks nothing")
        self._count(errors.size if cases is None else cases)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(errors <= bounds, np.where(bounds > 0, errors / bounds, 0.0), np.inf)
        worst = int(np.argmax(ratios))
        e, b = float(errors.flat[worst]), float(bounds.flat[worst])
        kept = self.evidence
        if kept.worst_error is None or ratios.flat[worst] >= _ratio(kept.worst_error, kept.bound or 0.0):
            kept.worst_error, kept.bound = e, b
        if not e <= b:
            raise Refuted(f"{case + ': ' if case else ''}error {e:.3g} exceeds {b:.3g}")

    @contextmanager
    def premise(self) -> Iterator[None]:
        """Checks without which a refutation would mean nothing: where one fails, the verdict is *error*."""
        try:
            yield
        except Refuted as failure:
            raise Undecided(f"a premise does not hold: {failure}") from None

    def forall(self, strategy: SearchStrategy[Any], check: Callable[[Any], None], examples: int = 200) -> None:
        """check(value) for values that Hypothesis draws, always the same ones; a failure is shrunk first."""
        from hypothesis import HealthCheck, Phase, given, settings

        failure: list[str] = []

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(strategy)
        def run(value: Any) -> None:
            try:
                check(value)
            except Refuted as error:
                failure[:] = [f"{error}, for {value!r}"]
                raise

        try:
            run()
        except Refuted:
            raise Refuted(failure[0]) from None


def _ratio(error: float, bound: float) -> float:
    return math.inf if not error <= bound else (error / bound if bound > 0 else 0.0)


def _is_zero(entry: Any) -> bool:
    import sympy as sp

    attempts: tuple[Callable[[Any], Any], ...] = (
        sp.expand,
        sp.simplify,
        lambda e: sp.simplify(e.rewrite(sp.exp)),
        lambda e: sp.simplify(sp.expand(sp.expand_complex(e))),
    )
    return entry == 0 or any(attempt(entry) == 0 for attempt in attempts)


def _nonzero_at(entry: Any) -> tuple[dict[Any, Any], Any] | None:
    """A point where the expression is not zero to 30 digits, if one of a fixed handful shows it."""
    import sympy as sp

    symbols = sorted(entry.free_symbols, key=str)
    for k in range(1, 9):
        values = {}
        for j, symbol in enumerate(symbols):
            size = 1 + (3 * k + 5 * j) % 7
            value = sp.Integer(size) if symbol.is_integer else sp.Rational(size * 10 + j + k, 11 + 2 * k)
            values[symbol] = -value if symbol.is_negative or (symbol.is_positive is None and k % 2) else value
        value = entry.subs(values).doit().evalf(40)
        if value.is_number and value.is_finite and abs(value) > sp.Float("1e-30"):
            return values, value
    return None


@dataclass(frozen=True)
class Claim:
    """A statement, where it comes from, how it is checked and the verdict it must come to."""

    id: str
    statement: str
    source: str
    method: Method
    declared: Verdict
    corrected_by: str | None
    function: Callable[[Work], None]

    @property
    def derivation(self) -> str:
        return self.function.__module__.rpartition(".")[2]

    @property
    def title(self) -> str:
        return (self.function.__doc__ or self.function.__name__.replace("_", " ")).strip().split("\n")[0]

    def _repr_markdown_(self) -> str:
        """What a notebook shows of the claim: its statement, and the verdict to which its checks come now."""
        return markdown_of(self.check(), self.title)

    def check(self) -> Result:
        """Run the checks; never raises."""
        work = Work(self.method)
        start = time.perf_counter()
        verdict: Verdict
        try:
            self.function(work)
            if work.checks == 0:
                raise Undecided("the claim checks nothing")
            verdict = "proved" if self.method == "symbolic" else "verified"
        except Refuted as failure:
            verdict, work.evidence.witness = "refuted", str(failure)
        except Undecided as failure:
            verdict, work.evidence.witness = "error", str(failure)
        except Exception:
            verdict, work.evidence.witness = "error", traceback.format_exc(limit=-2)
        seconds = time.perf_counter() - start
        return Result(
            self.id,
            self.statement,
            self.source,
            self.method,
            self.declared,
            verdict,
            work.evidence,
            self.derivation,
            self.corrected_by,
            seconds,
        )


def claim(
    id: str,
    statement: str,
    *,
    source: str,
    method: Method,
    declared: Verdict,
    corrected_by: str | None = None,
) -> Callable[[Callable[[Work], None]], Claim]:
    """Make a claim of a function of a :class:`Work`.

    Args:
        id: such as ``ZOH-3``; cited in docstrings and tests where code rests on it.
        statement: LaTeX, without dollar signs.
        source: begins with a key of :data:`ssm_edu.sources.SOURCES`; several are separated by semicolons.
        method: ``symbolic`` (SymPy alone decides), ``numeric`` (against SciPy or mpmath to a stated bound),
            ``property`` (Hypothesis draws the cases) or ``measured``.
        declared: the verdict that the check must come to: ``proved``, ``verified`` or ``refuted``.
        corrected_by: with ``refuted``, the ID of the claim that says what holds instead.

    Raises:
        ValueError: an unknown method or verdict, or a refuted claim without its correction.
    """
    if method not in METHODS:
        raise ValueError(f"claim {id}: method {method!r} is none of {', '.join(METHODS)}")
    if declared not in DECLARABLE:
        raise ValueError(f"claim {id}: declared verdict {declared!r} is none of {', '.join(DECLARABLE)}")
    if (declared == "refuted") != (corrected_by is not None):
        raise ValueError(f"claim {id}: corrected_by goes with a refuted claim, and a refuted claim needs one")

    def decorate(function: Callable[[Work], None]) -> Claim:
        return Claim(id, statement, source, method, declared, corrected_by, function)

    return decorate


def claims_of(namespace: dict[str, Any]) -> list[Claim]:
    """The claims of a module's namespace, in the order they stand in it."""
    return [value for value in namespace.values() if isinstance(value, Claim)]


def lines_of(result: Result) -> Iterator[str]:
    """A result as text: the statement, the steps with their mathematics, the verdict and its evidence."""
    yield f"{result.id}  {result.statement}"
    yield f"  source: {result.source}"
    for step in result.evidence.steps:
        yield f"  · {step.text}"
        for line in step.math.splitlines():
            yield f"      {line}"
    mark = "✓" if result.ok else f"✗ declared {result.declared}, but"
    yield f"  {mark} {result.verdict} ({result.method}): {result.evidence}"
    if result.corrected_by:
        yield f"  what holds instead: {result.corrected_by}"


def markdown_of(result: Result, title: str) -> str:
    """A result as Markdown: title and verdict, the statement, the evidence, and the steps folded away."""
    mark = "" if result.ok else f", though declared {result.declared}"
    verdict = f'<span class="verdict verdict-{result.verdict}">{result.verdict}</span>{mark}'
    blocks = [f"**{result.id}** {title} {verdict}", f"$$\n{result.statement}\n$$"]
    instead = f" What holds instead: [{result.corrected_by}](#{result.corrected_by})." if result.corrected_by else ""
    blocks.append(f"*{result.source}.* Checked ({result.method}): {_plain(str(result.evidence))}.{instead}")
    if result.evidence.steps:
        blocks.append("<details><summary>Steps</summary>")
        for step in result.evidence.steps:
            blocks.append(f"- {_plain(step.text)}")
            if step.latex:
                blocks.append(f"  $$\n  {step.latex}\n  $$")
        blocks.append("</details>")
    return "\n\n".join(blocks) + "\n"


def _plain(text: str) -> str:
    """The text with what Markdown would read as markup escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#$|~])", r"\\\1", " ".join(text.split()))


def run_as_script(namespace: dict[str, Any]) -> None:
    """Check and print every claim of a derivation script; exit with 1 if a verdict is not the declared one."""
    failed = 0
    for one in claims_of(namespace):
        result = one.check()
        failed += not result.ok
        print(*lines_of(result), "", sep="\n")
    if failed:
        sys.exit(1)
