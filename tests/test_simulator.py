"""The simulator: every broken kernel fails with its message, every correct one passes under drawn schedules."""

import doctest
import os
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import cuda, float32, int32

import ssm_edu.testing.simulator as simulator
from ssm_edu.testing.simulator import BarrierError, OutOfBounds, RaceError, UninitialisedRead, simulated
from ssm_edu.testing.simulator.warp import DOWN, IDX, UP, XOR, exchange, shuffle_source
from tests.simulated_kernels import BROKEN, CORRECT, FULL

schedules = st.randoms(use_true_random=False)


def launch_broken(kernel, blocks, threads, arrays, **options):
    arguments = [np.ones(n, dtype) for n, dtype in arrays]
    with simulated(**options):
        kernel[blocks, threads](*arguments)
    return arguments


def launch_correct(case, schedule, **options):
    name, kernel, blocks, threads, dynamic, make = case
    for seed in range(2):
        arguments, (position, expected) = make(np.random.default_rng(seed))
        with simulated(schedule, **options):
            kernel[blocks, threads, 0, dynamic](*arguments)
        np.testing.assert_array_equal(arguments[position], expected, err_msg=name)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case[0])
@pytest.mark.parametrize("schedule", [None, 0, 1])
def test_broken_kernels_fail_with_a_message_to_act_on(case, schedule):
    _, kernel, error, patterns, blocks, threads, arrays = case
    with pytest.raises(error) as caught:
        launch_broken(kernel, blocks, threads, arrays, schedule=schedule)
    for pattern in patterns if schedule is None else ():
        assert re.search(pattern, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("case", CORRECT, ids=lambda case: case[0])
def test_correct_kernels_pass_in_the_order_of_the_threads(case):
    launch_correct(case, None)


@pytest.mark.parametrize("case", CORRECT, ids=lambda case: case[0])
def test_correct_kernels_pass_under_drawn_schedules(case):
    for seed in range(8):
        launch_correct(case, seed)


@given(st.sampled_from(CORRECT), schedules)
def test_correct_kernels_pass_under_schedules_that_hypothesis_draws(case, schedule):
    launch_correct(case, schedule)
