"""Look at a model without quantizing it: what would become of a float one, what runs in a quantized one."""

import json
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.graph.layer_kinds import weights_of
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.placement.layer_bits import check_patterns
from onnx_lapq.graph.placement.operators import activation_inputs
from onnx_lapq.graph.placement.options import FLOAT_BITS, WIDE_BITS
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.roles import FloatNode, name_of
from onnx_lapq.graph.placement.sites import Placement
from onnx_lapq.graph.placement.targets import TARGETS, TargetName
from onnx_lapq.graph.rewriting.turned_weights import turn_weights
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.graph.simplify.quantized_already import is_quantized
from onnx_lapq.graph.writing.packing import packed_bytes
from onnx_lapq.network.samples import check_feeding
from onnx_lapq.runtime.kernels import Kernel, kernels
from onnx_lapq.runtime.requirements import Requirement, needed_onnxruntime

__all__ = ["Kernels", "LayerPlan", "Plan", "inspect_file"]


@dataclass(frozen=True)
class LayerPlan:
    """What would become of a layer; one that has several weights stands there once for each.

    Attributes:
        name: The node's name, which `--exclude`, `--include` and `--bits` match.
        op_type: Its operator.
        weight: Shape of its weight; None for a product of two activations.
        weight_bits: 2 to 8, 16 for a fixed transform of sound, or 32 where it stays in float.
        activation_bits: Of its inputs, 2 to 8, 16, or 32 where one stays in float; None where it has none.
    """

    name: str
    op_type: str
    weight: tuple[int, ...] | None
    weight_bits: int
    activation_bits: int | None


@dataclass(frozen=True)
class Plan:
    """What would become of a float model.

    Attributes:
        opset: Of the file.
        nodes: In the file, and once constants are folded.
        inputs: Name, type and shape of every input.
        outputs: The same of every output.
        layers: In topological order.
        searched: Quantizers that the search would move.
        glue: 8-bit quantizers between layers.
        wide: 16-bit quantizers, which no search moves.
        in_float: Nodes that would compute in float.
        weights_before: Bytes of all float weights.
        weights_after: Bytes of all weights as they would be stored.
        notes: What the target makes of the options.
    """

    opset: int
    nodes: tuple[int, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[LayerPlan, ...]
    searched: int
    glue: int
    wide: int
    in_float: tuple[FloatNode, ...]
    weights_before: int
    weights_after: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Kernels:
    """What runs in a quantized model.

    Attributes:
        nodes: In the order they run.
        needs: The oldest onnxruntime that loads it.
        target: The runtime that this tool wrote it for; None where another tool did.
    """

    nodes: tuple[Kernel, ...]
    needs: Requirement
    target: TargetName | None

    @property
    def between(self) -> tuple[Kernel, ...]:
        """The nodes between the first and the last quantizer."""
        return tuple(node for node in self.nodes if node.between or node.integer)


def inspect_file(path: Path, config: QuantizationConfig) -> Plan | Kernels:
    """Inspect a model file.

    Args:
        path: A float or a quantized model.
        config: What would be asked of a float model.

    Raises:
        ModelError: The file is no good, or holds nothing to quantize.
        ConfigError: A pattern of the options matches no node.
    """
    model = load(path)
    if is_quantized(model):
        return Kernels(tuple(kernels(path)), needed_onnxruntime(model), _target(path))
    opset, nodes = model.opset_imports.get("", 0), model.graph.num_nodes()
    config = config.resolved()
    check_feeding(model, config.feeding())
    prepared = prepare(
        model,
        fold_codes=config.fold_codes,
        values=config.feeding().values,
        least_opset=config.least_opset(),
    )
    if config.group_size is not None:
        turn_weights(prepared)
    check_patterns(prepared, config.placement_options())
    placement = place(prepared, config.placement_options())
    before, after = _weight_bytes(prepared, placement, packed=config.storage == "packed")
    searched = sum(site.searched for site in placement.activations)
    wide = sum(site.is_wide for site in placement.activations)
    return Plan(
        opset=opset,
        nodes=(nodes, prepared.graph.num_nodes()),
        inputs=tuple(_signature(value) for value in prepared.graph.inputs),
        outputs=tuple(_signature(value) for value in prepared.graph.outputs),
        layers=_layers(prepared, placement),
        searched=searched + len(placement.weights),
        glue=len(placement.activations) - searched - wide,
        wide=wide,
        in_float=placement.in_float,
        weights_before=before,
        weights_after=after,
        notes=tuple(config.notes(*placement.bits)),
    )


def _target(path: Path) -> TargetName | None:
    """The target among the options in the stamp of a file."""
    props = onnx.load(path, load_external_data=False).metadata_props
    stamps = [prop.value for prop in props if prop.key == "onnx_lapq"]
    try:
        found: TargetName = json.loads(stamps[0])["options"]["target"]
        return TARGETS[found].name
    except (LookupError, TypeError, ValueError):
        return None


def _layers(model: ir.Model, placement: Placement) -> tuple[LayerPlan, ...]:
    nodes = {node.name: node for node in model.graph}
    weights = _bits_of_weights(placement)
    inputs = placement.bits_of_edges(model)
    plans = []
    for node in (nodes[name] for name in placement.layers):
        edges = [inputs.get((name_of(node), place), FLOAT_BITS) for place in activation_inputs(node)]
        for weight in weights_of(node) or (None,):
            shape = None if weight is None or weight.shape is None else tuple(weight.shape.numpy())
            bits = FLOAT_BITS if weight is None else weights.get(name_of(weight), FLOAT_BITS)
            plans.append(LayerPlan(name_of(node), node.op_type, shape, bits, max(edges, default=None)))
    return tuple(plans)


def _bits_of_weights(placement: Placement) -> dict[str, int]:
    bits = {site.name: site.bits for site in placement.weights}
    return bits | {site.name: WIDE_BITS for site in placement.wide}


def _weight_bytes(model: ir.Model, placement: Placement, *, packed: bool) -> tuple[int, int]:
    bits = _bits_of_weights(placement)
    int4 = {site.name for site in placement.weights if site.block}
    before = after = 0
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        size = value.const_value.size
        before += value.const_value.nbytes
        if name not in bits:
            after += value.const_value.nbytes
        elif bits[name] == WIDE_BITS:
            after += size * WIDE_BITS // 8
        else:
            after += packed_bytes(size, bits[name]) if packed or name in int4 else size
    return before, after


def _signature(value: ir.Value) -> str:
    shape = "?" if value.shape is None else "x".join(str(size) for size in value.shape)
    return f"{value.name} {value.dtype} {shape}"
