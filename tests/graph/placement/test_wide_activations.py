"""Activations of 16 bits: where they stand, how they are written, and that this is what is simulated."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from networks import quantized
from small_models import MODELS, Builder, depthwise, feeds, residual

from onnx_lapq import quantize
from onnx_lapq.calibration.histogram import StreamingHistogram
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError
from onnx_lapq.graph.placement.options import PlacementOptions, parse_bits_rule
from onnx_lapq.graph.placement.place import place
from onnx_lapq.graph.placement.targets import TARGETS
from onnx_lapq.graph.simplify.prepare import prepare
from onnx_lapq.method.step_sizes.aciq import aciq_step_size
from onnx_lapq.method.step_sizes.distribution import Distribution
from onnx_lapq.method.step_sizes.kld import kld_step_size
from onnx_lapq.network.step_sizes import activation_grid
from onnx_lapq.runtime.kernels import kernels
from onnx_lapq.runtime.session import open_session, run

QUICK = {"optimizer": "none", "rounding": "nearest", "move_scales": False}
TAKING = [name for name, target in TARGETS.items() if target.wide_domain is not None]


def sites(model, *rules, **options):
    prepared = prepare(ir.from_proto(model))
    bits = tuple(parse_bits_rule(rule) for rule in rules)
    return place(prepared, PlacementOptions(bits=bits, **options)).activations


def gated() -> onnx.ModelProto:
    """Image [N, 3, 8, 8] -> image: a HardSigmoid and a HardSwish between convolutions."""
    b = Builder()
    stem = b.relu(b.conv("image", 3, 8))
    swish = b.node("HardSwish", [b.conv(stem, 8, 8)])
    gate = b.node("HardSigmoid", [b.conv(swish, 8, 8)], alpha=0.2, beta=0.5)
    b.conv(b.node("Mul", [swish, gate]), 8, 4)
    b.nodes[-1].output[0] = "map"
    return b.model({"image": ["N", 3, 8, 8]}, {"map": ["N", 4, 8, 8]})


def error_db(network):
    """How far the simulated outputs lie below those of the float network."""
    wanted = network.outputs[0]
    return 10 * np.log10(np.square(wanted).mean() / np.square(network.simulated_outputs() - wanted).mean())


@pytest.mark.parametrize("target", ["ort-x86", "qnn"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        *((make, {"activation_bits": 16}) for make in (*MODELS.values(), depthwise, gated)),
        (residual, {"activation_bits": 16, "placement": "paper"}),
        (residual, {"activation_bits": 16, "weight_bits": 32}),
        (residual, {"activation_bits": 16, "bits": ("Conv=a8",)}),
        (residual, {"activation_bits": 16, "bits": ("Add=a8",)}),
        (residual, {"bits": ("Conv=a16",)}),
        (residual, {"bits": ("Gemm=a16",)}),
        (gated, {"bits": ("Conv=a16",)}),
    ],
)
def test_what_is_written_is_what_is_simulated(model, options, target):
    proto = model()
    inputs = feeds(proto, 8)
    network = quantized(proto, inputs, target=target, **options)
    written = network.written()
    onnx.checker.check_model(written, full_check=True)
    assert any(site.is_wide for site in network.placement.activations)
    session = open_session(written, precise=TARGETS[target].needs_precise_kernels)
    np.testing.assert_array_equal(run(session, inputs)[0], network.simulated_outputs())


def test_all_have_16_bits_and_none_is_searched():
    for site in sites(residual(), activation_bits=16):
        assert (site.bits, site.searched, site.after) == (16, False, None)


def test_one_layer_alone():
    found = sites(residual(), "Gemm=a16")
    assert [site.bits for site in found] == [8] * (len(found) - 1) + [16]


def test_a_layer_of_16_bits_writes_16_and_arithmetic_of_8_gets_a_quantizer_of_its_own():
    found = sites(residual(), "Conv=a16")
    by_name = {site.name: site for site in found}
    chained = [site for site in found if site.after is not None]
    assert chained
    for site in chained:
        assert site.bits == 8
        assert by_name[site.after].bits == 16
    assert not any(site.searched for site in chained if "Add" in str(site.edges))


def test_arithmetic_of_16_bits_reads_and_writes_16():
    found = sites(residual(), "Add=a16")
    assert sum(site.is_wide for site in found) == 3


def test_outputs_have_16_bits_too():
    found = sites(gated(), activation_bits=16)
    assert [site.bits for site in found if site.value == "map"] == [16]


def test_nothing_is_cut_off_that_a_function_does_not_tell_apart():
    by_name = {bits: {s.name: s for s in sites(gated(), activation_bits=bits)} for bits in (8, 16)}
    flat = [name for name, site in by_name[8].items() if site.curve is not None]
    assert flat
    assert all(by_name[16][name].curve is None for name in flat)


def test_16_bits_are_far_closer_than_8():
    inputs = feeds(residual(), 16)
    eight, sixteen = (
        error_db(quantized(residual(), inputs, target="generic", per_channel=True, activation_bits=bits))
        for bits in (8, 16)
    )
    assert sixteen > eight + 6


@pytest.mark.parametrize("target", TAKING)
@pytest.mark.parametrize("opset", [17, 21])
def test_operators_are_those_that_the_runtime_reads(target, opset):
    model = residual()
    model.opset_import[0].version, model.ir_version = opset, 8 if opset < 21 else 10
    config = QuantizationConfig(target=target, activation_bits=16, **QUICK)
    written = quantize(model, feeds(model, 8), config).model
    version = {entry.domain: entry.version for entry in written.opset_import}[""]
    pairs = {node.domain for node in written.graph.node if node.op_type == "QuantizeLinear"}
    assert (version >= 21) == (target == "generic")
    assert pairs == {"" if target == "generic" else "com.microsoft"}


def test_an_opset_that_has_them_needs_no_operators_of_onnxruntime():
    b = Builder()
    b.conv(b.node("Gelu", [b.conv("image", 3, 4)]), 4, 4)
    b.nodes[-1].output[0] = "map"
    model = b.model({"image": ["N", 3, 8, 8]}, {"map": ["N", 4, 8, 8]}, opset=22)
    graph = prepare(ir.from_proto(model), least_opset=21)
    assert graph.opset_imports[""] == 21


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
@pytest.mark.parametrize("options", [{"activation_bits": 16}, {"bits": ("Conv=a16",)}])
def test_targets_without_them_refuse_them(target, options):
    with pytest.raises(ConfigError, match=f"target {target} does not take activations of 16 bits"):
        QuantizationConfig(target=target, **options)


@pytest.mark.parametrize("options", [{"weight_bits": 16}, {"bits": ("Conv=16",)}, {"bits": ("Conv=w16a16",)}])
def test_weights_have_no_16_bits(options):
    with pytest.raises(ConfigError):
        QuantizationConfig(**options)


@pytest.mark.parametrize(("target", "notes"), [("ort-x86", 1), ("ort-arm", 1), ("qnn", 0), ("generic", 0)])
def test_the_run_says_that_a_cpu_computes_in_float(target, notes):
    found = [note for note in TARGETS[target].notes({4}, {8, 16}) if "16 bits" in note]
    assert len(found) == notes


def test_a_file_with_them_says_what_computes_in_float(tmp_path):
    path = tmp_path / "wide.onnx"
    onnx.save(quantized(residual(), feeds(residual(), 8), target="qnn", activation_bits=16).written(), path)
    reasons = {node.reason for node in kernels(path)}
    assert "onnxruntime has no integer kernels for activations of 16 bits on the CPU" in reasons


@pytest.mark.parametrize(
    ("options", "bits", "apart"),
    [
        ({}, [7, 8, 8, 8, 8, 8], [0, 1, 0, 1, 9, 1]),  # the first reads 3 channels, the third is depthwise
        ({"bits": ("Gemm=a16",)}, [7, 8, 8, 8, 8, 8], [0, 1, 0, 1, 9, 0]),
        ({"activation_bits": 32}, [8] * 6, [0] * 6),
    ],
)
def test_codes_share_16_bits_where_an_integer_kernel_may_add_in_them(options, bits, apart):
    prepared = prepare(ir.from_proto(residual()))
    sites = place(prepared, QuantizationConfig(**options).placement_options()).weights
    assert [site.bits for site in sites] == bits
    assert [site.apart for site in sites] == apart


def test_step_sizes_clip_nothing_and_reach_exactly_as_far_as_the_values():
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[:2] = -30, 77  # far beyond the others, and within a bin of the histogram
    histogram = StreamingHistogram()
    histogram.update(values)
    grid = activation_grid(histogram, 16)
    b = Builder()
    b.node("MatMul", ["x", b.weight(1, 4)], name="y")
    model = b.model({"x": ["N", 1]}, {"y": ["N", 4]})
    network = quantized(model, {"x": values[:, None]}, target="generic", activation_bits=16)
    (site,) = network.placement.activations
    assert network.network.grids[site.name] == grid
    step = float(network.steps[site.name])
    assert -30 / step >= grid.lowest - 1e-3
    assert 77 / step <= grid.highest + 1e-3
    assert step == pytest.approx(107 / 65535, rel=1e-4)


@pytest.mark.parametrize("rule", [kld_step_size, aciq_step_size])
def test_baselines_take_16_bits(rule):
    values = np.linspace(-3, 5, 5000)
    grid = activation_grid(_histogram(values), 16)
    assert 0 < rule(Distribution(values, np.ones(5000)), grid) <= 8 / 65535 * 1.001


def _histogram(values):
    histogram = StreamingHistogram()
    histogram.update(values)
    return histogram


@pytest.mark.parametrize(
    "options",
    [
        {"equalize": True},
        {"method": "kld"},
        {"method": "percentile"},
        {"weight_bits": 32, "optimizer": "auto", "rounding": "auto"},
    ],
)
def test_runs_to_the_end_and_passes_the_self_check(options, tmp_path):
    config = QuantizationConfig(target="qnn", activation_bits=16, **{**QUICK, **options})
    model = depthwise(blocks=2)
    quantize(model, feeds(model, 16), config).save(tmp_path / "model.onnx")


@pytest.mark.parametrize("target", ["qnn", "generic"])
def test_a_large_bias_fits_its_codes_and_the_rounded_weights_fit_their_step(target):
    b = Builder()
    weight, bias = b.random.standard_normal((8, 30)), b.random.standard_normal(8)
    weight[0] *= 1e-6
    bias[0] = 3e-3  # 3000 times the weights: beyond int32 in steps of 16-bit inputs and 8-bit weights
    names = [b.constant(values.astype(np.float32)) for values in (weight, bias)]
    b.node("Gemm", ["x", *names], name="y", transB=1)
    model = b.model({"x": ["N", 30]}, {"y": ["N", 8]})
    inputs = {"x": b.random.standard_normal((64, 30)).astype(np.float32)}
    network = quantized(model, inputs, target=target, activation_bits=16, per_channel=True)
    for found in (network, network.rounded()):
        simulated, wanted = found.simulated_outputs()[:, 0], found.outputs[0][:, 0]
        assert np.square(simulated - wanted).mean() < 1e-4 * wanted.var()
        session = open_session(found.written(), precise=True)
        np.testing.assert_array_equal(run(session, inputs)[0], found.simulated_outputs())
