"""Types of arrays; docstrings give the shapes."""

import numpy as np
import numpy.typing as npt

__all__ = ["AnyArray", "AnyFloatArray", "Float32Array", "FloatArray"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
AnyFloatArray = npt.NDArray[np.floating]
AnyArray = npt.NDArray[np.generic]
