"""What the machine executes: the SASS of a cubin, and its instructions counted loop by loop."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ssm_kernels.offline.toolchain import program

__all__ = ["Loop", "describe", "histogram", "loops", "sass"]

LABEL = re.compile(r"^(\.L_x_\d+):")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*);")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")


def sass(cubin: bytes) -> str:
    """The machine code as text, by nvdisasm.

    Raises:
        ToolchainError: nvdisasm is not here.
    """
    nvdisasm = program("nvdisasm", "nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        return subprocess.run([nvdisasm, "-c", str(file)], capture_output=True, text=True, check=True).stdout


def histogram(sass: str) -> Counter[str]:
    """How often each instruction is written, by opcode, width of the access, and function of a MUFU."""
    return Counter(opcode for opcode, _ in _instructions(sass)[0] if opcode != "NOP")


@dataclass(frozen=True)
class Loop:
    """A loop of the machine code: where it starts, how many loops are around it, and its own instructions."""

    label: str
    depth: int
    histogram: Counter[str]


def loops(sass: str) -> list[Loop]:
    """The loops in the order in which they start; an inner loop's instructions are not counted in the outer.

    A loop reaches from a label to the last branch back to it. What the compiler moved out of line is missing.
    """
    code, labels = _instructions(sass)
    ends: dict[str, int] = {}
    for k, (opcode, target) in enumerate(code):
        # a branch to itself, after the last EXIT, is padding
        if opcode == "BRA" and labels.get(target, k) < k:
            ends[target] = k
    spans = sorted(((labels[label], end, label) for label, end in ends.items()), key=lambda span: (span[0], -span[1]))
    found = []
    for start, end, label in spans:
        inside = [(s, e) for s, e, _ in spans if start <= s and e <= end and (s, e) != (start, end)]
        own = (code[k][0] for k in range(start, end + 1) if not any(s <= k <= e for s, e in inside))
        depth = sum(s <= start and end <= e and (s, e) != (start, end) for s, e, _ in spans)
        found.append(Loop(label, depth, Counter(own)))
    return found


def describe(sass: str, most: int = 16) -> str:
    """All instructions, then each loop's own: a line each, how many, and the `most` frequent."""
    rows = [("all", histogram(sass)), *(("  " * loop.depth + loop.label, loop.histogram) for loop in loops(sass))]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        f"{name:{width}} {sum(counts.values()):5}  " + " ".join(f"{op}×{n}" for op, n in counts.most_common(most))
        for name, counts in rows
    )


def _instructions(sass: str) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """(opcode, target label or "") of each instruction, and the number of the one that follows each label."""
    code: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in sass.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(code)
        elif instruction := INSTRUCTION.match(line):
            target = TARGET.search(instruction[2])
            code.append((_opcode(instruction[1]), target[1] if target else ""))
    return code, labels


def _opcode(mnemonic: str) -> str:
    """Without modifiers, except a memory access's width and a MUFU's function."""
    name, *modifiers = mnemonic.split(".")
    if name == "MUFU":
        return ".".join([name, *modifiers[:1]])
    width = [m for m in modifiers if m in ("64", "128", "256") and name.startswith(("LD", "ST"))]
    return ".".join([name, *width])
