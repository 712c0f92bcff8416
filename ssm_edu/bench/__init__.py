"""Selective scans against each other: each is judged by the oracle's error bound, then timed.

A :class:`~ssm_edu.bench.cases.Case` is the problem, a :class:`~ssm_edu.bench.contestants.Contestant` solves it, a
:class:`~ssm_edu.bench.judging.Judge` knows the exact outputs, and :func:`~ssm_edu.bench.judging.measure` makes a row.
On a GPU, :mod:`ssm_edu.bench.device` makes a :class:`~ssm_edu.bench.results.Report`, which docs/benchmarks keeps.
"""

from __future__ import annotations

from ssm_edu.bench.cases import Case
from ssm_edu.bench.contestants import BUILT_IN, Contestant
from ssm_edu.bench.judging import Judge, Row, Verdict, measure

__all__ = ["BUILT_IN", "Case", "Contestant", "Judge", "Row", "Verdict", "measure"]
