"""The selective scan for PyTorch: `mamba_ssm`'s functions on any CPU or CUDA device, without a compiler.

    >>> from ssm_edu.torch import selective_scan_fn
    >>> y, last_state = selective_scan_fn(u, delta, A, B, C, D, z=z, delta_softplus=True, return_last_state=True)

:func:`install` puts these functions where code that was written for `mamba_ssm` and `causal_conv1d` looks for them.
"""

from __future__ import annotations

from ssm_edu.torch.convolution import causal_conv1d_fn, causal_conv1d_update
from ssm_edu.torch.decoding import selective_state_update
from ssm_edu.torch.drop_in import install, uninstall
from ssm_edu.torch.inner import mamba_inner_fn
from ssm_edu.torch.mamba import Mamba
from ssm_edu.torch.scan import selective_scan_fn

__all__ = [
    "Mamba",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "install",
    "mamba_inner_fn",
    "selective_scan_fn",
    "selective_state_update",
    "uninstall",
]
