import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import MODELS, feeds, residual

import onnx_lapq
from onnx_lapq import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run
from onnx_lapq.stages.rewriting.transforms import transform_weights

LOW = {"weight_bits": 3, "activation_bits": 8, "first_last": "same"}


def nodes(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("transform", ["ocs", "dual"])
@pytest.mark.parametrize("name", MODELS)
def test_the_network_computes_what_it_did(name, transform, per_channel):
    model = MODELS[name]()
    prepared = prepare(ir.from_proto(model))
    before, layers = run(open_session(prepared), feeds(model, 3))[0], len(nodes(prepared))
    config = QuantizationConfig(**LOW, transform=transform, per_channel=per_channel)
    options = config.placement_options()
    placement = transform_weights(prepared, place(prepared, options), transform, options)
    onnx.checker.check_model(ir.to_proto(prepared), full_check=True)
    np.testing.assert_allclose(run(open_session(prepared), feeds(model, 3))[0], before, rtol=1e-4, atol=1e-5)
    assert len(nodes(prepared)) > layers
    assert {site.name for site in placement.weights} <= set(prepared.graph.initializers)


@pytest.mark.parametrize("placement", ["integer", "paper"])
@pytest.mark.parametrize("transform", ["ocs", "dual"])
def test_a_run_writes_a_model_whose_loss_is_that_of_the_search(transform, placement):
    config = QuantizationConfig(**LOW, transform=transform, placement=placement, method="mmse", loss="mse")
    data = feeds(residual(), 12)
    result = onnx_lapq.quantize(residual(), data, config)
    session = open_session(result.model)
    float_output = run(open_session(residual()), data)[0]
    error = np.square(run(session, data)[0] - float_output).mean(axis=1) / np.square(float_output).mean()
    stage, guard = result.report.stages[-1], result.report.stages[-1].guard_loss
    assert np.isclose(error.mean() * 12, stage.loss * 10 + guard * 2, rtol=0.02)


def test_dual_is_better_than_plain_weights():
    losses = {}
    for transform in ("none", "dual"):
        config = QuantizationConfig(**{**LOW, "activation_bits": 32}, transform=transform, method="mmse")
        losses[transform] = (
            onnx_lapq.quantize(residual(), feeds(residual(), 12), config).report.stages[-1].loss
        )
    assert losses["dual"] < losses["none"]


@pytest.mark.parametrize("transform", ["ocs", "dual"])
def test_a_transform_without_low_bit_weights_is_refused(transform):
    with pytest.raises(ConfigError, match=f"--transform {transform} finds no weight of fewer than 7 bits"):
        onnx_lapq.quantize(residual(), feeds(residual(), 4), QuantizationConfig(transform=transform))
