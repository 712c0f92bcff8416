"""What a block does whose warps walk or help: helpers read a tile's rows and maps, walkers their states."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, no_type_check

import numpy as np

from ssm_kernels._target import cuda, types
from ssm_kernels.arithmetic import inline
from ssm_kernels.intrinsics import access, packed_access, shared_store, short_access
from ssm_kernels.unrolling import unroll, unrolled
from ssm_kernels.walking.parts import reading_rows
from ssm_kernels.walking.teams import Team

Device = Callable[..., Any]


class Helping(NamedTuple):
    """Device functions. out is a lane's local array, its place 4i + j for turn i and step j once it is opened."""

    ask: Device
    ask_map: Device
    opened: Device
    put_map: Device
    read_states: Device
    write_states: Device


@no_type_check
@cache
def helping(dtype: str, team: Team) -> Helping:
    packed = packed_access(dtype)
    load_four, numbers_of, PACKED = packed.load, packed.opened, packed.numbers
    ask, opened = reading_rows(dtype, team.turns)
    HELD, MAP_TURNS, IN_FOUR = team.held, team.map_turns, 4 // packed.numbers
    IN_WORD = min(HELD, 4)  # states that are read or written at once
    PAIR, QUAD = IN_WORD == 2, IN_WORD == 4
    load_real, store_real = access("float32").load, access("float32").store
    load_states, store_states = short_access("float32", IN_WORD) if HELD > 1 else (load_real, store_real)
    put, ZERO, real_t = shared_store("float32"), np.float32(0), types.float32

    @inline
    @unrolled
    def ask_map(p, at, t, first, out):
        """Four steps of each of a helper's states of a map, packed, behind the `first` turns of another."""
        for i in unroll(MAP_TURNS):
            word = load_four(p, at[i] + t)
            for j in unroll(IN_FOUR):
                out[IN_FOUR * (first + i) + j] = word[j]

    @inline
    @unrolled
    def put_map(shared, to, words, turn, there):
        out = cuda.local.array(4, real_t)
        for i in unroll(IN_FOUR):
            numbers = numbers_of(words[IN_FOUR * turn + i])
            for j in unroll(PACKED):
                out[PACKED * i + j] = numbers[j] if there else ZERO
        put(shared, to, (out[0], out[1], out[2], out[3]))

    @inline
    @unrolled
    def read_states(p, at, first, state, out):
        """A lane's, of those that there are."""
        for k in unroll(0, HELD, IN_WORD):
            if first + k < state:
                word = load_states(p, at + k)
                if PAIR or QUAD:
                    for j in unroll(IN_WORD):
                        out[k + j] = word[j]
                else:
                    out[k] = word

    @inline
    @unrolled
    def write_states(p, at, first, state, x):
        for k in unroll(0, HELD, IN_WORD):
            if first + k < state:
                if QUAD:
                    store_states(p, at + k, (x[k], x[k + 1], x[k + 2], x[k + 3]))
                elif PAIR:
                    store_states(p, at + k, (x[k], x[k + 1]))
                else:
                    store_states(p, at + k, x[k])

    return Helping(ask, ask_map, opened, put_map, read_states, write_states)
