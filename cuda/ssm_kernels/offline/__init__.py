"""What a GPU will run, found without one: a kernel's PTX, registers, spills and SASS.

    from ssm_kernels import offline
    code = offline.build(kernel, signature, cc=(9, 0))    # kernel: what `jit` returned, or a plain function
    print(code.usage)                                     # registers, shared memory, stack, spills
    print(offline.faults(code, expects={"wide_global"}))  # what a fast kernel must not have, or lacks
    print(offline.describe(offline.sass(code.cubin)))     # the instructions of each loop

A launcher's kernels and their signatures, for arrays of NumPy's:

    with offline.recorded() as launches:
        launch(u, delta, ...)
    codes = [offline.build(each.kernel, each.signature) for each in launches]

A first launch compiles a kernel in two steps, and neither asks for a driver: libNVVM turns it into LTO-IR (into PTX
where `jit` was told lto=False), and nvJitLink makes that machine code. Here the same two libraries take the same steps
under the kernel's own `jit` options, so that what is counted is what is launched. `assembler="ptxas"` is a second
opinion: NVVM's PTX, with no optimisation at link time, through the command-line assembler; its spills are others.

`pip install 'ssm-edu[gpu]'` brings both libraries, and `make compiled` all of it. Beyond them, SASS takes nvdisasm and
the second opinion ptxas: from `cuda-toolkit[nvcc,nvdisasm]`, or from a toolkit at CUDA_HOME. NUMBA_ENABLE_CUDASIM must
not be 1.
"""

from ssm_kernels.offline.building import Code, Usage, build
from ssm_kernels.offline.checking import faults, ptx_histogram
from ssm_kernels.offline.machine_code import Loop, describe, histogram, loops, sass
from ssm_kernels.offline.recording import Launch, recorded
from ssm_kernels.offline.toolchain import ToolchainError, require

__all__ = [
    "Code",
    "Launch",
    "Loop",
    "ToolchainError",
    "Usage",
    "build",
    "describe",
    "faults",
    "histogram",
    "loops",
    "ptx_histogram",
    "recorded",
    "require",
    "sass",
]
