"""How time is cut for the walking kernels, and who walks: the model, and what was measured."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import kernel_runs

if kernel_runs.NEITHER:
    pytest.skip(kernel_runs.NEITHER, allow_module_level=True)

from ssm_kernels import description
from ssm_kernels.walking import chunks, launching, parts


@settings(max_examples=4 * settings.default.max_examples)  # nothing is launched
@given(
    blocks=st.integers(1, 1024),
    length=st.integers(1, 1 << 20) | st.integers(1, 1 << 40),
    processors=st.sampled_from([1, 8, 132]),
    room=st.sampled_from([chunks.FORTH, chunks.BACK, chunks.BACK_FROM_SAVED]),
)
def test_chunks_are_tiles_and_as_many_as_a_grid_holds(blocks, length, processors, room):
    chunk = chunks.chunk_of(blocks, length, processors, room)
    assert chunk > 0
    assert chunk % parts.LONG.steps == 0 or chunk == length
    assert chunk >= min(length, chunks.LEAST)
    assert -(-length // chunk) <= chunks.MOST_CHUNKS


@given(
    jobs=st.integers(0, 60),
    steps=st.integers(1, 50),
    later=st.integers(0, 60),
    shorter=st.integers(1, 50),
    servers=st.integers(1, 20),
)
def test_the_last_job_ends_when_the_model_says(jobs, steps, later, shorter, servers):
    """As where each job is given to the server that is free first."""
    shorter, free = min(steps, shorter), [0] * servers
    for job in [steps] * jobs + [shorter] * later:
        free[free.index(min(free))] += job
    assert chunks.makespan(jobs, steps, later, shorter, servers) == max(free)


# microseconds of all launches of a scan on an H100, by steps of a chunk: the fastest of those that were tried
MEASURED = [
    (chunks.FORTH, (1, 1024, 16384), {672: 205.6, 288: 207.9, 224: 208.1, 256: 209.0, 416: 211.1}),
    (chunks.FORTH, (1, 1536, 65536), {992: 1101.8, 704: 1109.2, 544: 1111.1, 1088: 1114.7, 1984: 1116.6}),
    (chunks.FORTH, (2, 768, 8192), {512: 159.0, 256: 159.6, 192: 161.6, 384: 163.7, 128: 164.4}),
    (chunks.FORTH, (1, 768, 32768), {992: 297.7, 384: 304.4, 1024: 305.0, 512: 306.5, 256: 307.3}),
    (chunks.BACK, (1, 1024, 2048), {128: 77.4, 160: 91.1, 64: 95.3, 96: 99.3, 192: 104.5}),
    (chunks.BACK, (1, 5120, 2048), {640: 325.1, 320: 332.2, 672: 340.2, 256: 345.7, 160: 351.7}),
    (chunks.BACK, (8, 1536, 2048), {480: 740.9, 320: 758.1, 512: 760.7, 544: 766.8, 1568: 771.6}),
    (chunks.BACK, (2, 768, 8192), {768: 385.8, 736: 389.5, 384: 397.7, 800: 402.8, 256: 413.5}),
    (chunks.BACK, (1, 1024, 16384), {1024: 508.4, 992: 514.7, 512: 525.6, 256: 530.8, 1120: 553.0}),
    (chunks.BACK_FROM_SAVED, (1, 1024, 2048), {128: 74.7, 64: 83.8, 160: 87.7, 96: 89.0, 192: 100.5}),
    (chunks.BACK_FROM_SAVED, (1, 5120, 2048), {640: 310.8, 320: 315.0, 160: 324.1, 672: 324.1, 224: 325.2}),
    (chunks.BACK_FROM_SAVED, (8, 1536, 2048), {1536: 619.0, 1568: 624.9, 1600: 634.6, 1632: 641.2, 480: 680.3}),
    (chunks.BACK_FROM_SAVED, (1, 1024, 16384), {992: 483.5, 1024: 486.6, 512: 495.3, 256: 499.6, 288: 501.5}),
    (chunks.BACK_FROM_SAVED, (3, 2048, 2048), {384: 359.9, 800: 363.2, 416: 371.6, 768: 372.8, 832: 374.2}),
]


@pytest.mark.parametrize(("room", "shape", "times"), MEASURED)
def test_a_chunk_is_within_two_per_cent_of_the_fastest(room, shape, times):
    batch, dim, length = shape
    chunk = chunks.chunk_of(batch * dim // parts.channels(parts.WARPS), length, 132, room)
    assert times[chunk] <= 1.02 * min(times.values())


@pytest.mark.parametrize(
    ("batch", "dim", "length", "held", "steps"),
    [
        (8, 2048, 2048, 8, 32),
        (64, 768, 512, 8, 32),
        (8, 1536, 2048, 4, 32),
        (1, 6144, 2048, 2, 32),
        (1, 5120, 2048, 2, 32),
        (1, 4096, 2048, 2, 64),
        (1, 1024, 2048, 1, 64),
        (1, 1024, 4096, None, None),
        (1, 1024, 16384, None, None),
        (1, 1536, 65536, None, None),
        (2, 768, 8192, None, None),
        (1, 5120, 65536, 2, 32),
        (1, 64, 8, 1, 64),
    ],
)
def test_who_walks_forward(batch, dim, length, held, steps, monkeypatch):
    """As it was measured on an H100: in chunks (None) where channels are few and time is long."""
    monkeypatch.setattr(description, "processors", lambda: 132)
    for dtype in ("float32", "bfloat16"):
        team = launching.team_for(SimpleNamespace(batch=batch, dim=dim, length=length, dtype=dtype))
        assert (team and team.held) == held
        narrow = dtype == "bfloat16" and dim == 5120  # longer tiles, in the registers that are free
        assert team is None or team.steps == (64 if narrow else steps)
        assert team is None or team.narrow in (None, dtype == "bfloat16")


@pytest.mark.parametrize(
    ("batch", "dim", "length", "span", "channels"),
    [
        (8, 2048, 2048, 2048, None),
        (64, 768, 512, 768, None),
        (8, 1536, 2048, 1536, None),
        (1, 5120, 2048, 5120, None),
        (1, 1024, 2048, 1024, 8),
        (1, 1024, 16384, 1024, 8),
        (1, 1024, 131072, 1024, 8),
        (1, 1536, 65536, 1536, 12),
        (1, 1536, 65536, 64, None),
        (2, 768, 8192, 768, 12),
        (1, 768, 32768, 768, None),
        (1, 64, 8, 64, None),
        (1, 1024, 1 << 31, 1024, None),
    ],
)
def test_where_time_is_abreast(batch, dim, length, span, channels, monkeypatch):
    """As it was measured on an H100: where channels are few, but fill blocks of which most multiprocessors get one."""
    monkeypatch.setattr(description, "processors", lambda: 132)
    for capability, widest in (((9, 0), 12), ((10, 0), 8), ((12, 0), 0)):
        monkeypatch.setattr(description, "capability", lambda capability=capability: capability)
        for dtype in ("float32", "bfloat16"):
            one = SimpleNamespace(batch=batch, dim=dim, length=length, span=span, dtype=dtype)
            band = launching.band_for(one)
            if channels is None or channels <= widest:
                assert (band and band.channels) == channels
            else:
                assert band is None or band.channels <= widest
