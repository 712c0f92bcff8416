"""The production CUDA kernels launched on a problem, in whatever variant, and how far they are from the oracle."""

import types
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import reject
from numba import cuda
from ssm_kernels import choosing, description, scan
from ssm_kernels.choosing import SHARED_BYTES

from ssm_edu import bounds
from ssm_edu.gpu import runtime
from ssm_edu.gpu.plan import plan
from ssm_edu.selective import reference
from ssm_edu.selective.problem import make_problem
from ssm_edu.selective.reference import Gradients
from ssm_edu.testing.simulator import KernelError
from tests.kernel_runs import SIMULATED, running
from tests.problems import random_arguments

NARROW = ("u", "delta", "z", "grad_y")
WIDTH = {"float32": 4, "float16": 8, "bfloat16": 8, "float64": 2}  # elements of 16 bytes


def as_bfloat16(arguments):
    """The arguments of a bfloat16 scan, their inputs rounded, in float32: NumPy has no bfloat16."""

    def rounded(array):
        buffer = Device("bfloat16").buffer("u", array)
        return buffer.read()

    def is_narrow(name, value):
        return name in NARROW or (name in "BC" and value.ndim == 4 and value.dtype == np.float32)

    return {name: rounded(value) if is_narrow(name, value) else value for name, value in arguments.items()}


class Buffer:
    """An array where the kernels find it, NaN until it is written; `address` is what they take for it."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, dtype
        bits = np.dtype(runtime.BITS.get(dtype, dtype))
        self.array = np.full(prod(shape) * bits.itemsize, 0xFF, np.uint8).view(bits)
        if not SIMULATED:
            self.array = cuda.to_device(self.array)
        self.address = self.array if SIMULATED else runtime.address(self.array)

    def read(self):
        return runtime.download(self.shape, self.dtype, self.address)


class Device:
    """Buffers as the door makes them."""

    def __init__(self, dtype):
        self.dtype, self.kept = dtype, []

    def name_of(self, name, array):
        narrow = name in NARROW or (name in ("B", "C") and array.ndim == 4)
        return "bfloat16" if self.dtype == "bfloat16" and narrow and array.dtype == np.float32 else array.dtype.name

    def buffer(self, name, array):
        array = array.astype(np.int32) if name == "seq_idx" else array
        buffer = Buffer(array.shape, self.name_of(name, array))
        runtime.upload(array, buffer.dtype, buffer.address)
        return buffer

    def allocate(self, shape, dtype):
        self.kept.append(Buffer(shape, dtype))
        return self.kept[-1].address


def launched(kernels, problem, dtype, grad_y, grad_last, schedule=None, both=True, saving=False):
    """(y, last state, *gradients) from the kernels; without `both` no y and no last state.

    If it is `saving`, the way back takes the states that the way forward has left.
    """
    device = Device(dtype)
    arrays = {name: value for name, value in vars(problem).items() if isinstance(value, np.ndarray)}
    described = tuple((name, array.shape, device.name_of(name, array)) for name, array in arrays.items())
    fields = plan(problem.delta_softplus, problem.discretization, described).fields
    inputs = {name: device.buffer(name, array) for name, array in arrays.items()}
    optional = dict.fromkeys(("D", "z", "delta_bias", "initial_state", "seq_idx"))
    given_ = kernels.Scan(**fields, **(optional | {name: buffer.address for name, buffer in inputs.items()}))
    of_state = (problem.batch, problem.dim, problem.state)
    targets = {"y": problem.u, "last_state": np.empty(of_state, problem.A.dtype)}
    targets |= {name: arrays[name] for name in Gradients._fields if name in arrays}
    out = {
        name: Buffer(array.shape, device.name_of("u" if name == "y" else name, array))
        for name, array in targets.items()
    }
    before = {name: buffer.read() for name, buffer in inputs.items()}
    addresses = {name: buffer.address for name, buffer in out.items()}
    grads = Gradients(*[addresses.get(name) for name in Gradients._fields])
    arriving = [device.buffer("grad_y", grad_y), None if grad_last is None else device.buffer("h", grad_last)]
    cotangents = [None if buffer is None else buffer.address for buffer in arriving]
    common = {"stream": 0, "allocate": device.allocate}
    saved = Buffer(kernels.saved_shape(given_), "float32") if saving else None
    states = {} if saved is None else {"saved": saved.address}
    with running(schedule):
        if both:
            kernels.forward(given_, addresses["y"], addresses["last_state"], **common, **states)
        was = None if saved is None else saved.read()
        kernels.backward(given_, *cotangents, grads, **common, **states)
    if saved is not None:  # autograd may go back once more
        np.testing.assert_array_equal(saved.read(), was)
    for name, buffer in inputs.items():
        np.testing.assert_array_equal(buffer.read(), before[name])
    found = [out[name].read() if name in out else None for name in Gradients._fields]
    return [*(out[name].read() if both else None for name in ("y", "last_state")), *found]


@contextmanager
def of_variant(**options):
    """Launches take this variant, where the shape asks for another."""
    choose = description.choose
    sizes = {name: options[name] for name in ("segments", "items", "warps", "block") if name in options}

    def chosen(*arguments):
        v = choose(*arguments)
        return replace(v, **options | {"aligned": v.aligned and options.get("aligned", True)})

    def fitted(v, shared_bytes, *capability):
        v = replace(v, **sizes)
        if shared_bytes(v) > SHARED_BYTES:
            reject()
        return v

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(description, "choose", chosen)
        if sizes:
            patch.setattr(choosing, "fitted", fitted)
        yield


def problem_of(dtype, seed=0, *, delta_scale=1, delta_shift=0, z_scale=1, real_C=False, **options):
    """A problem in its dtype, bfloat16 in float32; shifted by −4, Δ is about 0.02, and states last long."""
    wide = "float32" if dtype == "bfloat16" else dtype
    arguments = random_arguments(seed, dtype=wide, **options)
    arguments["delta"] = (delta_scale * arguments["delta"] + delta_shift).astype(wide)
    if "z" in arguments:
        arguments["z"] = (z_scale * arguments["z"]).astype(wide)
    if real_C and np.iscomplexobj(arguments["C"]):
        C = arguments["C"].real
        arguments["C"] = C.astype(wide) if C.ndim == 4 else C
    return make_problem(**as_bfloat16(arguments) if dtype == "bfloat16" else arguments)


def cotangents(problem, dtype, seed=0):
    rng = np.random.default_rng([seed, 1])
    last = rng.normal(size=(problem.batch, problem.dim, problem.state))
    if problem.is_complex:
        last = last + 1j * rng.normal(size=last.shape)
    grad_y = {"grad_y": rng.normal(size=problem.u.shape).astype(problem.u.dtype)}
    return (as_bfloat16(grad_y) if dtype == "bfloat16" else grad_y)["grad_y"], last.astype(problem.A.dtype)


OUTPUTS = ("y", "last_state", *Gradients._fields)


def ratios(problem, dtype, found, grad_y, grad_last):
    """The largest error / bound of each output; inf where one is NaN, or there and should not be."""
    exact = [*reference.selective_scan(problem), *reference.selective_scan_backward(problem, grad_y, grad_last)]
    arithmetic = bounds.FLOAT64 if dtype == "float64" else bounds.FLOAT32_APPROX
    allowed = [
        *bounds.forward(problem, arithmetic, "any", stored=dtype),
        *bounds.backward(problem, grad_y, grad_last, arithmetic, "any", stored=dtype),
    ]
    worst = {}
    for name, value, expected, bound in zip(OUTPUTS, found, exact, allowed, strict=True):
        if expected is None or value is None:
            worst[name] = 0 if value is expected else np.inf
            continue
        assert np.isfinite(bound).all(), name  # else the bounds say nothing
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(value == expected, 0, np.abs(value - expected) / bound)
        worst[name] = np.nan_to_num(ratio, nan=np.inf).max(initial=0)
    return worst


def worst_ratio(case, schedule=0, with_last=True, kernels=scan):
    """The largest of :func:`ratios` of a case: its variant, dtype and problem."""
    variant, dtype, options = case
    problem = problem_of(dtype, **options)
    grad_y, grad_last = cotangents(problem, dtype)
    grad_last = grad_last if with_last else None
    with of_variant(**variant):
        found = launched(kernels, problem, dtype, grad_y, grad_last, schedule)
    return max(ratios(problem, dtype, found, grad_y, grad_last).values())


def small(segments=4, items=4, warps=1, block=2, **more):
    return {"segments": segments, "items": items, "warps": warps, "block": block} | more


def edited(module, old, new):
    source = Path(module.__file__).read_text()
    assert old in source
    mutant = types.ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), mutant.__dict__)
    return mutant


def is_noticed(ratio):
    """Whether the simulator refuses a kernel, or an error/bound says that it is wrong."""
    try:
        return ratio() > 1
    except KernelError:
        return True
