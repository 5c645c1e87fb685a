"""What a run says of options that change nothing, and what it keeps to itself."""

import numpy as np
import pytest
from small_models import Builder, feeds, residual

from onnx_lapq import QuantizationConfig, quantize

FAST = {"rounding": "nearest", "p_values": (2.0, 3.0, 4.0)}


def warnings(model=None, samples=None, **options):
    model = model or residual()
    samples = samples or feeds(model, 12)
    return quantize(model, samples, QuantizationConfig(**{**FAST, **options})).report.warnings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "the joint step was not run, since no tensor has fewer than 7 bits; --optimizer powell"),
        ({"optimizer": "none", "weight_bits": 4}, "the joint step was not run; --optimizer powell"),
        ({"optimizer": "powell"}, None),
    ],
)
def test_a_bound_on_a_search_that_is_not_run_is_told(options, said):
    found = [text for text in warnings(max_evaluations=3, **options) if "--max-evals" in text]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def single():
    b = Builder()
    b.node("Identity", [b.gemm("x", 8, 5)], name="y")
    return b.model({"x": ["N", 8]}, {"y": ["N", 5]})


@pytest.mark.parametrize(
    ("model", "options", "told"),
    [(single(), {}, 1), (single(), {"first_last": "same"}, 0), (residual(), {}, 0)],
)
def test_a_network_of_first_and_last_layers_alone_is_told_that_none_has_the_bits_asked_for(
    model, options, told
):
    found = warnings(model, weight_bits=4, activation_bits=8, optimizer="none", **options)
    assert sum("no layer has weights of the 4 bits asked for" in text for text in found) == told


@pytest.mark.parametrize(("count", "told"), [(3, True), (32, False)])
def test_few_samples_are_told(count, told):
    model = residual()
    found = [text for text in warnings(model, feeds(model, count)) if "give 100 or more" in text]
    assert len(found) == told
    assert not told or found[0].startswith("only 3 samples")


def test_a_joint_step_cut_short_is_told():
    found = warnings(weight_bits=4, activation_bits=4, optimizer="powell", max_minutes=0.0)
    assert any("the joint step ended after" in text for text in found)


@pytest.mark.parametrize(("target", "told"), [("qnn", True), ("ort-arm", True), ("ort-x86", False)])
def test_a_full_range_that_weights_have_anyway_is_told(target, told):
    config = QuantizationConfig(target=target, full_range=True)
    found = [text for text in config.notes({8}, {8}) if text.startswith("--full-range changes nothing")]
    assert len(found) == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weight_bits": 4}, True),
        ({"weight_bits": 4, "storage": "packed"}, False),
        ({"weight_bits": 5}, False),
        ({"weight_bits": 4, "target": "tensorrt"}, False),
    ],
)
def test_codes_that_take_a_byte_each_are_told(options, told):
    bits = {options["weight_bits"], 8}
    found = [text for text in QuantizationConfig(**options).notes(bits, {8}) if "--storage packed" in text]
    assert len(found) == told


def test_what_only_a_researcher_would_use_is_no_warning():
    assert not [text for text in warnings(weight_bits=4, optimizer="none") if "parabola" in text]


@pytest.mark.parametrize(("name", "told"), [("attention_mask", False), ("image", True)])
def test_a_mask_of_four_axes_is_no_blank_image(name, told):
    b = Builder()
    y = b.node("Mul", [b.conv("x", 3, 4), name], "y")
    model = b.model({"x": ["N", 3, 8, 8], name: ["N", 1, 1, 8]}, {y: ["N", 4, 8, 8]})
    samples = {**feeds(model, 12), name: np.ones((12, 1, 1, 8), np.float32)}
    found = warnings(model, samples, optimizer="none")
    assert any("the images look blank" in text for text in found) == told
