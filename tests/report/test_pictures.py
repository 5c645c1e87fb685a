"""Images on the page of a run, with what both models find in them."""

import re

import numpy as np
import onnx
import pytest
from small_models import Builder, feeds, residual

from onnx_lapq import quantize
from onnx_lapq.config import QuantizationConfig
from onnx_lapq.errors import ConfigError, RunError
from onnx_lapq.report.figures import draw_picture
from onnx_lapq.report.pictures import boxes_in, map_of, take_pictures
from onnx_lapq.report.theme import figure_style
from onnx_lapq.study.gate import Gatekeeper
from onnx_lapq.study.limits import Gate

QUICK = QuantizationConfig(rounding="nearest", optimizer="none", report=True)


def segmenter() -> onnx.ModelProto:
    b = Builder()
    b.conv(b.relu(b.conv("image", 3, 8)), 8, 4)
    b.nodes[-1].output[0] = "map"
    return b.model({"image": ["N", 3, 8, 8]}, {"map": ["N", 4, 8, 8]})


def pictures(outputs, image=(2, 3, 12, 16), **options):
    values = np.random.default_rng(0).random(image).astype(np.float32)
    return take_pictures(
        {"mask": np.ones((2, 5)), "image": values}, {"y": outputs}, {"y": outputs}, **options
    )


def test_a_picture_is_an_input_that_is_an_image_with_the_channels_last():
    plain, swapped = (pictures(np.zeros((2, 4)), blue_first=blue)[0] for blue in (False, True))
    assert plain.size == (12, 16)
    assert (plain.image.min(), plain.image.max()) == (0, 1)
    np.testing.assert_array_equal(plain.image, swapped.image[..., ::-1])


@pytest.mark.parametrize("image", [(2, 12, 16, 3), (2, 1, 12, 16)])
def test_the_channels_may_lie_elsewhere_or_be_one(image):
    assert pictures(np.zeros((2, 4)), image)[0].image.shape == (12, 16, 3)


@pytest.mark.parametrize("image", [(2, 5), (2, 7, 12, 16), (2, 3, 2, 2)])
def test_other_inputs_are_no_pictures(image):
    assert pictures(np.zeros((2, 4)), image) == ()


def test_a_map_lies_over_the_image():
    mask, classes = (
        np.random.default_rng(1).random((2, 1, 6, 8)),
        np.random.default_rng(1).random((2, 5, 3, 4)),
    )
    np.testing.assert_array_equal(map_of(pictures(mask)[1], 0), mask[1, 0])
    np.testing.assert_array_equal(map_of(pictures(mask[:, 0])[1], 1), mask[1, 0])
    np.testing.assert_array_equal(map_of(pictures(np.moveaxis(mask, 1, -1))[1], 0), mask[1, 0])
    assert map_of(pictures(classes)[0], 0) is None  # too coarse
    fine = classes.repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(map_of(pictures(fine)[0], 0), fine[0].argmax(0))
    assert map_of(pictures(np.zeros((2, 1, 8, 8)))[0], 0) is None  # of another form


def test_boxes_are_drawn_and_what_is_no_box_is_said():
    (picture, _) = pictures(np.zeros((2, 4)))
    with figure_style():
        bare = draw_picture(picture, lambda outputs: np.empty((0, 4)), 0)
        two = draw_picture(picture, lambda outputs: [[1, 2, 3, 4, 0.9], [5, 6, 7, 8, 0.5]], 0)
    assert two.count("var(--two)") == bare.count("var(--two)") + 4
    with pytest.raises(ConfigError, match=r"shape \(4,\)"):
        boxes_in(picture, 0, lambda outputs: outputs["y"])
    with pytest.raises(RunError, match="KeyError: 'head'"):
        boxes_in(picture, 0, lambda outputs: outputs["head"])


def test_the_page_of_a_segmenter_has_pictures_and_still_loads_nothing(tmp_path):
    model = segmenter()
    result = quantize(model, feeds(model, 16), QUICK)
    result.save(tmp_path / "model.onnx")
    text = (tmp_path / "model.onnx.report.html").read_text()
    assert len(result.pictures) == text.count('aria-label="an image') > 0
    assert all(ref.startswith(("#", "data:image/png")) for ref in re.findall(r'href="([^"]*)"', text))


def test_the_page_of_a_classifier_has_none(tmp_path):
    quantize(residual(), feeds(residual(), 16), QUICK).save(tmp_path / "model.onnx")
    assert "What both models find" not in (tmp_path / "model.onnx.report.html").read_text()


def test_boxes_are_found_by_the_module_of_the_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = residual()
    (tmp_path / "boxed.py").write_text(
        "def metric(outputs, reference, labels):\n    return 1.0\n"
        "def find_boxes(outputs):\n    return [[0, 0, *outputs['logits'][:2]]]\n"
    )
    np.savez(tmp_path / "test.npz", **feeds(model, 4))
    onnx.save(model, tmp_path / "float.onnx")
    gate = Gatekeeper(Gate(test="test.npz", metric="boxed:metric"), "float.onnx", QUICK.preprocessing)
    gate.admit(quantize(model, feeds(model, 16), QUICK)).save(tmp_path / "model.onnx")
    assert 'aria-label="an image' in (tmp_path / "model.onnx.report.html").read_text()
