"""Means and covariances of what a layer reads and writes, gathered over windows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over windows, for G groups of K outputs and J inputs.

    Attributes:
        count: Number of windows.
        y: Sum of the float network's outputs, [G, K].
        q: Sum of the quantized network's inputs, [G, J].
        yq: Sum of y q^T, [G, K, J].
        qq: Sum of q q^T, [G, J, J].
    """

    count: int
    y: FloatArray
    q: FloatArray
    yq: FloatArray
    qq: FloatArray

    @classmethod
    def of(cls, y: Float32Array, q: Float32Array, *, about_mean: bool = True) -> "Moments":
        """Moments of outputs [G, n, K] of the float and inputs [G, n, J] of the quantized network.

        Not about the mean, the sums of y and q are 0: for a layer without a bias that could take the rest.
        """
        return cls(
            count=y.shape[1],
            y=y.sum(axis=1, dtype=np.float64) * about_mean,
            q=q.sum(axis=1, dtype=np.float64) * about_mean,
            yq=(np.swapaxes(y, 1, 2) @ q).astype(np.float64),
            qq=(np.swapaxes(q, 1, 2) @ q).astype(np.float64),
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.y + other.y,
            self.q + other.q,
            self.yq + other.yq,
            self.qq + other.qq,
        )

    @property
    def mean_y(self) -> FloatArray:
        """Mean output of the float network, [G, K]."""
        return self.y / self.count

    @property
    def mean_q(self) -> FloatArray:
        """Mean input of the quantized network, [G, J]."""
        return self.q / self.count

    @cached_property
    def covariance(self) -> Float32Array:
        """H: covariance of the quantized network's inputs, [G, J, J]."""
        mean = self.mean_q
        return (self.qq / self.count - mean[:, :, None] * mean[:, None, :]).astype(np.float32)

    @cached_property
    def cross(self) -> Float32Array:
        """W C: covariance of the float network's outputs with the quantized network's inputs, [G, K, J]."""
        return (self.yq / self.count - self.mean_y[:, :, None] * self.mean_q[:, None, :]).astype(np.float32)

    @property
    def variance(self) -> Float32Array:
        """Mean of the diagonal of H in every group, [G, 1, 1]; 1 for inputs that never change."""
        mean = np.einsum("gjj->g", self.covariance) / self.covariance.shape[-1]
        floor = max(float(mean.max(initial=0.0)) * 1e-6, 1e-30)
        return np.where(mean > floor, mean, floor).astype(np.float32)[:, None, None]
