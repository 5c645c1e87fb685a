"""By which samples the stages of a run are judged."""

from dataclasses import replace

import numpy as np
import pytest
from networks import bench_of
from small_models import residual

from onnx_lapq.calibration.balancing import evenly
from onnx_lapq.network.bench import Bench

MANY = 256


def many(one_by_one: bool = True, **options: object) -> Bench:
    """A bench with many samples, of which a batch holds one or all."""
    bench = bench_of(residual(), MANY, **options)
    if one_by_one:
        bench.evaluator.batches = [slice(at, at + 1) for at in range(MANY)]
    return bench


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 1 / 3, 0.5])
def test_a_part_of_many_samples_judges_guard_samples_among_them(share):
    bench = many()
    bench = replace(bench, guard=evenly(MANY, int(MANY * share)))
    assert 56 <= len(bench.judging) <= 72
    guarding = np.isin(bench.judging, bench.guard).mean()
    assert abs(guarding - share) < 0.1
    np.testing.assert_array_equal(
        bench.stage_losses(bench.layerwise.minmax()), bench.losses(bench.layerwise.minmax())[bench.judging]
    )


@pytest.mark.parametrize("options", [{"weight_bits": 4}, {"rounding": "nearest"}, {"optimizer": "powell"}])
def test_all_samples_judge_where_losses_decide_more(options):
    np.testing.assert_array_equal(many(**options).judging, np.arange(MANY))


def test_few_batches_judge_as_a_whole():
    np.testing.assert_array_equal(many(one_by_one=False).judging, np.arange(MANY))


def test_samples_of_every_shape_judge(monkeypatch):
    bench = many()
    monkeypatch.setattr(type(bench.samples), "groups", (100, 1, 2, 153))
    assert {0, 100, 101, 103} <= set(bench.judging)
