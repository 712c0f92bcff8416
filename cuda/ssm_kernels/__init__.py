"""Numba CUDA kernels of the selective scan."""
