"""The part of `ssm-edu bench` that needs a GPU: the clock, the two yardsticks, and who runs there.

Nothing here imports `numba.cuda` before a :class:`~ssm_edu.bench.device.gpu.Gpu` is made.
"""
