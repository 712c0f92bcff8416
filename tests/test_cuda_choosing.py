"""Which production kernels a shape is given: ones that fit, whose lanes have work, and that are known."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import catalogue, choosing
from ssm_kernels.intrinsics import ITEMSIZE

from ssm_edu.selective.problem import DISCRETIZATIONS
from tests.production_runs import WIDTH


def shared_bytes(v, state, kind):
    states = choosing.rounded_states(state)
    if kind == "backward":
        return choosing.backward_scan.shared_bytes(v, states)
    return choosing.forward_scan.shared_bytes(v, states, kind == "borders")


CAPABILITIES = [(8, 0), (9, 0), (10, 0), (12, 0)]


def kernels_of(batch, dim, length, state, dtype, is_complex, discretization, maps, packed, aligned, capability):
    """The variants of the three launches, by kind. Making them a kernel checks what they assume of one another."""
    constant_B, constant_C, complex_B, complex_C = maps
    v = choosing.choose(
        batch, dim, length, state, dtype, is_complex, discretization, constant_B, constant_C,
        complex_B and is_complex, complex_C and is_complex, packed, aligned, 132,
    )  # fmt: skip
    back, _ = choosing.backward_kernel(v, state, capability)
    return {
        "forward": choosing.forward_kernel(v, state, False, capability)[0],
        "backward": back,
        "borders": choosing.forward_kernel(back, state, True, capability)[0],
    }


@settings(max_examples=4 * settings.default.max_examples)  # nothing is launched
@given(
    batch=st.sampled_from([1, 2, 64]),
    dim=st.sampled_from([1, 5, 256, 768, 2560, 8192]),
    length=st.sampled_from([1, 3, 17, 100, 2048, 1 << 20]) | st.integers(1, 4096),
    state=st.sampled_from([1, 16, 17, 64, 65, 128, 256]) | st.integers(1, 256),
    dtype=st.sampled_from(sorted(WIDTH)),
    is_complex=st.booleans(),
    discretization=st.sampled_from(DISCRETIZATIONS),
    maps=st.tuples(*[st.booleans()] * 4),
    packed=st.booleans(),
    aligned=st.booleans(),
    capability=st.sampled_from(CAPABILITIES),
)
@example(
    batch=1, dim=2560, length=17, state=1, dtype="float32", is_complex=False, discretization="mamba",
    maps=(False,) * 4, packed=False, aligned=False, capability=(9, 0),
)  # fmt: skip
def test_every_shape_has_a_variant(**shape):
    """It fits into shared memory, its warps are whole, forward and backward agree on the tile, and lanes have work."""
    length, dtype, state = shape["length"], shape["dtype"], shape["state"]
    most = choosing.most_shared_bytes(shape["capability"])
    found = kernels_of(**shape)
    for kind, v in found.items():
        assert shared_bytes(v, state, kind) <= most, kind
        assert v.channels * v.segments == 32, kind
        assert v.items * ITEMSIZE[dtype] % 16 == 0, kind
        assert state % v.together == 0, kind
        fewer = replace(v, segments=max(v.segments // 2, 1), warps=1, block=max(2, v.together))
        idle = kind != "borders" and v.segments > 1 and fewer.tile >= length
        assert not idle or shared_bytes(fewer, state, kind) > most, f"{kind}: half of the lanes have no step"
    assert found["borders"].tile == found["backward"].tile


def test_the_catalogue_names_what_a_launch_compiles():
    """One of each dtype and rule."""
    found = list(catalogue.variants())
    assert len({one.name for one in found}) == len(found)
    for words in (WIDTH, DISCRETIZATIONS[1:], ("complex64", "complex128", "packed", "constant", "not aligned", "256")):
        for word in words:
            assert any(word in one.name for one in found), word


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels", [16384, 4096, 1024])
def test_every_row_of_the_table_is_in_the_catalogue(channels, dtype, capability):
    """As a plain scan of this many channels is given it; of the adjoint's blocks of states there is not each size."""

    def form(kind, v):
        block = v.block if kind == "forward" else None
        return kind, ITEMSIZE[v.dtype], v.segments, v.items, v.warps, v.together, v.ahead, block

    known = {
        form(kind, v) for kind, v, one in catalogue.entries() if v is not None and one.since <= capability < one.until
    }
    v = choosing.choose(**catalogue.ORDINARY | {"batch": 1, "dim": channels, "dtype": dtype})
    assert form("forward", choosing.forward_kernel(v, 16, False, capability)[0]) in known
    assert form("backward", choosing.backward_kernel(v, 16, capability)[0]) in known
