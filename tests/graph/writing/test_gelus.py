"""GELUs behind quantizers are one node."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import Builder, feeds

from onnx_lapq.graph.writing.gelus import fuse_gelus
from onnx_lapq.runtime.session import open_file

SQRT2, SLOPE = np.sqrt(2), np.sqrt(2 / np.pi)


def number(b: Builder, value: float) -> str:
    return b.constant(np.array(value, np.float32))


def with_erf(b: Builder, x: str, root: float = SQRT2) -> str:
    gate = b.node("Add", [b.node("Erf", [b.node("Div", [x, number(b, root)])]), number(b, 1)])
    return b.node("Mul", [b.node("Mul", [x, gate]), number(b, 0.5)])


def with_tanh(b: Builder, x: str) -> str:
    cube = b.node("Mul", [x, b.node("Mul", [x, x])])
    inner = b.node("Add", [x, b.node("Mul", [number(b, 0.044715), cube])])
    tanh = b.node("Tanh", [b.node("Mul", [number(b, SLOPE), inner])])
    half = b.node("Mul", [number(b, 0.5), b.node("Add", [number(b, 1), tanh])])
    return b.node("Mul", [x, half])


def between_convolutions(b: Builder, y: str) -> onnx.ModelProto:
    b.node("Identity", [b.conv(y, 4, 4)], name="out")
    return b.model({"image": ["N", 3, 8, 8]}, {"out": ["N", 4, 8, 8]})


def kinds(model: onnx.ModelProto, tmp_path, **options) -> Counter[str]:
    """Operators of the graph that onnxruntime runs."""
    onnx.save(quantized(model, feeds(model, 8), **options).written(), tmp_path / "model.onnx")
    open_file(tmp_path / "model.onnx", optimized=tmp_path / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)


@pytest.mark.parametrize(("spelled", "op_type"), [(with_erf, "Gelu"), (with_tanh, "FastGelu")])
def test_a_gelu_behind_a_convolution_is_one_node(spelled, op_type, tmp_path):
    b = Builder()
    found = kinds(between_convolutions(b, spelled(b, b.conv("image", 3, 4, 5))), tmp_path)
    assert found[op_type] == 1
    assert found["QLinearConv"] == 2
    assert not {"Erf", "Tanh", "Mul"} & set(found)
    assert found["DequantizeLinear"] == 2  # before the function, and the output


def test_what_is_nearly_a_gelu_stays(tmp_path):
    b = Builder()
    found = kinds(between_convolutions(b, with_erf(b, b.conv("image", 3, 4, 5), root=1.41)), tmp_path)
    assert found["Erf"] == 1


def test_other_runtimes_get_operators_of_onnx(tmp_path):
    b = Builder()
    model = between_convolutions(b, with_erf(b, b.conv("image", 3, 4, 5)))
    written = quantized(model, feeds(model, 8), target="openvino").written()
    assert {node.domain for node in written.graph.node} == {""}


def test_the_network_computes_the_same(tmp_path):
    b = Builder()
    model = between_convolutions(b, with_tanh(b, b.conv("image", 3, 4, 5)))
    samples = feeds(model, 8)
    ours, others = (quantized(model, samples, target=target).written() for target in ("ort-arm", "generic"))
    paths = [tmp_path / "ours.onnx", tmp_path / "others.onnx"]
    for path, written in zip(paths, (ours, others), strict=True):
        onnx.save(written, path)
    one, two = (open_file(path).run(None, samples)[0] for path in paths)
    assert np.abs(one - two).max() < 0.05 * np.abs(two).max()


def elementwise_chain(operator: str, operands: int, length: int) -> ir.Model:
    """One operator again and again, each time of the value before, and the product of both ends."""
    lines = [f"v{i + 1} = {operator} ({', '.join([f'v{i}'] * operands)})" for i in range(length)]
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        chain (float[4] v0) => (float[4] y) {{
            {" ".join(lines)}
            y = Mul (v0, v{length})
        }}"""
    )


@pytest.mark.parametrize(
    ("operator", "operands", "length"), [("Neg", 1, 1100), ("Mul", 2, 300), ("Add", 2, 60)]
)
def test_long_chains_are_walked_at_once(operator, operands, length):
    model = elementwise_chain(operator, operands, length)
    fuse_gelus(model)
    assert {node.op_type for node in model.graph} == {operator, "Mul"}


@pytest.mark.parametrize("operators", [["Tanh"] + ["Mul"] * 18, ["Tanh", "Neg"] * 550])
def test_networks_with_long_chains_are_quantized(operators, tmp_path):
    b = Builder()
    value = first = b.conv("image", 3, 4, 5)
    for operator in operators:
        value = b.node(operator, [value] * (2 if operator == "Mul" else 1))
    product = b.node("Mul", [first, value])
    assert kinds(between_convolutions(b, product), tmp_path)["QLinearConv"] == 2
