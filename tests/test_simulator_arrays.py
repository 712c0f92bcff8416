"""The simulator's arrays: indices, slices, views, records, local and dynamic shared memory, and what they refuse."""

import numpy as np
import pytest
from numba import cuda, float32, float64, int32, int64

if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
    pytest.skip("Numba was imported without NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)

from ssm_edu.testing.simulator import OutOfBounds, UninitialisedRead, simulated
from tests.simulated_kernels import raised, ran


@cuda.jit
def views(x, y):
    row = x[1]
    flat = x.reshape(12)
    halves = flat.view(int32)
    y[0], y[1], y[2], y[3] = row[2], flat[5], x.T[3, 2], halves[2 * 7]
    s = cuda.shared.array((2, 4), int64)
    s[0] = row
    s[1, 1:3] = 5
    y[4], y[5], y[6] = s[0, 3], s[1, 2], len(x) + x.ndim + x.size
    y[7] = sum(v for v in x[2])


def test_views_slices_and_attributes():
    x, y = np.arange(12).reshape(3, 4), np.zeros(8, np.int64)
    ran(views, x, y, threads=1)
    assert list(y) == [6, 5, 11, 7, 7, 5, 17, 38]


@cuda.jit
def flatten(x):
    x.T.reshape(4)


@cuda.jit
def by_truth(x):
    x[True, 0] = 1


@cuda.jit
def beyond_a_row(x):
    x[2][0] = 1


@cuda.jit
def unknown_attribute(x):
    x.flatten()


def test_arrays_refuse_what_a_kernel_cannot_do():
    x = np.zeros((2, 2))
    assert "would be a copy" in raised(ValueError, flatten, x)
    assert "indexed with a bool" in raised(TypeError, by_truth, x)
    assert "[2] of argument `x` (2, 2)" in raised(OutOfBounds, beyond_a_row, x)
    assert "no attribute 'flatten' in the simulator" in raised(AttributeError, unknown_attribute, x)


@cuda.jit
def move(points, out):
    i = cuda.threadIdx.x
    out[i] = points[i].x + points["y"][i] + points.y[i]
    points[i]["x"] = 0


def test_records():
    points = np.array([(1, 2.0), (3, 4.0)], [("x", np.int32), ("y", np.float32)])
    out = np.zeros(2)
    ran(move, points, out, threads=2)
    assert list(out) == [5, 11]
    assert list(points["x"]) == [0, 0]
    assert "[2] of argument `out`" in raised(OutOfBounds, move, np.zeros(3, points.dtype), out, threads=3)


POINT = np.dtype([("x", np.int32), ("y", np.float32)])


@cuda.jit
def local_point(out):
    points = cuda.local.array(2, POINT)
    points[1].x = 3
    out[0] = points[1].x


def test_local_records():
    out = np.zeros(1)
    ran(local_point, out, threads=1)
    assert out[0] == 3


@cuda.jit
def half_of_a_local_word(out):
    words = cuda.local.array(1, float32)
    halves = words.view(np.uint16)
    halves[0] = 1
    out[0] = halves[0]
    out[0] = words[0]


def test_half_of_a_local_word_is_not_all_of_it():
    assert "[0] of local array `words`" in raised(UninitialisedRead, half_of_a_local_word, np.zeros(1), threads=1)


@cuda.jit
def local_elements(out, i):
    words = cuda.local.array(3, float32)
    words[0], words[np.int64(1)] = 1.1, np.float64(2)
    out[0], out[1] = words[np.uint8(0)], words[1]
    words[1:] = words[:1][0] + 3
    out[2], out[3] = words[1], words.size
    words[i] = 5
    out[4] = words[2] + len(words)


@pytest.mark.parametrize(("i", "words"), [(2, None), (3, "[3]"), (-1, "[-1]"), (np.int32(-3), "[-3]")])
def test_local_elements_are_of_the_arrays_dtype_and_the_same_in_slices(i, words):
    out = np.zeros(5)
    if words is None:
        ran(local_elements, out, i, threads=1)
        assert list(out) == [np.float32(1.1), 2, np.float32(1.1) + np.float32(3), 3, 8]
    else:
        assert f"{words} of local array `words` (3,) float32" in raised(OutOfBounds, local_elements, out, i, threads=1)


@cuda.jit
def another_local_element(out, i):
    words = cuda.local.array(2, float32)
    words[0] = 1
    out[0] = words[i]


def test_a_local_element_that_was_not_written():
    out = np.zeros(1)
    assert "[1] of local array `words`" in raised(UninitialisedRead, another_local_element, out, 1, threads=1)
    ran(another_local_element, out, 1, threads=1, uninitialised="poison")
    assert np.isnan(out[0])
    ran(another_local_element, out, 0, threads=1, uninitialised="poison")
    assert out[0] == 1
    with pytest.raises(TypeError, match="indexed with a bool"):
        ran(another_local_element, out, True, threads=1)
    ran(another_local_element, out, -2, threads=1, wraparound=True)
    assert out[0] == 1


@cuda.jit
def dynamic_in_either_size(y):
    wide = cuda.shared.array(0, float64)
    narrow = cuda.shared.array(0, float32)
    y[0], y[1] = wide.size, narrow.size


def test_dynamic_shared_memory_has_every_byte_that_was_asked_for():
    y = np.zeros(2)
    with simulated():
        dynamic_in_either_size[1, 1, 0, 12](y)
    assert list(y) == [1, 3]
