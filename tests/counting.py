"""What launches in the simulator do: the bytes over time that they move, exponentials, floating-point operations."""

import math
import operator
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest

from ssm_edu.testing.simulator.array import Array

# arguments of no length of time
WITHOUT_TIME = {"A", "D", "delta_bias", "A_parts", "D_parts", "bias_parts", "dA", "dD", "dbias"}
WITHOUT_TIME |= {"last", "sums", "dA_", "dD_", "dbias_", "leaving"}


class Counted(np.float32):
    """A float32 that counts the operations on it."""

    done: Counter


def counted(name):
    operation = getattr(operator, name)

    def forwards(self, other):
        Counted.done["flops"] += 1
        return Counted(operation(np.float32(float(self)), np.float32(float(other))))

    def backwards(self, other):
        Counted.done["flops"] += 1
        return Counted(operation(np.float32(float(other)), np.float32(float(self))))

    return forwards, backwards


for name in ("add", "sub", "mul", "truediv"):
    there, back = counted(name)
    setattr(Counted, f"__{name}__", there)
    setattr(Counted, f"__r{name}__", back)


def count_bytes(array):
    title = array._memory.title
    in_time = title.startswith("argument") and title.split("`")[1] not in WITHOUT_TIME
    Counted.done["bytes"] += array.itemsize * in_time


@contextmanager
def counting():
    """The counts of bytes, exponentials and flops, of what is launched inside."""
    from ssm_edu.testing.simulator import intrinsics  # it needs Numba's simulator

    Counted.done = Counter()
    read, write = Array.__getitem__, Array.__setitem__

    def getitem(array, index):
        count_bytes(array)
        value = read(array, index)
        return Counted(value) if array.dtype.kind == "f" else value

    def setitem(array, index, value):
        count_bytes(array)
        write(array, index, value)

    def in_memory(launch, where, length, dtype):
        return launch.allocate("local array", (length,), dtype, races=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intrinsics, "Registers", in_memory)
        patch.setattr(Array, "__getitem__", getitem)
        patch.setattr(Array, "__setitem__", setitem)
        for module, function in ((math, math.exp), (math, math.log1p), (np, np.exp2)):

            def elementary(x, function=function):
                Counted.done["exponentials"] += 1
                return Counted(function(x))

            patch.setattr(module, function.__name__, elementary)
        yield Counted.done
