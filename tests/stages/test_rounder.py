"""Every kind of layer takes part in compensated rounding."""

import numpy as np
import onnx
import pytest
from networks import quantized
from small_models import Builder, depthwise, feeds

from onnx_lapq.network.float_network import float_runs
from onnx_lapq.stages.found import Attempt
from onnx_lapq.stages.rounder import Rounder

COUNT = 64

KINDS = {
    "padded": ("Conv", (6, 4, 3, 3), {"pads": [1, 0, 2, 1]}),
    "strided": ("Conv", (6, 4, 3, 2), {"strides": [2, 1]}),
    "dilated": ("Conv", (6, 4, 3, 3), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    "same upper": ("Conv", (6, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "grouped": ("Conv", (6, 2, 3, 3), {"group": 2}),
    "depthwise": ("Conv", (4, 1, 3, 3), {"group": 4}),
    "depthwise, two of each": ("Conv", (8, 1, 3, 3), {"group": 4}),
    "transposed": ("ConvTranspose", (4, 6, 3, 3), {}),
    "transposed, strided": ("ConvTranspose", (4, 6, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "transposed, grouped": (
        "ConvTranspose",
        (4, 3, 2, 2),
        {"group": 2, "strides": [3, 2], "output_padding": [1, 0]},
    ),
    "matrix": ("Gemm", (4, 6), {}),
    "matrix, transposed": ("Gemm", (6, 4), {"transB": 1}),
    "rows": ("MatMul", (6, 5), {}),
}


def with_layer(kind: str) -> onnx.ModelProto:
    """Image -> convolution -> the layer -> scores."""
    op, shape, attributes = KINDS[kind]
    b = Builder()
    x = b.relu(b.conv("image", 3, 4))
    if op == "Gemm":
        x = b.node("Flatten", [b.node("GlobalAveragePool", [x])])
    inputs = [x, b.weight(*shape)]
    if op != "MatMul":
        rows = {"Conv": shape[0], "ConvTranspose": shape[1] * attributes.get("group", 1)}
        outputs = rows.get(op, shape[0] if "transB" in attributes else shape[1])
        inputs.append(b.constant(b.random.standard_normal(outputs).astype(np.float32)))
    y = b.node(op, inputs, "layer", **attributes)
    scores = b.node("Flatten", [b.relu(y)])
    dense = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            b.nodes,
            "one",
            [dense("image", 1, ["N", 3, 6, 6])],
            [dense(scores, 1, ["N", None])],
            b.initializers,
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def network_with(kind: str):
    model = with_layer(kind)
    options = {"weight_bits": 2, "first_last": "same", "per_channel": "strided" not in kind}
    return quantized(model, feeds(model, COUNT), **options)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_put_aside_are_those_of_the_network_without_and_in_the_guard(kind):
    network = network_with(kind)
    guard = np.arange(0, COUNT, 5)
    found = network.layer_outputs(guard)
    (layer,) = [layer for layer in found.layers if "layer" in layer.kind.node.name]
    result = layer.kind.node.outputs[0].name
    runs = float_runs(network.network.model, network.samples, 4, 1)([result])
    values = np.concatenate([batch[result] for _, batch in runs])
    is_guard = np.isin(np.arange(COUNT), guard)
    for part, some in zip(found.of(layer), (values[~is_guard], values[is_guard]), strict=True):
        groups, windows, outputs = part.shape
        channels = np.moveaxis(some, 1 if layer.kind.node.op_type.startswith("Conv") else -1, -1)
        expected = channels.reshape(windows, groups, outputs)
        bias = layer.bias.values.reshape(groups, outputs) if layer.bias and layer.bias.inside else 0.0
        np.testing.assert_allclose(np.swapaxes(part, 0, 1) + bias, expected, rtol=1e-4, atol=1e-4)


def test_rounding_lowers_the_loss():
    ratios = []
    for kind in KINDS:
        network = network_with(kind)
        before, after = (
            some.evaluator().losses(some.point()).mean() for some in (network, network.rounded(batch=4))
        )
        ratios.append(after / before)
    assert max(ratios) < 1.1
    assert np.median(ratios) < 0.9


def with_mask(flat: bool) -> onnx.ModelProto:
    """Vectors and a mask [N, 5] -> two dense layers -> vectors that the mask sets to zero."""
    b = Builder()
    x = b.node("Reshape", ["x", b.constant(np.array([-1, 8]))]) if flat else "x"
    x = b.relu(b.node("MatMul", [x, b.weight(8, 12)]))
    y = b.node("MatMul", [x, b.weight(12, 6)])
    y = b.node("Reshape", [y, b.constant(np.array([-1, 5, 6]))]) if flat else y
    b.node("Mul", [y, b.node("Unsqueeze", ["mask", b.constant(np.array([2]))])], "y")
    return b.model({"x": ["N", 5, 8], "mask": ["N", 5]}, {"y": ["N", 5, 6]})


@pytest.mark.parametrize("flat", [False, True])
def test_padding_decides_no_code(flat):
    random = np.random.default_rng(0)
    mask = (np.arange(5) < random.integers(1, 5, (COUNT, 1))).astype(np.float32)
    x = random.standard_normal((COUNT, 5, 8)).astype(np.float32)
    noise = x + 3 * (1 - mask[..., None]) * random.standard_normal(x.shape).astype(np.float32)
    options = {"weight_bits": 3, "activation_bits": 32, "first_last": "same"}
    clean, noisy, unmasked = (
        quantized(with_mask(flat), {"x": values, "mask": real}, **options).rounded().network.codes
        for values, real in ((x, mask), (noise, mask), (noise, np.ones_like(mask)))
    )
    assert len(clean) == 2
    for name, codes in clean.items():
        np.testing.assert_array_equal(codes.codes, noisy[name].codes)
        assert (codes.codes != unmasked[name].codes).any()


def test_positions_in_another_order_than_the_masks_all_count():
    b = Builder()
    x = b.relu(b.node("MatMul", [b.node("Transpose", ["x"], perm=[1, 0, 2]), b.weight(8, 12)]))
    y = b.node("Transpose", [b.node("MatMul", [x, b.weight(12, 6)])], perm=[1, 0, 2])
    b.node("Mul", [y, b.node("Unsqueeze", ["mask", b.constant(np.array([2]))])], "y")
    model = b.model({"x": ["N", 5, 8], "mask": ["N", 5]}, {"y": ["N", 5, 6]})
    random = np.random.default_rng(0)
    mixed = np.einsum(
        "npj,pjk->npk", random.standard_normal((COUNT, 5, 8)), random.standard_normal((5, 8, 8))
    )
    x = (mixed * np.array([1, 1, 2, 4, 8])[:, None]).astype(np.float32)
    mask = (np.arange(5) < random.integers(1, 5, (COUNT, 1))).astype(np.float32)
    options = {"weight_bits": 3, "activation_bits": 32, "first_last": "same"}
    masked, all_real = (
        quantized(model, {"x": x, "mask": real}, **options).rounded().network.codes
        for real in (mask, np.ones_like(mask))
    )
    assert len(masked) == 2
    for name, codes in masked.items():
        np.testing.assert_array_equal(codes.codes, all_real[name].codes)


def test_a_rounder_that_goes_on_from_any_layer_ends_at_the_same_codes():
    model = depthwise()
    bench = quantized(model, feeds(model, COUNT), weight_bits=3, activation_bits=4).bench()
    saved = [Attempt(2.4, bench.layerwise.for_p([2.4], lambda done: None)[0])]
    whole = Rounder(bench).round(saved[0], lambda done, attempt: saved.append(attempt))
    assert len(saved) == len(Rounder(bench).layers) + 1 > 3
    for attempt in saved[1:-1]:
        resumed = Rounder(bench).round(attempt, lambda done, attempt: None)
        for name, fixed in whole.codes.items():
            np.testing.assert_array_equal(resumed.codes[name].codes, fixed.codes)
            np.testing.assert_array_equal(resumed.codes[name].wanted, fixed.wanted)
            np.testing.assert_array_equal(resumed.steps[name], whole.steps[name])
