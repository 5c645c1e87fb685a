import numpy as np
import onnx
import pytest
from small_models import Builder

from onnx_lapq.calibration.capture import Block, Capture
from onnx_lapq.calibration.stored import GroupedSamples, StoredInput, StoredSamples
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.loading import load
from onnx_lapq.network.loss import run_loss

RNG = np.random.default_rng(0)
LENGTHS, COUNTS = (4, 6, 9), (2, 40, 1)


def tagger() -> onnx.ModelProto:
    b = Builder()
    b.node("Add", [b.node("MatMul", ["x", b.weight(3, 3)]), "mask"], "y")
    return b.model({"x": ["n", "t", 3], "mask": ["n", "t", 1]}, {"y": ["n", "t", 3]})


@pytest.mark.parametrize("name", ["mse", "row-mse"])
def test_the_same_noise_costs_the_same_for_samples_of_every_shape_and_none_in_padding(name):
    shapes = [(count, length, 3) for count, length in zip(COUNTS, LENGTHS, strict=True)]
    values = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    hidden = [np.zeros((count, length, 1), np.float32) for count, length, _ in shapes]
    for mask in hidden:
        mask[:, -1] = -1e9
    groups = [
        StoredSamples({"x": StoredInput(x), "mask": StoredInput(mask)}, None, {})
        for x, mask in zip(values, hidden, strict=True)
    ]
    ends = np.cumsum([0, *COUNTS])
    blocks = tuple(
        Block(slice(int(at), int(at) + len(one)), {"y": one}) for at, one in zip(ends, values, strict=False)
    )
    samples = GroupedSamples(groups, None, {})
    loss = run_loss(
        load(tagger()), Capture({}, {}, blocks, {"y": 0}), samples, QuantizationConfig(loss=name), None
    )
    noisy = [np.where(mask < 0, 99, x + np.float32(0.1)) for x, mask in zip(values, hidden, strict=True)]
    found = [loss.by_sample([one], block.at) for one, block in zip(noisy, blocks, strict=True)]
    np.testing.assert_allclose(np.concatenate(found), 0.01, rtol=0.1)
    np.testing.assert_allclose(np.concatenate(found), found[0][0], rtol=1e-4)
    assert loss.flat == pytest.approx(1, rel=0.1)
