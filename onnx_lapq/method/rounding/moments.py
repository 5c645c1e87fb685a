"""Means and covariances of what a layer reads and writes, gathered over windows."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_lapq.common.arrays import Float32Array, FloatArray

__all__ = ["Moments", "RunningMoments"]

_COLUMNS = 768
"""Columns of a block of products."""


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


class RunningMoments:
    """Moments of windows that come batch by batch; holds none of them.

    The products are cut into blocks of columns, always the same ones, and only those on and above the
    diagonal of q q^T are computed: threads share the work, and their number changes no bit of the sums.

    Args:
        shape: G, K and J.
        about_mean: Else the sums of y and q stay 0: for a layer without a bias that could take the rest.
        pool: Threads that share the work; None for none.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, about_mean: bool = True, pool: Executor | None = None
    ) -> None:
        groups, outputs, inputs = shape
        self._about_mean = about_mean
        self._pool = pool
        self._count = 0
        self._y = np.zeros((groups, outputs))
        self._q = np.zeros((groups, inputs))
        self._yq = np.zeros((groups, outputs, inputs))
        self._qq = np.zeros((groups, inputs, inputs))
        self._blocks = [slice(at, min(at + _COLUMNS, inputs)) for at in range(0, inputs, _COLUMNS)]

    def add(self, y: Float32Array, q: Float32Array) -> None:
        """Take in outputs [G, n, K] of the float and inputs [G, n, J] of the quantized network."""
        self._count += y.shape[1]
        if self._about_mean:
            self._y += y.sum(axis=1, dtype=np.float64)
            self._q += q.sum(axis=1, dtype=np.float64)

        def add_block(block: slice) -> None:
            right = q[:, :, block]
            self._yq[:, :, block] += np.swapaxes(y, 1, 2) @ right
            self._qq[:, : block.stop, block] += np.swapaxes(q[:, :, : block.stop], 1, 2) @ right

        if self._pool is None or len(self._blocks) == 1:
            for block in self._blocks:
                add_block(block)
        else:
            list(self._pool.map(add_block, reversed(self._blocks)))

    @property
    def total(self) -> Moments:
        """Moments of all windows so far."""
        for block in self._blocks:  # what lies below the diagonal mirrors what lies above it
            self._qq[:, block, : block.start] = np.swapaxes(self._qq[:, : block.start, block], 1, 2)
        return Moments(self._count, self._y, self._q, self._yq, self._qq)
