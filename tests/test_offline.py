"""The compiled kernels, for three architectures and with no GPU; each check fails a kernel that breaks it.

`make compiled` runs this where the compiler is. Elsewhere only what needs no compiler runs, and the rest says so.
"""

import math
from collections import Counter
from importlib import import_module
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from numba import float32
from ssm_kernels import intrinsics, offline
from ssm_kernels._target import SHARED_ALIGNMENT, SIMULATED, cuda, jit, types
from ssm_kernels.offline.building import _usage as usage_of

ARCHITECTURES = [(8, 0), (9, 0), (10, 0)]
MOST = 48  # registers a thread of `fast`, which takes fewer by far on any architecture


def missing():
    try:
        offline.require()
    except offline.ToolchainError as error:
        return str(error)
    return ""


compiled = pytest.mark.skipif(
    bool(missing()), reason=f"kernels are not compiled here: {missing()}; see `make compiled`"
)
every_architecture = pytest.mark.parametrize("cc", ARCHITECTURES, ids="sm_{0[0]}{0[1]}".format)


def make_fast(dtype):
    """What a good kernel has: 16-byte loads from global and shared memory, and 2ˣ as one instruction."""
    io, load, store = intrinsics.access(dtype), intrinsics.shared_load(dtype), intrinsics.shared_store(dtype)
    real, width, load_wide, put, exp2 = intrinsics.POINTEES[dtype], io.width, io.load_wide, io.store, intrinsics.exp2
    single = dtype == "float32"

    def fast(x, y, n):
        tile = cuda.shared.array(128, real, alignment=SHARED_ALIGNMENT)
        lane = cuda.threadIdx.x
        store(tile, lane * width, load_wide(x, lane * width))
        cuda.syncwarp()
        total = real(0)
        for k in range(n):
            row = load(tile, (lane ^ k) * width)
            for i in range(width):
                total += exp2(row[i]) if single else row[i]
        put(y, lane, total)

    p = intrinsics.pointer(dtype)
    return fast, types.void(p, p, types.int32)


def spilling(x, y):
    i = cuda.threadIdx.x
    held = cuda.local.array(64, float32)
    for k in range(64):
        held[k] = x[i + 32 * k]
    for k in range(64):  # each of the 64 is needed after all of them have been read
        y[i + 32 * k] = held[k] * held[63 - k] + held[(7 * k) % 64]


def dynamic_index(x, y):
    i = cuda.threadIdx.x
    held = cuda.local.array(256, float32)
    for k in range(256):
        held[k] = x[k * i]
    y[i] = held[int(x[i]) & 255]


def double_literal(x, y):
    i = cuda.threadIdx.x
    y[i] = x[i] * 0.1


def scalar_loads(x, y):
    tile = cuda.shared.array(128, float32)
    i = cuda.threadIdx.x
    for k in range(4):
        tile[4 * i + k] = x[4 * i + k]
    cuda.syncthreads()
    for k in range(4):
        y[4 * i + k] = tile[127 - 4 * i - 8 * k]


def full_exp(x, y):
    i = cuda.threadIdx.x
    y[i] = math.exp(x[i])


ARRAYS = types.void(types.float32[::1], types.float32[::1])
EVERYTHING = {"wide_global", "wide_shared", "ex2"}
# a kernel, how it is compiled, what is asked of it, and the one fault that it has
BROKEN = [
    (spilling, {"max_registers": 32}, {}, ["spills", "local memory"]),
    (dynamic_index, {}, {}, ["local memory"]),
    (double_literal, {}, {}, ["float64 in a float32 kernel"]),
    (scalar_loads, {}, {"expects": {"wide_global"}}, ["no 16-byte load from global memory"]),
    (scalar_loads, {}, {"expects": {"wide_shared"}}, ["no 16-byte load from shared memory"]),
    (full_exp, {}, {"expects": {"ex2"}}, ["no ex2.approx other than those inside exp"]),
    (scalar_loads, {}, {"max_registers": 4}, ["over the budget of 4"]),
    (spilling, {}, {"threads": 1024}, ["registers for a block of 1024 threads"]),
]


@compiled
@every_architecture
@pytest.mark.parametrize(("kernel", "options", "asked", "expected"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_a_broken_kernel_has_its_fault_and_no_other(kernel, options, asked, expected, cc):
    found = offline.faults(offline.build(kernel, ARRAYS, cc, **options), **asked)
    assert len(found) == len(expected), found
    for line, fault in zip(found, expected, strict=True):
        assert fault in line


@compiled
@every_architecture
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fast_kernel_has_no_fault(dtype, cc):
    kernel, signature = make_fast(dtype)
    code = offline.build(kernel, signature, cc)
    expects = EVERYTHING if dtype == "float32" else EVERYTHING - {"ex2"}
    assert offline.faults(code, arithmetic=dtype, expects=expects, max_registers=MOST, threads=1024) == []
    assert code.usage.shared_bytes >= 128 * np.dtype(dtype).itemsize
    assert code.arch == {8: "sm_80", 9: "sm_90a", 10: "sm_100a"}[cc[0]]


@compiled
def test_a_kernels_own_options_hold():
    free = offline.build(jit(spilling), ARRAYS).usage
    limited = offline.build(jit(spilling, max_registers=32), ARRAYS).usage
    assert limited.registers <= 32 < free.registers
    assert offline.build(jit(spilling, max_registers=32), ARRAYS, max_registers=64).usage.registers > 32
    assert ".approx" not in offline.build(jit(ratio), ARRAYS).ptx
    assert "div.approx" in offline.build(jit(ratio, fastmath=True), ARRAYS).ptx


def ratio(x, y):
    i = cuda.threadIdx.x
    y[i] = x[i] / y[i]


@compiled
@pytest.mark.parametrize("lto", [True, False])
def test_the_code_is_what_a_launch_makes(lto):
    """Numba's own way from the first launch to a cubin, stopped before the driver loads it."""
    from numba.cuda.dispatcher import _Kernel

    kernel = jit(spilling, lto=lto, max_registers=40)
    device = SimpleNamespace(compute_capability=(9, 0))
    with (
        mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device),
        mock.patch("numba.cuda.codegen.devices.get_context", return_value=SimpleNamespace(device=device)),
    ):
        options = {name: value for name, value in kernel.targetoptions.items() if name != "extensions"}
        launched = bytes(_Kernel(kernel.py_func, ARRAYS.args, **options)._codelibrary.get_cubin().code)
    theirs = instructions(launched)
    assert len(theirs) > 100
    assert instructions(offline.build(kernel, ARRAYS).cubin) == theirs
    assert instructions(offline.build(kernel, ARRAYS, max_registers=64).cubin) != theirs


def instructions(cubin):
    return [line.split("*/")[1] for line in offline.sass(cubin).splitlines() if line.strip().startswith("/*")]


@compiled
def test_a_launch_links_with_optimisation_unless_told_otherwise():
    assert jit(ratio).targetoptions["lto"]


@compiled
def test_ptxas_gives_a_second_opinion():
    try:
        code = offline.build(spilling, ARRAYS, assembler="ptxas", max_registers=32)
    except offline.ToolchainError as error:
        pytest.skip(str(error))
    assert any(fault.startswith("spills") for fault in offline.faults(code))
    assert offline.histogram(offline.sass(code.cubin))["STG"] == 64


@compiled
def test_machine_code_is_counted_loop_by_loop():
    kernel, signature = make_fast("float32")
    code = offline.sass(offline.build(kernel, signature).cubin)
    (loop, *_) = found = offline.loops(code)
    assert sum(loop.histogram["LDS.128"] for loop in found) > 0
    assert all(loop.histogram["MUFU.EX2"] == 4 * loop.histogram["LDS.128"] for loop in found)
    counts = offline.histogram(code)
    assert counts["LDG.128"] == counts["STS.128"] == counts["STG"] == 1
    assert all(count <= counts[opcode] for opcode, count in loop.histogram.items())


@compiled
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"assembler": "as"}, "assembler: found 'as', expected 'nvjitlink' or 'ptxas'"),
        ({"registers": 3}, "options: found registers, expected any of fastmath"),
        ({"cc": (3, 5)}, r"cc: found \(3, 5\), expected one that this toolchain knows: .*\(9, 0\)"),
    ],
)
def test_build_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        offline.build(ratio, ARRAYS, **arguments)


def too_much_shared(x, y):
    tile = cuda.shared.array(1 << 20, float32)
    tile[cuda.threadIdx.x] = x[0]
    cuda.syncthreads()
    y[0] = tile[int(x[1])]


@compiled
@pytest.mark.parametrize("lto", [True, False])
def test_what_does_not_assemble_says_why(lto):
    with pytest.raises(ValueError, match=r"does not assemble for sm_90a: (?s:.*)too much shared data"):
        offline.build(too_much_shared, ARRAYS, lto=lto)


def production():
    """Each production kernel."""
    if missing():
        return [pytest.param(None, marks=pytest.mark.skip(f"kernels are not compiled here: {missing()}"))]
    from ssm_kernels.catalogue import variants

    return [pytest.param(variant, id=variant.name) for variant in variants()]


@pytest.mark.parametrize("variant", production())
def test_a_production_kernel_has_no_fault(variant):
    """On every architecture in one test: most of the time goes into what is the same for all."""
    found = {}
    for cc in [cc for cc in ARCHITECTURES if variant.since <= cc < variant.until]:
        code = offline.build(variant.kernel, variant.signature, cc, **variant.options(cc))
        found[code.arch] = offline.faults(
            code,
            arithmetic=variant.arithmetic,
            expects=variant.expects,
            max_registers=variant.cap(cc),
            threads=variant.threads,
        )
        # a multiprocessor of Hopper's has room for two blocks, or for one that asks for no more
        room = 48 if variant.since < (9, 0) else 227 if variant.blocks == 1 else 112
        assert code.usage.shared_bytes + variant.shared_bytes <= room * 1024
    assert found
    assert not any(found.values()), found


@compiled
def test_what_was_built_before_changes_nothing():
    kernel, signature = make_fast("float32")
    after = [offline.build(kernel, signature, cc).cubin for cc in ARCHITECTURES][-1]
    offline.build(ratio, ARRAYS)  # puts what is kept of `kernel` out
    assert instructions(offline.build(kernel, signature, ARCHITECTURES[-1]).cubin) == instructions(after)


def rungs():
    """Each rung of the ladder, once: what is asked of it does not depend on the architecture.

    The last ones launch production kernels, of which more is asked above.
    """
    return [
        pytest.param(folder, name, id=f"{folder}-{name}")
        for folder in ("forward", "backward")
        for name in import_module(f"ssm_kernels.{folder}").RUNGS
        if name not in ("rung7_production", "rung8_walking")
    ]


@compiled
@pytest.mark.parametrize(("folder", "name"), rungs())
def test_a_rung_compiles_and_stays_in_float32(folder, name):
    batch, dim, length, state = 2, 8, 40, 4
    rows, maps, channels = (batch, dim, length), (batch, state, length), (dim,)
    shapes = [rows, rows, (dim, state), maps, maps, channels, rows, channels]
    inputs = [np.zeros(shape, np.float32) for shape in shapes]
    rung = import_module(f"ssm_kernels.{folder}.{name}").RUNG
    with offline.recorded() as launches:
        if folder == "forward":
            rung.launch(*inputs, inputs[0])
        else:
            rung.launch(inputs[0], *inputs, import_module("ssm_kernels.backward.rungs").Gradients(*inputs))
    assert launches
    found = {
        f"{launch.name}: {fault}"
        for launch in launches
        for fault in offline.faults(offline.build(launch.kernel, launch.signature), threads=launch.threads)
    }
    # a step on the way may spill
    assert not [fault for fault in found if "float64" in fault or "registers" in fault]


@compiled
def test_a_launchers_kernels_are_listed_and_not_run():
    def launch(x):
        doubled = cuda.device_array(x.shape, np.float32)
        jit(ratio)[(2, 3), (8, 4), 0, 16](x, doubled)
        jit(double_literal)[1, 32](doubled, x)
        return doubled

    with offline.recorded() as launches:
        doubled = launch(np.ones(4, np.float32))
    assert (doubled.shape, doubled.dtype) == ((4,), np.float32)
    assert [(each.name.split(".")[-1], each.threads) for each in launches] == [("ratio", 32), ("double_literal", 32)]
    first, second = (
        offline.faults(offline.build(each.kernel, each.signature), threads=each.threads) for each in launches
    )
    assert first == []
    assert "float64" in second[0]


# What needs no compiler

CLEAN = offline.Usage(32, 0, 0, 0, 0)


def code_of(*instructions, usage=CLEAN):
    return offline.Code("sm_90a", "".join(f"\t{line};\n" for line in instructions), b"", usage)


@pytest.mark.parametrize(
    "load",
    [
        "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]",
        "ld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1]",
        "@%p1 ld.global.v2.f64 {%fd1, %fd2}, [%rd1]",
        "@!%p12 ld.global.L1::no_allocate.v2.b64 {%rd1, %rd2}, [%rd3]",
        "ld.global.v8.b16 {%h1, %h2, %h3, %h4, %h5, %h6, %h7, %h8}, [%rd1]",
        "ld.global.v8.b32 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%rd1]",
        "ld.global.b128 %rq1, [%rd1]",
    ],
)
def test_loads_of_16_bytes(load):
    code = code_of(load)
    assert offline.faults(code, arithmetic="float64", expects={"wide_global"}) == []
    assert offline.faults(code, arithmetic="float64", expects={"wide_shared"}) == ["no 16-byte load from shared memory"]


@pytest.mark.parametrize(
    "load",
    [
        "ld.global.f32 %f1, [%rd1]",
        "ld.global.v2.f32 {%f1, %f2}, [%rd1]",
        "ld.global.v4.u16 {%h1, %h2, %h3, %h4}, [%rd1]",
        "ld.global.u64 %rd1, [%rd2]",
        "ld.param.v4.f32 {%f1, %f2, %f3, %f4}, [a]",
        "ld.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]",
        "st.global.v4.f32 [%rd1], {%f1, %f2, %f3, %f4}",
        "// ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]",
    ],
)
def test_what_is_no_load_of_16_bytes_from_global_memory(load):
    assert offline.faults(code_of(load), expects={"wide_global"}) == ["no 16-byte load from global memory"]


def test_one_bare_ex2_beside_an_exp_is_enough_and_an_exp_alone_is_not():
    exp = ["fma.rm.f32 %f3, %f1, %f2, %f4", "ex2.approx.ftz.f32 %f5, %f3"]
    assert offline.faults(code_of(*exp), expects={"ex2"}) == ["no ex2.approx other than those inside exp"]
    assert offline.faults(code_of(*exp, "ex2.approx.f32 %f6, %f1"), expects={"ex2"}) == []
    assert offline.faults(code_of("{ ex2.approx.ftz.f32 %f6, %f1"), expects={"ex2"}) == []


@pytest.mark.parametrize("line", ["ld.local.f32 %f1, [%rd1]", "st.local.v4.u32 [%rd1], {%r1, %r2, %r3, %r4}"])
def test_local_memory_shows_in_the_ptx_too(line):
    assert offline.faults(code_of(line)) == ["local memory: a frame of 0 bytes, 1 PTX loads and stores"]


@pytest.mark.parametrize("line", ["cvt.f64.f32 %fd1, %f1", "mul.rn.f64 %fd1, %fd2, %fd3", "ld.param.f64 %fd1, [a]"])
def test_float64_is_a_fault_of_float32_kernels_alone(line):
    assert offline.faults(code_of(line)) == [f"float64 in a float32 kernel: {line.split()[0]}"]
    assert offline.faults(code_of(line), arithmetic="float64") == []


@pytest.mark.parametrize(
    ("registers", "threads", "fits"),
    [
        (64, 1024, True),
        (65, 1024, False),
        (255, 256, True),
        (80, 768, True),
        (81, 768, False),
        (72, 896, True),
        (72, 897, False),
    ],
)
def test_a_block_fits_into_the_register_file(registers, threads, fits):
    """81 registers cost as many as 88, and 897 threads as many as 928; the products 81 · 768 and 72 · 897 would fit."""
    code = code_of(usage=offline.Usage(registers, 0, 0, 0, 0))
    assert fits == (not offline.faults(code, threads=threads))


def test_frames_of_functions_add_up():
    log = """ptxas info    : Function properties for kernel
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Function properties for called
    32 bytes stack frame, 0 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 512 bytes smem, 48 bytes cmem[0]"""
    assert usage_of(log) == offline.Usage(40, 512, 48, 4, 20)
    assert usage_of(log.replace(" 512 bytes smem,", "")) == offline.Usage(40, 0, 48, 4, 20)
    with pytest.raises(RuntimeError, match="did not report what the kernel uses: nothing"):
        usage_of("nothing")


def test_faults_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="arithmetic: found 'float16', expected 'float32' or 'float64'"):
        offline.faults(code_of(), arithmetic="float16")
    with pytest.raises(ValueError, match="expects: found wide, expected any of wide_global, wide_shared, ex2"):
        offline.faults(code_of(), expects={"wide"})


SASS = r"""
kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_2:
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
.L_x_1:
        /*0020*/              @!P0 LDS.64 R8, [R4] ;
        /*0030*/                   MUFU.EX2 R6, R8 ;
        /*0050*/               @P0 BRA `(.L_x_1) ;
        /*0058*/                   BSSY B1, `(.L_x_1) ;
        /*0060*/                   FFMA.FTZ R3, R4, R5, R6 ;
        /*0070*/             @!UP0 BRA.U `(.L_x_2) ;
        /*0080*/               @P1 BRA `(.L_x_4) ;
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3);
        /*00b0*/                   NOP;
.L_x_4:
"""


def test_loops_are_told_apart():
    outer, inner = offline.loops(SASS)
    assert (outer.label, outer.depth, inner.label, inner.depth) == (".L_x_2", 0, ".L_x_1", 1)
    assert outer.histogram == Counter({"LDG.128": 1, "BSSY": 1, "FFMA": 1, "BRA": 1})
    assert inner.histogram == Counter({"LDS.64": 1, "MUFU.EX2": 1, "BRA": 1})
    assert sum(offline.histogram(SASS).values()) == 11
    assert offline.describe(SASS, most=1).splitlines() == [
        "all         11  BRA×4",
        ".L_x_2       4  LDG.128×1",
        "  .L_x_1     3  LDS.64×1",
    ]


@pytest.mark.skipif(not SIMULATED, reason="here kernels are compiled")
def test_the_simulator_says_that_it_compiles_nothing():
    with pytest.raises(offline.ToolchainError, match="NUMBA_ENABLE_CUDASIM is set"):
        offline.build(ratio, None)


@compiled
@pytest.mark.parametrize(
    ("patched", "says"),
    [
        ("importlib.util.find_spec", "numba-cuda is not installed: pip install"),
        ("cuda.pathfinder.load_nvidia_dynamic_lib", "libnvvm was not found: pip install nvidia-nvvm"),
    ],
)
def test_what_is_missing_is_named(patched, says):
    absent = {"return_value": None} if "find_spec" in patched else {"side_effect": RuntimeError("not found")}
    with mock.patch(patched, **absent), pytest.raises(offline.ToolchainError, match=says):
        offline.require()


@compiled
def test_a_missing_program_is_named():
    with mock.patch("cuda.pathfinder.find_nvidia_binary_utility", return_value=None):
        with pytest.raises(
            offline.ToolchainError, match=r"nvdisasm was not found: pip install 'cuda-toolkit\[nvdisasm\]'"
        ):
            offline.sass(b"")
        with pytest.raises(offline.ToolchainError, match=r"ptxas was not found: pip install 'cuda-toolkit\[nvcc\]'"):
            offline.build(ratio, ARRAYS, assembler="ptxas")
