"""Launches that begin early, in the simulator: what they have not seen yet.

On the GPU such a launch runs beside those before it until it waits for them. Here they are done when it begins, so what
they have written is NaN until its first thread waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, no_type_check

import numpy as np


class Unseen:
    """What the launches since the last that was not early have written."""

    def __init__(self) -> None:
        self.before: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # arrays by address, and what was there
        self.hidden: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    @no_type_check
    def begin(self, arguments: Iterable[Any], early: bool) -> None:
        """A launch with these arguments."""
        if not early:
            self.before, self.hidden = {}, None
        else:
            self.hidden = []
            for array, before in self.before.values():
                written = array.view(np.uint8).reshape(-1, array.itemsize)
                written = (written != before.view(np.uint8).reshape(written.shape)).any(1)
                self.hidden.append((array, written, array[written]))
                array[written] = np.nan if array.dtype.kind in "fc" else 0x7FFF
        for array in arguments:
            if isinstance(array, np.ndarray) and array.flags.writeable:
                self.before.setdefault(array.ctypes.data, (array, array.copy()))

    def wait(self) -> None:
        """Now it has seen it."""
        for array, written, found in self.hidden or ():
            array[written] = found
        self.hidden = None

    def end(self) -> None:
        if self.hidden is not None:
            from ssm_edu.testing.simulator.errors import KernelError

            self.wait()
            raise KernelError("a kernel that was launched early never waited for the launches before it")


UNSEEN = Unseen()
