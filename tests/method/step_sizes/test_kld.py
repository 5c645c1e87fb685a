import math
from itertools import pairwise

import numpy as np
import pytest

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import distribution_of
from onnx_lapq.method.step_sizes.kld import best_bins, kld_step_size
from onnx_lapq.method.step_sizes.layerwise import minmax_step_size


def divergence_by_the_slides(histogram, bins, levels):
    """The pseudocode of Migacz's slides, one bin at a time."""
    p = list(histogram[:bins])
    p[-1] += sum(histogram[bins:])
    edges = [level * bins // levels for level in range(levels)] + [bins]
    q = [0.0] * bins
    for first, last in pairwise(edges):
        used = [i for i in range(first, last) if histogram[i] > 0]
        for i in used:
            q[i] = sum(histogram[first:last]) / len(used)
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return math.inf
    return sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("levels", [2, 8, 16])
@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_that_of_the_published_pseudocode(levels, seed):
    random = np.random.default_rng(seed)
    values = np.abs(random.laplace(size=300) if seed % 2 else random.standard_t(3, size=300))
    histogram = np.histogram(values, bins=96)[0].astype(np.float64)
    candidates = range(levels, 97)
    by_hand = [divergence_by_the_slides(histogram, bins, levels) for bins in candidates]
    found = best_bins(histogram, levels)
    assert by_hand[candidates.index(found)] == pytest.approx(min(by_hand), abs=1e-12)


def test_a_histogram_that_fits_the_levels_keeps_its_range():
    histogram = np.repeat([5.0, 3.0, 2.0, 1.0], 16)
    assert best_bins(histogram, 4) == 64


def test_a_long_tail_is_clipped_and_more_so_with_fewer_bits():
    values = distribution_of(np.random.default_rng(0).laplace(size=100_000))
    shares = [
        kld_step_size(values, Grid(bits, True)) / minmax_step_size(values, Grid(bits, True))
        for bits in (4, 8)
    ]
    assert shares[0] < shares[1] < 1


def test_zeros_have_no_say():
    values = np.maximum(np.random.default_rng(0).normal(size=20_000), 0)
    with_zeros, without = distribution_of(values), distribution_of(values[values > 0])
    assert kld_step_size(with_zeros, Grid(4, False)) == pytest.approx(
        kld_step_size(without, Grid(4, False)), rel=0.02
    )


@pytest.mark.parametrize("grid", [Grid(4, True), Grid(8, False)], ids=str)
@pytest.mark.parametrize("values", [[0.0], [], [2.0, 2.0], [1e-30, 1e30]], ids=str)
def test_degenerate_tensors_give_usable_steps(values, grid):
    step = np.float32(kld_step_size(distribution_of(np.array(values)), grid))
    assert np.isfinite(step)
    assert step > 0
