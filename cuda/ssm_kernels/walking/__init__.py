"""Scans in which time is walked, not scanned: a lane goes step by step through eight states, each on its own.

    forward              lane = 2 · channel + half        states 8 · half + j                                  j < 8
    helped               lane = channel + share · …       states held · share + j                           j < held
    abreast              lane = segment of one channel    states w side by side                       w < 2 or w < 4
    summary              lane = channel + 16 · half       states 8 · half + j                                  j < 8
    adjoint              quad bits 0, 3, 4 of the lane    channels quad + 8k, states 4 · quarter + j    k < 2, j < 4
                         quarter bits 1, 2

So nothing waits for a scan over lanes. On the way back B and C gain from every channel, and a lane with two of them
adds up half of it alone; of the two it keeps first the one whose sums over states will end in it. For enough warps
whatever the shape, chunks of time go in parallel; or, on the way forward, a lane holds fewer states and time goes at
once. There, and in the first pass over chunks, half of the warps help (:mod:`helped <ssm_kernels.walking.helped>`).

Where channels are few, and no states are to be saved, time lies abreast: a lane walks through a segment of one
channel's steps, state by state, and only the segments' ends are scanned (:mod:`abreast <ssm_kernels.walking.abreast>`).

1. :mod:`summary <ssm_kernels.walking.summary>`: over each chunk, from zero, its last state and Āg at its first step;
   for the adjoint, the states before each tile of 16 steps on the way, unless the way forward has saved these.
2. :mod:`carry <ssm_kernels.walking.carry>`: from these, chunk by chunk, the state that each begins with and the Āg
   that comes back to it.
3. :mod:`forward <ssm_kernels.walking.forward>`: y, tile by tile; or :mod:`adjoint <ssm_kernels.walking.adjoint>`: the
   gradients, tile by tile from the last.

For real A, Mamba's rule, up to 16 states, and rows and maps of one dtype that vary in time, without seq_idx.
:mod:`launching <ssm_kernels.walking.launching>` says for which problems, :mod:`chunks <ssm_kernels.walking.chunks>` how
long a chunk is, :mod:`teams <ssm_kernels.walking.teams>` who walks where there is one, and
:mod:`bands <ssm_kernels.walking.bands>` where time is abreast.
"""
