"""Scans of more than 2³¹ numbers, forward and backward: the far end of memory is as right as the near one.

All entries of a batch are copies of one, so the last must give the bits that the first gives, and the first what the
entry gives alone. Indices of 32 bits would have the last read other data, or leave NaN where it writes. Rows go beyond
2³², where an index without a sign wraps too; maps, shares and states beyond 2³¹, which 80 GB have room for.
"""

from math import prod
from typing import NamedTuple
from unittest import mock

import pytest
from ssm_kernels import choosing, scan
from ssm_kernels.intrinsics import ITEMSIZE

from ssm_edu.selective.reference import Gradients
from tests import kernel_runs

torch = pytest.importorskip("torch")

from ssm_edu.torch import operators  # noqa: E402


class Sizes(NamedTuple):
    batch: int
    dim: int
    length: int
    state: int

    def of(self, axes):
        return tuple(getattr(self, axis) for axis in axes.split())


SHAPES = {
    "u": "batch dim length", "delta": "batch dim length", "A": "dim state", "B": "batch state length",
    "C": "batch state length", "D": "dim", "delta_bias": "dim",
}  # fmt: skip
SIGNED, UNSIGNED = 2**31, 2**32


def long_rows(batch, dim):
    """Rows that begin at 16-byte boundaries, and the last entry of the batch beyond 2³²."""
    return Sizes(batch, dim, (UNSIGNED // ((batch - 1) * dim) // 8 + 1) * 8, 8)


CASES = {
    "rows, by walking": long_rows(64, 128),
    "rows, by segments": long_rows(64, 132),
    "maps and their shares": Sizes(SIGNED // (16 * 136) + 2, 4, 136, 16),
    "states and borders": Sizes(SIGNED // (132 * 32) + 2, 132, 16, 32),
}


def launched(sizes):
    """(the kernels' names, the bytes that forward and backward take together, the workspaces' numbers)."""
    names, workspaces = [], []

    def noted(kernel):
        names.append(kernel.name)
        return lambda *launch, **early: None

    def allocate(shape, dtype):
        workspaces.append((prod(shape), ITEMSIZE[dtype]))
        return 0

    options = {"is_complex": False, "complex_B": False, "complex_C": False, "delta_softplus": True}
    rest = dict.fromkeys(("z", "initial_state", "seq_idx"))
    given = scan.Scan(
        *sizes, "bfloat16", group_B=1, group_C=1, discretization="mamba", **options, **dict.fromkeys(SHAPES, 0), **rest
    )
    grads = Gradients(**dict.fromkeys(Gradients._fields) | dict.fromkeys(SHAPES, 0))
    with mock.patch.object(choosing.Compilable, "compiled", noted):
        scan.forward(given, 0, 0, stream=0, allocate=allocate)
        scan.backward(given, 0, None, grads, stream=0, allocate=allocate)
    # grad_y is as u; y and the last state are gone when the gradients come
    arrays = 2 * sum(prod(sizes.of(axes)) * (2 if "length" in axes else 4) for axes in SHAPES.values())
    return names, arrays + 2 * prod(sizes[:3]) + sum(n * size for n, size in workspaces), [n for n, _ in workspaces]


@kernel_runs.in_the_simulator
@pytest.mark.parametrize("case", CASES)
def test_what_is_large(case):
    sizes, what = CASES[case], case.split()[0].rstrip(",")
    names, needed, workspaces = launched(sizes)
    assert needed < 75e9
    assert any("walking" in name for name in names) == ("walking" in case)
    axes, limit, large = {
        "rows": ("dim length", UNSIGNED, 1 if "walking" in case else 2),
        "maps": ("state length", SIGNED, 2),
        "states": ("dim state", SIGNED, 4),
    }[what]
    period = prod(sizes.of(axes))
    assert (sizes.batch - 1) * period > limit
    assert period.bit_count() > 1  # else an index that wraps would find a copy of what it should
    assert sum(n > SIGNED for n in workspaces) == large


def random_entry(sizes, device):
    """A batch of one; Δ is about 0.02, so that states last."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(axes):
        x = torch.randn(sizes._replace(batch=1).of(axes), generator=generator, device=device)
        return x.bfloat16() if "length" in axes else x

    entry = {name: normal(axes) for name, axes in SHAPES.items()}
    return entry | {"A": -0.2 - entry["A"].abs(), "delta_bias": entry["delta_bias"] - 4}


def fill_with_nan(device):
    """The memory that results and workspaces will get."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.full((int(0.95 * torch.cuda.mem_get_info()[0]) // 4,), float("nan"), device=device)


def far_end_is_right(sizes, forward, backward, device="cuda"):
    entry = random_entry(sizes, device)
    whole = {
        name: x.expand(sizes.batch, *x.shape[1:]).contiguous() if "batch" in SHAPES[name] else x
        for name, x in entry.items()
    }

    def compare(name, found, alone):
        assert torch.isfinite(alone).all(), name
        # both are rounded to bfloat16, by half a unit of the largest at most, 2⁻⁹; float32 adds far less
        assert (found.float() - alone.float()).abs().max() <= 2**-7 * alone.float().abs().max(), name

    def compare_ends(name, found, alone):
        assert torch.equal(found[-1], found[0]), name
        compare(name, found[:1], alone)

    fill_with_nan(device)
    for name, found, alone in zip(("y", "last_state"), forward(**whole), forward(**entry), strict=True):
        compare_ends(name, found, alone)
    del found

    grad_y = torch.randn(entry["u"].shape, generator=torch.Generator(device).manual_seed(1), device=device).bfloat16()
    grads_y = torch.zeros_like(whole["u"])
    grads_y[0] = grads_y[-1] = grad_y[0]
    fill_with_nan(device)
    for name, found, alone in zip(SHAPES, backward(grads_y, **whole), backward(grad_y, **entry), strict=True):
        if "batch" in SHAPES[name]:
            compare_ends(name, found, alone)
        else:
            compare(name, found, 2 * alone)


def forward(u, delta, A, B, C, D, delta_bias):
    y, last, _ = operators.scan(u, delta, A, B, C, D, None, delta_bias, None, None, True, "mamba", False)
    return y, last


def backward(grad_y, u, delta, A, B, C, D, delta_bias):
    inputs = u, delta, A, B, C, D, None, delta_bias, None, None
    return operators.scan_backward(grad_y, None, grad_y.new_empty(0, dtype=torch.float32), *inputs, True, "mamba")


@kernel_runs.on_a_gpu
@pytest.mark.parametrize("case", CASES)
def test_the_far_end_is_as_right_as_the_near_one(case):
    torch.cuda.empty_cache()
    needed, (free, _) = launched(CASES[case])[1], torch.cuda.mem_get_info()
    if needed > 0.9 * free:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB, and the GPU has {free / 2**30:.0f} free")
    far_end_is_right(CASES[case], forward, backward)


SMALL = Sizes(3, 6, 20, 4)


def test_a_small_far_end_is_right():
    far_end_is_right(SMALL, forward, backward, "cpu")


def wrapped(x, limit=130):
    """What is read of an array whose index wraps: at this limit as others at 2³²."""
    return x.flatten()[torch.arange(x.numel()) % limit].reshape(x.shape)


def unwritten(x, limit=130):
    return torch.where(torch.arange(x.numel()).reshape(x.shape) < limit, x.float(), torch.nan).to(x.dtype)


@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "grad_y", "y", "grad_u"])
def test_an_index_that_wraps_is_noticed(name):
    def wrong_forward(**given):
        y, last = forward(**given | {n: wrapped(x) for n, x in given.items() if n == name})
        return (unwritten(y) if name == "y" else y), last

    def wrong_backward(grad_y, **given):
        found = backward(wrapped(grad_y) if name == "grad_y" else grad_y, **given)
        return [unwritten(found[0]), *found[1:]] if name == "grad_u" else found

    with pytest.raises(AssertionError):
        far_end_is_right(SMALL, wrong_forward, wrong_backward, "cpu")
