"""Decide which tensors get a quantizer: `place` reads the prepared graph and returns a `Placement`.

Quantizers of layers, on their constant weights and on the activations that enter them, have the bits that are
asked for, and the search moves their step sizes. Quantizers between layers have 8 bits and keep their
layer-wise step size. `onnx_lapq.graph.placement.activations` says where those on activations stand.
"""

from collections.abc import Iterator
from dataclasses import replace

import onnx_ir as ir

from onnx_lapq.errors import ModelError
from onnx_lapq.graph.layer_kinds import LayerKind, kinds_of
from onnx_lapq.graph.placement.activations import integer_sites, paper_sites
from onnx_lapq.graph.placement.concatenations import share_scales_of_concats
from onnx_lapq.graph.placement.layer_bits import LayerBits
from onnx_lapq.graph.placement.options import BLOCK_BITS, FLOAT_BITS, PlacementOptions
from onnx_lapq.graph.placement.roles import Roles, in_float, name_of
from onnx_lapq.graph.placement.sites import (
    ActivationSite,
    Placement,
    WeightSite,
    WideSite,
    quantizer_of_edges,
)
from onnx_lapq.graph.placement.sliced_tables import sliced_tables
from onnx_lapq.graph.subgraphs import branches, users

__all__ = ["place"]


def place(model: ir.Model, options: PlacementOptions) -> Placement:
    """Choose the tensors to quantize.

    Args:
        model: A prepared model.
        options: Bits, granularity, policy and choice of nodes.

    Raises:
        ModelError: There is nothing to quantize.
    """
    bits = LayerBits(model, options)
    roles = Roles(model, bits)
    activations = tuple(_activation_sites(roles, options)) if _any_activation(bits) else ()
    read = quantizer_of_edges(model.graph, users(model.graph), activations)
    weights = tuple(
        replace(site, input_site=read.get((site.layers[0], 0)) if len(site.layers) == 1 else None)
        for site in _weight_sites(roles, options)
    )
    if not weights and not any(site.searched or site.is_wide for site in activations):
        raise ModelError(
            "nothing to quantize: the graph has no Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN or "
            f"embedding Gather with constant float weights that the options leave in; {_advice(model)}"
        )
    return Placement(
        weights,
        activations,
        tuple(name_of(node) for node in bits.layers),
        tuple(in_float(roles, {site.name for site in weights}, set(read))),
        tuple(_wide_sites(roles)) if options.weight_bits != FLOAT_BITS else (),
        _arithmetic(roles) if options.policy == "integer" else (),
    )


def _arithmetic(roles: Roles) -> tuple[str, ...]:
    return tuple(name_of(node) for node in roles.graph if roles.is_arithmetic(node))


def _advice(model: ir.Model) -> str:
    for branch in branches(model.graph):
        return (
            f"node {branch.node!r} (If) chooses between sub-graphs by input {branch.inputs[0]!r}; give its "
            f"value with --set {branch.inputs[0]}=NUMBER, or give another model"
        )
    for value in model.graph.inputs:
        if not value.uses() and value.shape is not None and all(size == 1 for size in value.shape):
            return (
                f"nothing reads input {value.name!r}; if --set gives its value, give another number, or else "
                "exclude fewer, or give another model"
            )
    return "exclude fewer, or give another model"


def _activation_sites(roles: Roles, options: PlacementOptions) -> Iterator[ActivationSite]:
    if options.policy == "paper":
        sites = paper_sites(roles)
    else:
        written = integer_sites(roles, float_outputs=options.float_outputs)
        sites = iter(share_scales_of_concats(roles, list(written)))
    return map(_settled, sites)


def _settled(site: ActivationSite) -> ActivationSite:
    """A site of 16 bits keeps its step size, cuts nothing off, and has no part in what 8-bit kernels do."""
    if not site.is_wide:
        return site
    return replace(site, searched=False, limits=(), gate=None, curve=None)


def _any_activation(bits: LayerBits) -> bool:
    return any(bits.activation(node) != FLOAT_BITS for node in bits.layers)


def _weight_sites(roles: Roles, options: PlacementOptions) -> Iterator[WeightSite]:
    readers: dict[ir.Value, list[LayerKind]] = {}
    for layer in (layer for node in roles.bits.layers for layer in kinds_of(node)):
        if layer.weight is not None and roles.bits.weight(layer) != FLOAT_BITS:
            readers.setdefault(layer.weight, []).append(layer)
    for weight, layers in readers.items():
        nodes = [layer.node for layer in layers]
        in_float = {roles.bits.in_float(layer) for layer in layers}
        if _only_read_by(roles, weight, nodes) and len(in_float) == 1:
            alike = len({(layer.axis, layer.multiplies) for layer in layers}) == 1
            alike = alike and all(layer.takes_scale_per_channel for layer in layers)
            channels = options.per_channel and alike
            names = tuple(name_of(node) for node in nodes)
            bits, apart = roles.bits.written(layers)
            site = WeightSite(
                name_of(weight), names, bits, layers[0].axis, channels, in_float=in_float.pop(), apart=apart
            )
            yield replace(site, block=options.group_size) if _takes_blocks(roles, site, layers) else site


def _takes_blocks(roles: Roles, site: WeightSite, layers: list[LayerKind]) -> bool:
    """Whether a runtime multiplies float by the weight in blocks."""
    reads_float = all(roles.bits.activation(layer.node) == FLOAT_BITS for layer in layers)
    few = site.bits <= BLOCK_BITS and not site.in_float
    return few and reads_float and all(layer.takes_blocks for layer in layers)


def _wide_sites(roles: Roles) -> Iterator[WideSite]:
    fixed = [node for node in roles.bits.layers if node in roles.bits.fixed_transforms]
    axes = {kind.weight: kind.axis for node in fixed for kind in kinds_of(node)}
    for weight, axis in axes.items():
        if weight is not None and _only_read_by(roles, weight, fixed):
            yield WideSite(name_of(weight), axis)
    slices = [node for node in roles.graph if node.op_type == "Slice" and roles.bits.takes_part(node)]
    for table in sliced_tables(slices):
        assert table.shape is not None
        if _only_read_by(roles, table, slices):
            yield WideSite(name_of(table), len(table.shape) - 1)


def _only_read_by(roles: Roles, value: ir.Value, nodes: list[ir.Node]) -> bool:
    return all(user in nodes for user, _ in roles.users(value)) and not value.is_graph_output()
