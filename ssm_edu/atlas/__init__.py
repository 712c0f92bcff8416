"""The atlas: sequence models, each as the affine recurrence that it is, or shown not to be one.

Every file of this package that has a `CARD` is a model, and reads as its paper's equations. It defines

    init(rng, *, width, …) -> Parameters          the sizes are its keywords, with defaults
    parallel(params, x) -> y                      x, y: (length, width), by the form that the model trains with
    first_state(params) -> state
    step(params, state, x_t) -> (y_t, state)      one token, x_t: (width,)
    as_affine_scan(params, x) -> AffineScan       or NOT_A_SCAN, a sentence, and counterexample(…), which shows it
    CARD                                          a Card

and `parallel`, the steps and the scan agree to rounding. `sized` stands on `init`; `check_sequence`, `check_token` and
`check_state` come first in the others, so that what they cannot take is refused by name.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from ssm_edu.atlas._checks import check_sequence, check_state, check_token, sized
from ssm_edu.atlas._common import AffineScan, Card

__all__ = ["AffineScan", "Card", "check_sequence", "check_state", "check_token", "models", "sized"]


def models() -> dict[str, ModuleType]:
    """The atlas by module name, in the order in which the papers appeared."""
    names = [found.name for found in iter_modules(__path__) if not found.name.startswith("_")]
    modules = {name: import_module(f"{__name__}.{name}") for name in names}
    return dict(sorted(modules.items(), key=lambda item: (item[1].CARD.year, item[1].CARD.name)))
