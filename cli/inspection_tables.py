"""What `inspect` prints: the plan for a float model, and the kernels of a quantized one."""

from collections import Counter

from rich.table import Table
from rich.text import Text

from onnx_lapq.cli.bits_tables import names_column, new_console
from onnx_lapq.cli.tables import bits_text, in_float_lines
from onnx_lapq.common.sizes import with_unit
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.study.inspection import Kernels, Plan

__all__ = ["print_kernels", "print_plan"]


def print_plan(plan: Plan) -> None:
    """Print what would become of a float model."""
    console = new_console()
    console.print(f"Opset {plan.opset}; {plan.nodes[0]} nodes, {plan.nodes[1]} once constants are folded")
    for heading, values in (("Inputs", plan.inputs), ("Outputs", plan.outputs)):
        console.print(f"{heading}: {', '.join(values)}", markup=False)
    table = Table(names_column("layer"), "operator", names_column("weight"))
    for heading in ("weight bits", "activation bits"):
        table.add_column(heading, justify="right")
    for layer in plan.layers:
        shape = "-" if layer.weight is None else "x".join(str(size) for size in layer.weight)
        table.add_row(
            Text(layer.name),
            layer.op_type,
            shape,
            "-" if layer.weight is None else bits_text(layer.weight_bits),
            bits_text(layer.activation_bits),
        )
    console.print(table)
    wide = f", {plan.wide} of 16 bits" if plan.wide else ""
    console.print(f"Quantizers: {plan.searched} searched, {plan.glue} of 8 bits between layers{wide}")
    before, after = plan.weights_before, plan.weights_after
    console.print(f"Weights: {with_unit(before)} -> {with_unit(after)}")
    for line in in_float_lines(plan.in_float):
        console.print(f"In float: {line}", markup=False)
    for note in plan.notes:
        console.print(f"Note: {note}", markup=False)


def print_kernels(kernels: Kernels) -> None:
    """Print which nodes of a quantized model run on integer kernels."""
    console = new_console()
    table = Table("operator")
    for heading in ("integer", "float"):
        table.add_column(heading, justify="right")
    for op_type, count in Counter(node.op_type for node in kernels.nodes).items():
        integer = sum(node.op_type == op_type and node.integer for node in kernels.nodes)
        table.add_row(op_type, str(integer or "-"), str(count - integer or "-"))
    console.print(table)
    between = kernels.between
    integers = sum(node.integer for node in between)
    share = 100 * integers / len(between) if between else 0.0
    console.print(
        f"Between the first and the last quantizer {integers} of {len(between)} compute nodes "
        f"({share:.0f} %) run on integer kernels of onnxruntime's CPU provider"
    )
    because = f", for {kernels.needs.reason}" if kernels.needs.reason else ""
    console.print(f"Needs onnxruntime {kernels.needs.onnxruntime} or newer{because}", markup=False)
    if kernels.target is not None:
        only = TARGETS[kernels.target].for_vnni
        wrong = "; on x86 processors without VNNI its answers are wrong" if only else ""
        console.print(f"Made for target {kernels.target}{wrong}", markup=False)
    for line in in_float_lines([node for node in kernels.nodes if not node.integer]):
        console.print(f"In float: {line}", markup=False)
