"""The ladder takes bits where they cost the least loss per byte."""

import itertools

import numpy as np
import pytest

from onnx_lapq.method.allocation import Choice, ladder


def steps(choices):
    return [(rung.layer, rung.before, rung.after) for rung in ladder(choices)]


def test_the_least_loss_per_byte_comes_first():
    small = {8: Choice(10, 0.0), 4: Choice(5, 0.1), 2: Choice(2, 0.4)}
    large = {8: Choice(1000, 0.0), 4: Choice(500, 0.2), 2: Choice(250, 9.0)}
    assert steps({"small": small, "large": large}) == [
        ("large", 8, 4),
        ("small", 8, 4),
        ("large", 4, 2),
        ("small", 4, 2),
    ]


def test_a_width_that_costs_more_per_byte_than_the_next_is_skipped():
    assert steps({"a": {8: Choice(8, 0.0), 4: Choice(4, 1.0), 2: Choice(2, 1.1)}}) == [("a", 8, 2)]


def test_a_width_that_saves_nothing_is_never_taken():
    assert steps({"a": {8: Choice(8, 0.0), 4: Choice(4, 0.1), 3: Choice(4, 0.2)}}) == [("a", 8, 4)]


def test_losses_add_up():
    choices = {"a": {8: Choice(8, 0.5), 4: Choice(4, 0.6)}, "b": {8: Choice(8, 0.5), 4: Choice(4, 0.75)}}
    first, second = ladder(choices)
    assert (first.added, second.added) == pytest.approx((0.1, 0.25))
    assert (first.loss, second.loss) == pytest.approx((0.1, 0.35))


@pytest.mark.parametrize("seed", range(5))
def test_every_rung_is_the_best_choice_of_its_size(seed):
    random = np.random.default_rng(seed)
    choices = {
        name: {8: Choice(8, 0.0), 4: Choice(4, loss), 2: Choice(2, 3 * loss)}
        for name, loss in zip("abcd", random.uniform(0, 1, 4), strict=True)
    }
    every = [
        (
            sum(choices[name][bits].bytes for name, bits in zip(choices, widths, strict=True)),
            sum(choices[name][bits].loss for name, bits in zip(choices, widths, strict=True)),
        )
        for widths in itertools.product((8, 4, 2), repeat=4)
    ]
    size = 32
    for rung in ladder(choices):
        size -= rung.saved
        assert rung.loss == pytest.approx(min(loss for bytes_, loss in every if bytes_ <= size))
