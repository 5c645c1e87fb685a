"""Means and covariances of what a layer reads and writes, gathered over windows."""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from onnx_lapq.common.arrays import Float32Array, FloatArray

__all__ = ["Moments", "RunningMoments", "SplitMoments"]

_GROUPS, _COLUMNS = 64, 384
"""Groups and columns of a block of products."""

_CACHED = 1 << 16
"""Values that are worked on at a time."""

_SUMMED = 1024
"""Windows whose sum is taken in float32."""

_MOST_WAITING = 8192, 16 << 20
"""Windows that are put aside, and their bytes: what float32 sums well, and what memory has room for."""

_ENOUGH = 8, 1 << 20
"""Windows for each input, and their bytes, that are summed up at once: putting them aside would cost more."""


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

    @classmethod
    def unknown(cls, shape: tuple[int, int, int]) -> Self:
        """Where there is nothing to go by: means of zero, and covariances that are no numbers."""
        groups, outputs, inputs = shape
        return cls(
            1,
            np.zeros((groups, outputs)),
            np.zeros((groups, inputs)),
            np.full((groups, outputs, inputs), np.nan),
            np.full((groups, inputs, inputs), np.nan),
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
        return _about_means(self.qq, self.count, self.mean_q, self.mean_q)

    @cached_property
    def cross(self) -> Float32Array:
        """W C: covariance of the float network's outputs with the quantized network's inputs, [G, K, J]."""
        return _about_means(self.yq, self.count, self.mean_y, self.mean_q)

    @property
    def variance(self) -> Float32Array:
        """Mean of the diagonal of H in every group, [G, 1, 1]; 1 for inputs that never change."""
        mean = np.einsum("gjj->g", self.covariance) / self.covariance.shape[-1]
        floor = max(float(mean.max(initial=0.0)) * 1e-6, 1e-30)
        return np.where(mean > floor, mean, floor).astype(np.float32)[:, None, None]


@dataclass(frozen=True, eq=False)
class SplitMoments:
    """Moments of windows of two kinds of samples.

    Attributes:
        search: Make candidates.
        held_out: Choose among them; there may be none.
    """

    search: Moments
    held_out: Moments

    @cached_property
    def every(self) -> Moments:
        """Moments of all windows."""
        return self.search + self.held_out if self.held_out.count else self.search

    def find_covariances(self, pool: Executor) -> None:
        """Have the covariances of all windows and of each kind ready; threads share the work."""
        names = ("every", "search", "held_out") if self.held_out.count else ("every",)
        list(pool.map(lambda name: getattr(self, name).covariance, names))


class RunningMoments:
    """Moments of windows that come batch by batch; holds few of them at a time.

    Windows are put aside until there are enough for products of good size. These are cut into blocks of
    groups and columns, always the same ones, of which only those on and above the diagonal of q q^T are
    computed: threads share the work, and their number changes no bit of the sums.

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
        self._columns = _slices(inputs, _COLUMNS)
        self._blocks = [(part, block) for part in _slices(groups, _GROUPS) for block in self._columns]
        self._waiting: list[tuple[Float32Array, Float32Array]] = []

    def add(self, y: Float32Array, q: Float32Array) -> None:
        """Take in outputs [G, n, K] of the float and inputs [G, n, J] of the quantized network."""
        self._count += y.shape[1]
        self._waiting.append((y, q))
        windows = sum(y.shape[1] for y, _ in self._waiting)
        size = sum(y.nbytes + q.nbytes for y, q in self._waiting)
        is_enough = windows >= _ENOUGH[0] * q.shape[2] and size >= _ENOUGH[1]
        if is_enough or windows >= _MOST_WAITING[0] or size >= _MOST_WAITING[1]:
            self._sum_up()

    @property
    def total(self) -> Moments:
        """Moments of all windows so far."""
        self._sum_up()
        for block in self._columns:  # what lies below the diagonal mirrors what lies above it
            self._qq[:, block, : block.start] = np.swapaxes(self._qq[:, : block.start, block], 1, 2)
        return Moments(self._count, self._y, self._q, self._yq, self._qq)

    def _sum_up(self) -> None:
        """Add the products of the windows put aside."""
        if not self._waiting:
            return
        if len(self._waiting) == 1:
            ((y, q),) = self._waiting
        else:
            y, q = (np.concatenate(parts, axis=1) for parts in zip(*self._waiting, strict=True))
        self._waiting = []

        def add_block(at: tuple[slice, slice]) -> None:
            part, block = at
            right = q[part, :, block]
            if self._about_mean:
                self._q[part, block] += _sums(right)
            self._yq[part, :, block] += np.swapaxes(y[part], 1, 2) @ right
            self._qq[part, : block.stop, block] += np.swapaxes(q[part, :, : block.stop], 1, 2) @ right

        if self._about_mean:
            self._y += _sums(y)
        list((self._pool.map if self._pool else map)(add_block, reversed(self._blocks)))


def _sums(windows: Float32Array) -> FloatArray:
    """Sums over windows [G, n, J], as [G, J]; a product is ten times as fast as `sum` where J is small."""
    total = np.zeros((windows.shape[0], windows.shape[2]))
    for at in _slices(windows.shape[1], _SUMMED):
        part = windows[:, at]
        total += (np.ones((1, part.shape[1]), np.float32) @ part)[:, 0]
    return total


def _about_means(products: FloatArray, count: int, left: FloatArray, right: FloatArray) -> Float32Array:
    """Mean of products, [G, A, B], about the means of both factors, [G, A] and [G, B].

    In float64, a few rows at a time, which stay in the processor's cache.
    """
    found = np.empty(products.shape, np.float32)
    for at in _slices(products.shape[1], max(_CACHED // max(products.size // products.shape[1], 1), 1)):
        found[:, at] = products[:, at] / count - left[:, at, None] * right[:, None, :]
    return found


def _slices(count: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, count)) for at in range(0, count, size)]
