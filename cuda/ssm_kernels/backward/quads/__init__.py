"""The adjoint in which time is walked, not scanned: a quad of lanes holds four channels, each lane four of the states.

    lane = 4 · quad + quarter        channels quad + 8k, states 4 · quarter + j        k, j < 4

A lane's sixteen states are independent chains, so nothing waits for a scan over lanes, and what is added up over
channels (for B and C) or over states (for u and Δ) is first added up four at a time in registers. For enough warps
whatever the shape, chunks of time go in parallel, in three kernels:

1. :mod:`summary <ssm_kernels.backward.quads.summary>`: over each chunk, from zero, its last state and Āg at its first
   step; and the states before each tile of 16 steps on the way.
2. :mod:`carry <ssm_kernels.backward.quads.carry>`: from these, chunk by chunk, the state that each begins with and the
   Āg that comes back to it.
3. :mod:`adjoint <ssm_kernels.backward.quads.adjoint>`: tile by tile from the last, the gradients.

For real A, Mamba's rule, up to 16 states, and rows and maps of one dtype that vary in time, without seq_idx.
"""
