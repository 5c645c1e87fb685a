"""The tool that compares orders runs the pipeline's own stages."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from orders import DEFAULT, ORDERS, follow

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.common.blas import one_blas_thread
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.network.bench import set_up
from onnx_lapq.network.samples import read_samples
from onnx_lapq.progress import Clock, silent

DEMO = Path(__file__).parents[2] / "demo"
CONFIG = QuantizationConfig(
    weight_bits=4, activation_bits=8, samples=24, max_evaluations=9, p_values=(2.0, 3.0, 4.0), workers=1
).resolved()


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_the_default_order_is_that_of_the_pipeline():
    prepared = prepare(load(DEMO / "model.onnx"))
    samples = read_samples(prepared, DEMO / "calib", CONFIG.preprocessing, CONFIG.samples, lambda done: None)
    with one_blas_thread():  # as `quantize` has it
        bench = set_up(prepared, place(prepared, CONFIG.placement_options()), samples, CONFIG, Clock(silent))
        models = {order: constants(ir.to_proto(model)) for order, model in follow(bench)}
    expected = constants(quantize(DEMO / "model.onnx", DEMO / "calib", CONFIG).model)
    assert models.keys() == set(ORDERS)
    np.testing.assert_equal(models[DEFAULT], expected)
