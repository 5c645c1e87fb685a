"""Opset conversion changes the spelling of an operator and not what it computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from old_operators import changed_operators, unchanged_operators
from opset_runs import is_same, run
from releases import before

from onnx_lapq.graph.operator_sets import MINIMUM_OPSET
from onnx_lapq.graph.simplify.opsets import raise_opset


def converted(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = ir.from_proto(model)
    raise_opset(graph, MINIMUM_OPSET)
    assert graph.opset_imports[""] == MINIMUM_OPSET
    return ir.to_proto(graph)


def survives(model: onnx.ModelProto, feeds: dict[str, np.ndarray], before: list[np.ndarray]) -> bool:
    after = run(converted(model), feeds)
    return all(is_same(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("branch", [False, True])
def test_operators_that_changed_after_opset_7_are_converted_right(branch):
    wrong, done = [], 0
    for case in changed_operators():
        for opset in case.opsets:
            model = case.model_in_branch(opset) if branch else case.model(opset)
            feeds = case.feeds() | ({"condition": np.array(True)} if branch else {})
            done += 1
            if branch and case.op_type == "Squeeze" and before("onnxruntime", "1.24"):
                continue  # onnxruntime 1.20 takes the shapes of branches for each other's
            if not survives(model, feeds, run(model, feeds)):
                wrong.append((case.op_type, opset, case.attributes))
    assert not wrong
    assert done > 300


@pytest.mark.filterwarnings("ignore")
def test_every_operator_of_onnx_computes_the_same_after_conversion():
    wrong, done = [], set()
    for case in unchanged_operators():
        for opset in case.opsets:
            model, feeds = case.model(opset), case.feeds()
            try:
                before = run(model, feeds)
            except Exception:  # an opset that spells the operator otherwise, or that onnxruntime does not run
                continue
            if all(isinstance(values, np.ndarray) for values in before):
                done.add(case.op_type)
                if not survives(model, feeds, before):
                    wrong.append((case.op_type, opset))
    assert not wrong
    assert len(done) > 100
