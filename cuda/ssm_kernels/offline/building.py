"""From a Python function to machine code and what it takes, as the first launch on a GPU would."""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from ssm_kernels.offline.toolchain import ToolchainError, program, require

__all__ = ["Code", "Usage", "build"]

OPTIONS = {"fastmath": False, "opt": True, "lto": True, "max_registers": None, "launch_bounds": None}


@dataclass(frozen=True)
class Usage:
    """What the assembler reports: registers a thread, and bytes; spills as written in the code, not as executed."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


@dataclass(frozen=True)
class Code:
    """A compiled kernel: `arch`, such as "sm_90a", the PTX that was assembled, and the machine code."""

    arch: str
    ptx: str
    cubin: bytes
    usage: Usage


def build(
    kernel: Any, signature: Any, cc: tuple[int, int] = (9, 0), *, assembler: str = "nvjitlink", **options: Any
) -> Code:
    """Compile a kernel for compute capability `cc`.

    Args:
        kernel: what `jit` returned, whose options hold here too, or a plain function.
        signature: its Numba signature, such as `types.void(...)`, or a tuple of argument types.
        cc: (major, minor).
        assembler: "nvjitlink", which a launch uses, or "ptxas".
        **options: any of fastmath, opt, lto, max_registers and launch_bounds, in place of the kernel's own.

    Raises:
        ToolchainError: a part of the toolchain is not installed.
        ValueError: an unknown assembler, option or compute capability, or code that does not assemble.
    """
    if assembler not in ("nvjitlink", "ptxas"):
        raise ValueError(f"assembler: found {assembler!r}, expected 'nvjitlink' or 'ptxas'")
    if unknown := options.keys() - OPTIONS.keys():
        raise ValueError(f"options: found {', '.join(sorted(unknown))}, expected any of {', '.join(OPTIONS)}")
    require()
    known = importlib.import_module("numba.cuda.cudadrv.nvrtc").get_supported_ccs()
    if cc not in known:
        raise ValueError(f"cc: found {cc}, expected one that this toolchain knows: {', '.join(map(str, known))}")
    own = getattr(kernel, "targetoptions", {})
    chosen = {name: options.get(name, own.get(name, default)) for name, default in OPTIONS.items()}
    limit = chosen.pop("max_registers")
    lto = bool(chosen.pop("lto")) and assembler == "nvjitlink"
    # from 9.0 on, a launch compiles for the architecture's own instruction set
    target = (*cc, "a") if cc >= (9, 0) else cc
    arch = "sm_" + "".join(map(str, target))
    library = _lowered(getattr(kernel, "py_func", kernel), signature, lto, frozenset(chosen.items()))
    compiled = library.get_ltoir(cc=target) if lto else library.get_asm_str(cc=target)
    if assembler == "ptxas":
        return Code(arch, compiled, *_ptxas(compiled, arch, limit))
    if lto:
        ptx = _nvjitlink(compiled, arch, limit, "-lto", "-ptx")[0].decode().rstrip("\0")
        cubin, log = _nvjitlink(compiled, arch, limit, "-lto", "-verbose", "-Xptxas=-v")
    else:
        ptx = compiled
        cubin, log = _nvjitlink(ptx.encode(), arch, limit, "-verbose", "-Xptxas=-v")
    return Code(arch, ptx, cubin, _usage(log))


@lru_cache(maxsize=1)
def _lowered(function: Any, signature: Any, lto: bool, options: frozenset[tuple[str, Any]]) -> Any:
    """Numba's part, most of the time that compiling takes: the kernel as LLVM IR, the same for every architecture.

    Numba asks for the compute capability and, from 7.5 on, makes the same of every answer.
    """
    device = SimpleNamespace(compute_capability=(8, 0))
    # a device function asks the current device for it
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        library, _ = importlib.import_module("numba.cuda.compiler")._compile_pyfunc_with_fixup(
            function, signature, device=False, abi="numba", cc=device.compute_capability, lto=lto, **dict(options)
        )
    return library


def _nvjitlink(source: bytes, arch: str, max_registers: int | None, *flags: str) -> tuple[bytes, str]:
    """The cubin (with the flag -ptx, the PTX) and the log."""
    link = importlib.import_module("cuda.bindings.nvjitlink")
    limit = [f"-maxrregcount={max_registers}"] if max_registers else []
    options = [f"-arch={arch}", *limit, *flags]
    kind = link.InputType.LTOIR if "-lto" in flags else link.InputType.PTX
    what = "ptx" if "-ptx" in flags else "cubin"
    handle = link.create(len(options), options)

    def read(name: str) -> bytes:
        buffer = bytearray(getattr(link, f"get_{name}_size")(handle))
        getattr(link, f"get_{name}")(handle, buffer)
        return bytes(buffer)

    try:
        link.add_data(handle, kind, source, len(source), "kernel")
        link.complete(handle)
        return read(f"linked_{what}"), read("info_log").decode()
    except link.nvJitLinkError as error:
        raise _refused(arch, read("error_log").decode()) from error
    finally:
        link.destroy(handle)


def _ptxas(ptx: str, arch: str, max_registers: int | None) -> tuple[bytes, Usage]:
    limit = [f"--maxrregcount={max_registers}"] if max_registers else []
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [program("ptxas", "nvcc"), "-v", f"-arch={arch}", *limit, str(source), "-o", str(cubin)]
        ran = subprocess.run(command, capture_output=True, text=True)
        if "Unsupported .version" in ran.stderr:
            raise ToolchainError(f"ptxas is older than NVVM: pip install 'cuda-toolkit[nvcc]' as new; {ran.stderr}")
        if ran.returncode:
            raise _refused(arch, ran.stderr)
        return cubin.read_bytes(), _usage(ran.stderr)


def _refused(arch: str, log: str) -> ValueError:
    said = log.replace("\0", "").strip()
    return ValueError(f"kernel: found code that does not assemble for {arch}: {said}")


def _usage(log: str) -> Usage:
    # a device function that is not inlined has a frame of its own
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    used = re.search(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?", log)
    if not frames or used is None:
        raise RuntimeError(f"the assembler did not report what the kernel uses: {log}")
    stack, stores, loads = (sum(map(int, column)) for column in zip(*frames, strict=True))
    return Usage(int(used[1]), int(used[2] or 0), stack, stores, loads)
