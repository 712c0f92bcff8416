"""The simulator's view: what is drawn is what ran, and the race that is marked is the one that was caught."""

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("greenlet")
pytest.importorskip("pygments")
from numba import cuda

if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
    pytest.skip("Numba was imported without NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)

from ssm_edu.selective import selective_scan
from ssm_edu.testing.simulator import BarrierError, RaceError

EXPLORE = Path(__file__).parent.parent / "docs" / "explore"
SCHEDULES = (None, *range(6))


@pytest.fixture(scope="module", autouse=True)
def beside_the_page():
    """The page's modules are found from its folder, as when the page is run."""
    sys.path.insert(0, str(EXPLORE))
    yield
    sys.path.remove(str(EXPLORE))
    for name in [name for name in sys.modules if name.partition(".")[0] == "simulator"]:
        del sys.modules[name]


@pytest.fixture
def runs():
    from simulator import runs

    return runs


@pytest.fixture
def steps():
    from simulator.timeline import steps

    return steps


def every(runs):
    return (
        runs.rung1(without_second_barrier=False, schedule=1),
        runs.rung1(without_second_barrier=True),
        runs.shuffled_sum(),
        runs.early_return(),
    )


def written(run, name):
    return {event.index: event.value for event in run.events if event.kind == "write" and event.name == name}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rung_1_is_right_in_every_order(schedule, runs):
    run = runs.rung1(without_second_barrier=False, schedule=schedule)
    assert run.error is None
    y = written(run, "argument `y`")
    layer = runs.layer()
    expected = selective_scan(**layer, delta_softplus=True, backend="reference")
    # the layer is tiny: a dozen roundings of float32 in each y
    np.testing.assert_allclose([y[i] for i in np.ndindex(expected.shape)], expected.ravel(), rtol=20 * 2**-24)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_its_barrier_it_is_a_race_in_every_order(schedule, runs):
    run = runs.rung1(without_second_barrier=True, schedule=schedule)
    assert isinstance(run.error, RaceError)
    assert "shared array `read`" in str(run.error)


def test_the_barrier_that_is_taken_out_must_be_there(runs, monkeypatch):
    from simulator import kernels

    monkeypatch.setattr(kernels, "BARRIER", "            cuda.syncwarp()\n")
    with pytest.raises(ValueError, match="has not the two barriers"):
        kernels.without_second_barrier()


def test_every_shown_event_is_a_step_and_a_barrier_is_one_for_all(runs, steps):
    marks = steps(runs.rung1(without_second_barrier=False, schedule=1))
    kinds = {kind: sum(mark.kind == kind for mark in marks) for kind in {mark.kind for mark in marks}}
    threads, length = runs.THREADS, runs.LENGTH
    assert kinds == {
        "write": length * (threads + runs.CHANNELS),
        "read": length * threads,
        "arrive": 2 * length * threads,
        "barrier": 2 * length,
        "return": threads,
    }


def test_columns_keep_to_what_is_ordered(runs, steps):
    """A thread's events go to the right; a barrier or a shuffle stands behind all that its threads did before."""
    for run in every(runs):
        last = dict.fromkeys(run.threads, -1)
        for mark in steps(run):
            if mark.kind == "arrive":
                continue
            for thread in mark.threads:
                assert mark.column > last[thread]
                last[thread] = mark.column


def test_a_wrong_layout_would_be_seen(runs, steps, monkeypatch):
    """The check above fails where a barrier does not wait for the slowest thread."""
    import simulator.timeline as timeline

    monkeypatch.setattr(timeline, "max", min, raising=False)
    with pytest.raises(AssertionError):
        test_columns_keep_to_what_is_ordered(runs, steps)


def test_the_marked_race_is_the_one_that_was_caught(runs, steps):
    from simulator.timeline import race_steps

    run = runs.rung1(without_second_barrier=True)
    marks = steps(run)
    pair = [marks[k] for k in race_steps(run, marks)]
    error = run.error
    assert [(mark.threads, mark.line) for mark in pair] == [
        ([side.thread], side.line) for side in (error.first, error.second)
    ]
    assert [mark.kind for mark in pair] == ["read", "write"]
    assert re.findall(r"read\[0, 1\]", " ".join(mark.words for mark in pair)) == ["read[0, 1]"] * 2
    assert race_steps(replace(run, error=None), marks) == []


def test_shuffles_come_from_the_lane_that_the_reach_says(runs, steps):
    run = runs.shuffled_sum()
    sources = [mark.sources for mark in steps(run) if mark.kind == "shuffle"]
    assert sources == [{i: i - reach for i in range(reach, 8)} for reach in (1, 2, 4)]
    np.testing.assert_array_equal(list(written(run, "argument `y`").values()), np.cumsum(np.arange(1, 9)))


def test_an_early_return_is_a_barrier_error(runs, steps):
    run = runs.early_return()
    assert isinstance(run.error, BarrierError)
    kinds = [mark.kind for mark in steps(run)]
    assert (kinds.count("return"), kinds.count("arrive"), kinds.count("barrier")) == (3, 5, 0)


def test_the_view_says_in_its_table_what_it_draws(runs, steps):
    from simulator.picture import view

    for run in every(runs):
        marks, shown = steps(run), view(run)
        svg = ET.fromstring(re.search("<svg.*?</svg>", shown, re.DOTALL)[0].replace(' xmlns="http', ' x="http'))
        drawn = [group for group in svg.iter("g") if group.get("class").startswith("event")]
        assert [int(g.get("data-step")) for g in drawn if g.get("class") != "event race"] == list(range(len(marks)))
        assert [g.find("title").text for g in drawn if g.get("class") != "event race"] == [mark.words for mark in marks]
        assert [g.get("class") for g in drawn].count("event race") == isinstance(run.error, RaceError)
        rows = re.findall(r'<tr data-step="(\d+)" data-line="(\d+)"><td>\d+</td><td>(.*?)</td>', shown)
        assert [(int(k), int(line)) for k, line, _ in rows] == [(k, mark.line) for k, mark in enumerate(marks)]
        assert all(unescape(words).startswith(mark.words) for (_, _, words), mark in zip(rows, marks, strict=True))
        listed = {int(line) for line in re.findall(r'class="line[^"]*" data-line="(\d+)"', shown)}
        assert {mark.line for mark in marks} - {0} <= listed
        if run.error is not None:
            assert str(run.error) in unescape(shown)
            assert len(re.findall('class="line racing"', shown)) == 2 * isinstance(run.error, RaceError)
