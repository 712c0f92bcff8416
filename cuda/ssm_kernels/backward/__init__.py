"""The backward ladder: the adjoint of the selective scan on a GPU, one new idea a rung.

| rung | idea | scratch memory, in floats per (batch, dim, length) |
|---|---|---|
| 0 | materialise: every equation is a kernel | 2·state + 3 |
| 1 | one kernel, a thread per (batch, channel, state): g stays in a register | 2·state |
| 2 | a thread per (batch, channel): states again from checkpoints | 2·state/WINDOW + 2 |
| 3 | tiles in shared memory; dB and dC summed over a block's channels first | 2·state/channels + state/WINDOW |
| 4 | a thread per time: scans over length in shared memory, both ways | 2·state/CHANNELS + state/TILE |
| 5 | scans by warp shuffles, several steps a lane | 2·state/WARPS + (3·state + 2)/tile |
| 6 | all chunks of the length at once | 2·state/WARPS + (3·state + 3)/tile |
| 7 | the production kernels | 2·state/channels + state/tile |
| 8 | walk again: eight states a lane, four steps in registers | 2·state/BLOCK + (state + 1)/16 |

Windows, tiles and blocks are the constants of each file: a tile is 32·ITEMS steps, rung 3's channels are 32·WARPS.
No rung adds with float atomics: every sum has one owner and one order, so that two runs agree in every bit.
"""

RUNGS = (
    "rung0_materialised",
    "rung1_thread_per_state",
    "rung2_checkpoints",
    "rung3_shared_tiles",
    "rung4_block_scan",
    "rung5_warp_shuffles",
    "rung6_chunked",
    "rung7_production",
    "rung8_walking",
)
