"""How many samples a rewriting looks at, and which of them judge what it takes from the others."""

import numpy as np
import numpy.typing as npt

__all__ = ["HELD_OUT", "SAMPLES", "held_out"]

SAMPLES = 64
HELD_OUT = 4
"""One sample in so many judges."""


def held_out(at: slice) -> npt.NDArray[np.bool_]:
    """Which samples of a batch judge."""
    judges: npt.NDArray[np.bool_] = np.arange(at.start, at.stop) % HELD_OUT == HELD_OUT - 1
    return judges
