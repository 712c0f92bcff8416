"""Channels in blocks of lanes: the layout of the kernels, and the way there and back."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np
from jaxtyping import Inexact, Integer

from ssm_edu.selective.problem import Problem

# at most so many lanes in a block, by the bytes of A's numbers: two AVX-512 registers of each state
LANES = {4: 32, 8: 16, 16: 8}
# blocks whose dB and dC are summed before they reach memory: few enough that 16 tasks remain, if that many blocks exist
LARGEST_TEAM, TASKS = 8, 16

Array = Inexact[np.ndarray, "..."]


@dataclass(frozen=True)
class Blocks:
    """How the channels are dealt out: block k is channels span[k, 0] to span[k, 1], in one group of B and one of C."""

    span: Integer[np.ndarray, "block 2"]
    groups: Integer[np.ndarray, "block 2"]
    lanes: int

    @staticmethod
    def of(p: Problem) -> Blocks:
        shared = [p.dim // g for g, varies in ((p.group_B, p.variable_B), (p.group_C, p.variable_C)) if varies]
        width = gcd(p.dim, *shared)
        per_group = -(-width // LANES[p.A.dtype.itemsize])
        lanes = -(-width // per_group)
        span = np.array(
            [
                (d, min(d + lanes, end))
                for end in range(width, p.dim + 1, width)
                for d in range(end - width, end, lanes)
            ],
            np.int64,
        )
        first = span[:, 0]
        groups = [
            first // (p.dim // g) if varies else 0 * first
            for g, varies in ((p.group_B, p.variable_B), (p.group_C, p.variable_C))
        ]
        return Blocks(span, np.stack(groups, axis=1), lanes)

    def pack(self, x: Array) -> Array:
        """(dim, …) to (block, …, lanes), unused lanes zero."""
        out = np.zeros((len(self.span), *x.shape[1:], self.lanes), x.dtype)
        for k, (first, end) in enumerate(self.span):
            out[k, ..., : end - first] = np.moveaxis(x[first:end], 0, -1)
        return out

    def pack_states(self, h: Array) -> Array:
        """(batch, dim, state) to (batch, block, state, lanes)."""
        return np.stack([self.pack(one) for one in h])

    def unpack(self, x: Array) -> Array:
        """(…, block, state, lanes) to (…, dim, state)."""
        parts = [np.moveaxis(x[..., k, :, : e - f], -1, -2) for k, (f, e) in enumerate(self.span)]
        return np.concatenate(parts, axis=-2)

    def teams(self, batch: int) -> Integer[np.ndarray, " team"]:
        """The borders of runs of blocks with the same groups; they depend on shapes alone, so that sums do too."""
        size = min(LARGEST_TEAM, max(1, batch * len(self.span) // TASKS))
        borders = [0]
        for k in range(1, len(self.span) + 1):
            if k == len(self.span) or k - borders[-1] == size or (self.groups[k] != self.groups[k - 1]).any():
                borders.append(k)
        return np.array(borders, np.int64)
