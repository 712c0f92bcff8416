"""The forward ladder: the same layer in every file, one new idea a rung. `ssm_kernels.ladder.FORWARD` lists them."""

RUNGS = (
    "rung0_materialised",
    "rung1_thread_per_state",
    "rung2_registers",
    "rung3_shared_tiles",
    "rung4a_hillis_steele",
    "rung4b_blelloch",
    "rung5_warp_shuffles",
    "rung6_chunks",
    "rung7_production",
    "rung8_walking",
)
