"""Which tensors of a model lie in files beside it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_lapq.graph.external import external_files


def tensor(location: str) -> onnx.TensorProto:
    made = numpy_helper.from_array(np.zeros(1, np.float32), location)
    made.data_location = TensorProto.EXTERNAL
    made.external_data.add(key="location", value=location)
    return made


def graph(name: str) -> onnx.GraphProto:
    constant = helper.make_node("Constant", [], ["c"], value=tensor(f"{name} attribute"))
    return helper.make_graph([constant], name, [], [], [tensor(f"{name} initializer")])


def test_tensors_of_attributes_sub_graphs_and_functions_count():
    branch = helper.make_node("If", ["x"], ["y"], then_branch=graph("then"), else_branch=graph("else"))
    main = graph("main")
    main.node.append(branch)
    inner = helper.make_node("Constant", [], ["c"], value=tensor("function attribute"))
    function = helper.make_function("own", "f", [], ["c"], [inner], [helper.make_opsetid("", 17)])
    model = helper.make_model(main, functions=[function])
    parts = [f"{name} {kind}" for name in ("main", "then", "else") for kind in ("attribute", "initializer")]
    assert external_files(model, Path("m.onnx")) == {Path(part) for part in [*parts, "function attribute"]}
