from types import SimpleNamespace

import numpy as np
import pytest

from onnx_lapq.method.quantizer import Grid
from onnx_lapq.method.step_sizes.distribution import distribution_of
from onnx_lapq.stages.nearest import nearest_candidates, nearest_start

VALUES = np.random.default_rng(0).normal(size=4000).astype(np.float32)
NOISE = np.random.default_rng(1).normal(size=200)
NOISE -= NOISE.mean()


class Layerwise:
    def __init__(self, grids, limit=np.inf):
        self._grids, self._limit = grids, limit

    def chosen_by(self, choose, on_tensor, names):
        distribution = distribution_of(VALUES)
        return {name: np.asarray(min(choose(distribution, self._grids[name]), self._limit)) for name in names}

    def limit(self, name):
        return self._limit


def network(weight_bits=4, activation_bits=4):
    layer = SimpleNamespace(grid=Grid(bits=weight_bits, signed=True))
    return SimpleNamespace(layers={"w": layer}, grids={"a": Grid(bits=activation_bits, signed=False)})


def start(loss_of, *, bits=(4, 4), steps=(1.0, 1.0), limit=np.inf):
    """The outcome, and all candidates; losses are a function of their names and step sizes."""
    net, seen = network(*bits), {}
    given = {"w": np.asarray(steps[0]), "a": np.asarray(steps[1])}

    def measure(name, candidate):
        seen[name] = candidate
        return np.asarray(loss_of(name, candidate), dtype=np.float64) * np.ones(200)

    layerwise = Layerwise({"w": net.layers["w"].grid, "a": net.grids["a"]}, limit)
    losses = np.asarray(loss_of("quadratic", given), dtype=np.float64) * np.ones(200)
    found = nearest_start(net, layerwise, given, losses, measure, lambda: False)
    assert len(seen) == nearest_candidates(net)
    return found, seen


def far_from(weight, activation):
    def loss_of(name, steps):
        if name == "kld":
            return 10.0
        return np.log(steps["w"] / weight).max() ** 2 + np.log(steps["a"] / activation) ** 2

    return loss_of


def test_the_best_multiple_is_found():
    (name, steps, losses), seen = start(far_from(1.35, 0.8))
    assert name == "weights x 1.35, activations x 0.8"
    assert (steps["w"], steps["a"]) == (pytest.approx(1.35), pytest.approx(0.8))
    assert losses == pytest.approx(0.0)
    assert len(seen) == 25


@pytest.mark.parametrize(("spread", "taken"), [(0.1, True), (10.0, False)])
def test_a_multiple_has_to_be_better_by_more_than_a_standard_error(spread, taken):
    def loss_of(name, steps):
        better = name == "weights x 1.2, activations x 1"
        return 1.0 - 0.1 * better + spread * better * NOISE + 10.0 * (name == "kld")

    (name, *_), _ = start(loss_of)
    assert name == ("weights x 1.2, activations x 1" if taken else "quadratic")


@pytest.mark.parametrize(("kld", "centre"), [(0.5, "kld"), (2.0, "quadratic")])
def test_kld_is_the_centre_of_the_multiples_where_it_is_better(kld, centre):
    (name, *_), seen = start(lambda name, steps: {"kld": kld, "quadratic": 1.0}.get(name, 3.0))
    assert name == centre
    around = seen["kld"] if centre == "kld" else {"w": 1.0, "a": 1.0}
    multiple = seen["weights x 1.5, activations x 0.7"]
    assert multiple["w"] == pytest.approx(1.5 * around["w"])
    assert multiple["a"] == pytest.approx(0.7 * around["a"])


def test_no_candidate_exceeds_the_limit_of_a_step_size():
    _, seen = start(far_from(1.0, 1.0), steps=(0.1, 0.1), limit=0.105)
    assert max(float(step) for steps in seen.values() for step in steps.values()) == 0.105


def test_kld_leaves_weights_with_a_scale_per_channel_alone():
    per_channel = np.array([1.0, 2.0])
    _, seen = start(far_from(1.0, 1.0), steps=(per_channel, 1.0))
    np.testing.assert_array_equal(seen["kld"]["w"], per_channel)
    assert seen["kld"]["a"] != 1.0
    np.testing.assert_allclose(seen["weights x 1.1, activations x 1"]["w"], 1.1 * per_channel)


def test_many_bits_are_left_alone():
    (name, *_), seen = start(far_from(1.35, 0.8), bits=(8, 8))
    assert (name, seen) == ("quadratic", {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_any_finite_candidate_is_better_than_a_loss_that_is_not(bad):
    (name, _, losses), _ = start(lambda name, steps: bad if name in ("quadratic", "kld") else 1.0)
    assert name == "weights x 1, activations x 0.7"
    assert losses == pytest.approx(1.0)
