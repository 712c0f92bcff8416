"""What makes a kernel slow and can be seen in its code: spills, local memory, float64, narrow loads, a full exp."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from ssm_kernels.offline.building import Code

__all__ = ["faults", "ptx_histogram"]

REGISTER_FILE = 65536  # 32-bit registers a multiprocessor, for every compute capability from 5.0 on
REGISTER_UNIT = 8  # a thread's registers are handed out in eights
WARP = 32
WIDE = 16  # bytes, the widest load before compute capability 10.0
EXPECTATIONS = ("wide_global", "wide_shared", "ex2")


def faults(
    code: Code,
    *,
    arithmetic: str = "float32",
    expects: Collection[str] = (),
    max_registers: int | None = None,
    threads: int | None = None,
) -> list[str]:
    """What a fast kernel must not have, or lacks: a line each, none if all is well.

    Args:
        code: from :func:`~ssm_kernels.offline.build`.
        arithmetic: "float32" forbids float64 instructions, which one Python float literal brings in; "float64".
        expects: any of "wide_global" and "wide_shared" (a load of 16 bytes or more) and "ex2" (the bare instruction,
            other than those inside `math.exp`).
        max_registers: the most registers a thread may take.
        threads: threads a block, which must fit into the registers of one multiprocessor.

    Raises:
        ValueError: an unknown arithmetic or expectation.
    """
    if arithmetic not in ("float32", "float64"):
        raise ValueError(f"arithmetic: found {arithmetic!r}, expected 'float32' or 'float64'")
    if unknown := sorted(set(expects) - set(EXPECTATIONS)):
        raise ValueError(f"expects: found {', '.join(unknown)}, expected any of {', '.join(EXPECTATIONS)}")
    usage, ptx = code.usage, ptx_histogram(code.ptx)
    found = []
    if usage.spill_store_bytes or usage.spill_load_bytes:
        found.append(f"spills: {usage.spill_store_bytes} bytes of stores, {usage.spill_load_bytes} of loads")
    local = sum(count for name, count in ptx.items() if re.match(r"(ld|st)\.local\b", name))
    if local or usage.stack_bytes:
        found.append(f"local memory: a frame of {usage.stack_bytes} bytes, {local} PTX loads and stores")
    doubles = sorted(name for name in ptx if ".f64" in name)
    if arithmetic == "float32" and doubles:
        found.append(f"float64 in a float32 kernel: {', '.join(doubles)}")
    for space in ("global", "shared"):
        if f"wide_{space}" in expects and not any(_loaded_bytes(name, space) >= WIDE for name in ptx):
            found.append(f"no {WIDE}-byte load from {space} memory")
    if "ex2" in expects and _bare_ex2(ptx) <= 0:
        found.append("no ex2.approx other than those inside exp")
    if max_registers is not None and usage.registers > max_registers:
        found.append(f"{usage.registers} registers a thread, over the budget of {max_registers}")
    if threads is not None:
        block = _whole(usage.registers, REGISTER_UNIT) * _whole(threads, WARP)
        if block > REGISTER_FILE:
            found.append(f"{block} registers for a block of {threads} threads, of {REGISTER_FILE} that there are")
    return found


def ptx_histogram(ptx: str) -> Counter[str]:
    """How often each PTX instruction, with its modifiers, is written."""
    return Counter(re.findall(r"(?:^|[{;])[ \t]*(?:@!?%p\d+[ \t]+)?([a-z][\w.:]*)(?=[ \t;])", ptx, re.MULTILINE))


def _loaded_bytes(instruction: str, space: str) -> int:
    load = re.match(rf"ld\.{space}\b.*?(?:\.v(\d))?\.[bfsu](\d+)$", instruction)
    return int(load[1] or 1) * int(load[2]) // 8 if load else 0


def _bare_ex2(ptx: Counter[str]) -> int:
    """How many ex2.approx stand outside exp: libdevice's expf rounds one product-sum down, and nothing else does."""
    written = sum(count for name, count in ptx.items() if re.fullmatch(r"ex2\.approx(\.ftz)?\.f32", name))
    return written - ptx["fma.rm.f32"] - ptx["fma.rm.ftz.f32"]


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit
