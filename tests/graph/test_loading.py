"""What onnxruntime runs is taken, though onnx's checker refuses it; what neither takes is refused."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from small_models import feeds, residual

from onnx_lapq.errors import ModelError
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.runtime.session import open_session, run


def out_of_order() -> onnx.ModelProto:
    model = residual()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_sizes_of_minus_one() -> onnx.ModelProto:
    model = residual()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    return model


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("make", [out_of_order, with_sizes_of_minus_one])
def test_what_onnxruntime_runs_is_taken(tmp_path, make, as_file):
    model, path = make(), tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    inputs = feeds(residual(), 4)
    prepared = prepare(load(path if as_file else model))
    onnx.checker.check_model(ir.to_proto(prepared))
    expected = run(open_session(residual()), inputs)[0]
    np.testing.assert_allclose(run(open_session(prepared), inputs)[0], expected, rtol=1e-5, atol=1e-5)


def test_what_neither_takes_is_refused_in_the_words_of_the_checker():
    model = residual()
    model.graph.node[0].op_type = "Blub"
    with pytest.raises(ModelError, match="not a valid ONNX model: No Op registered for Blub"):
        load(model)


def test_a_function_that_calls_itself_never_reaches_onnxruntime(monkeypatch):
    model = residual()
    opsets = [helper.make_opsetid("own", 1)]
    node = helper.make_node("Endless", ["x"], ["y"], domain="own")
    model.functions.append(helper.make_function("own", "Endless", ["x"], ["y"], [node], opsets))
    monkeypatch.setattr("onnx_lapq.graph.loading.is_loadable", lambda model: pytest.fail("was asked"))
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load(model)
