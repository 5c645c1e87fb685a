from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from onnx_lapq.calibration.decoding import decode_image
from onnx_lapq.calibration.preprocessing import (
    PRESETS,
    Geometry,
    Preprocessing,
    fit_to_model,
    image_input,
    plan_geometry,
    to_model_input,
)
from onnx_lapq.calibration.stored import InputSpec
from onnx_lapq.errors import CalibrationError, ConfigError

OWN_SIZE = Geometry(None, None)
UNIT = Preprocessing()


def spec(*shape: int | str | None, dtype: str = "float32") -> InputSpec:
    return InputSpec("x", np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("shape", "layout", "channels", "size"),
    [
        (("N", 3, 224, 200), "nchw", 3, (224, 200)),
        (("N", 224, 200, 3), "nhwc", 3, (224, 200)),
        ((1, 1, 28, 28), "nchw", 1, (28, 28)),
        ((None, 4, None, "w"), "nchw", 4, (None, None)),
        (("N", 28, 28), "nhw", 1, (28, 28)),
    ],
)
def test_layout_is_read_from_the_shape(shape: Any, layout: str, channels: int, size: Any) -> None:
    target = image_input(spec(*shape), UNIT)
    assert target is not None
    assert (target.layout, target.channels, (target.height, target.width)) == (layout, channels, size)


@pytest.mark.parametrize("shape", [("N", 10), ("N", 8, 16, 16), ("N", "c", "h", "w"), ()])
def test_other_shapes_are_no_images(shape: Any) -> None:
    assert image_input(spec(*shape), UNIT) is None


def test_an_explicit_layout_settles_symbolic_channels() -> None:
    target = image_input(spec("n", "h", "w", "c"), Preprocessing(layout="nhwc"))
    assert target is not None
    assert (target.channels, target.layout) == (3, "nhwc")


def test_values_are_scaled_then_normalised_per_channel() -> None:
    target = image_input(spec("N", 3, 2, 2), PRESETS["imagenet"])
    assert target is not None
    pixels = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), np.uint8)
    got = to_model_input(pixels, PRESETS["imagenet"], target)
    wanted = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(got, wanted.transpose(0, 3, 1, 2), atol=1e-6)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


@pytest.mark.parametrize(("preset", "low", "high"), [("unit", 0, 1), ("raw", 0, 255), ("tensorflow", -1, 1)])
def test_presets_reach_their_range_exactly(preset: str, low: float, high: float) -> None:
    target = image_input(spec("N", 1, 2, 1, dtype="float32"), PRESETS[preset])
    assert target is not None
    got = to_model_input(np.array([[[[0]], [[255]]]], np.uint8), PRESETS[preset], target)
    assert (got.min(), got.max()) == (low, high)


def test_integer_inputs_get_the_pixels() -> None:
    target = image_input(spec("N", 2, 2, 3, dtype="uint8"), UNIT)
    assert target is not None
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(to_model_input(pixels, UNIT, target), pixels)


def test_presets_scale_with_the_model() -> None:
    fitted = fit_to_model(PRESETS["imagenet"], [spec("N", 3, 299, 299)])
    assert (fitted.resize, fitted.crop) == (342, (299, 299))
    assert fit_to_model(PRESETS["imagenet"], [spec("N", 3, 224, 224)]) == PRESETS["imagenet"]
    assert fit_to_model(PRESETS["imagenet"], [spec("N", 3, "h", "w")]) == PRESETS["imagenet"]
    assert fit_to_model(PRESETS["unit"], [spec("N", 3, 299, 299)]) == PRESETS["unit"]


def test_the_size_is_planned_from_options_and_model() -> None:
    target = image_input(spec("N", 3, 32, 48), UNIT)
    assert target is not None
    assert plan_geometry(UNIT, target) == Geometry((32, 48), None)
    assert plan_geometry(Preprocessing(resize=64), target) == Geometry(64, (32, 48))
    with pytest.raises(CalibrationError, match=r"ends at 16x16 .* takes 32x48; change --crop"):
        plan_geometry(Preprocessing(resize=64, crop=(16, 16)), target)


def test_a_letterbox_is_as_large_as_the_model_or_the_option_says() -> None:
    fixed, free = spec("N", 3, 416, 320), spec("N", 3, "h", "w")
    for inputs, size in ((fixed, (416, 320)), (free, (640, 640))):
        fitted = fit_to_model(PRESETS["yolo"], [inputs])
        target = image_input(inputs, fitted)
        assert target is not None
        assert plan_geometry(fitted, target) == Geometry(size, None, letterbox=True)
    target = image_input(fixed, UNIT)
    assert target is not None
    with pytest.raises(CalibrationError, match=r"ends at 320x320 .* takes 416x320; change --resize"):
        plan_geometry(Preprocessing("letterbox:320"), target)


@pytest.mark.parametrize("size", [64, 640])
def test_a_letterbox_of_another_size_than_the_models_is_refused(size: int) -> None:
    model = spec("N", 3, 96, 96)
    fitted = fit_to_model(Preprocessing(f"letterbox:{size}"), [model])
    target = image_input(model, fitted)
    assert target is not None
    with pytest.raises(CalibrationError, match=rf"ends at {size}x{size} .* takes 96x96; change --resize"):
        plan_geometry(fitted, target)


def test_a_letterbox_of_the_models_size_is_asked_for_by_name() -> None:
    assert PRESETS["yolo"] == Preprocessing("letterbox:model")
    assert fit_to_model(PRESETS["yolo"], [spec("N", 3, 96, 64)]).letterbox == (96, 64)
    assert Preprocessing("letterbox:model").letterbox == (640, 640)


@pytest.mark.parametrize(
    "options",
    [
        {"resize": 0},
        {"resize": "640"},
        {"resize": "letterbox"},
        {"resize": "letterbox:0"},
        {"resize": "letterbox:640", "crop": (64, 64)},
        {"crop": (4, -1)},
        {"std": (0.0,)},
        {"scale": float("nan")},
        {"mean": ()},
        {"color": "hsv"},
        {"layout": "chw"},
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Preprocessing(**options)


def test_mean_must_fit_the_channels() -> None:
    with pytest.raises(ConfigError, match=r"--mean has 3 values, but input 'x' has 1 channel"):
        image_input(spec("N", 1, 28, 28), PRESETS["imagenet"])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_pixels(tmp_path: Path, mode: str, channels: int) -> None:
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("Pillow before 13 cannot read the YCbCr TIFF that it writes")
    source = Image.new("RGB", (5, 4), (255, 255, 255))
    if mode in ("I", "I;16"):
        image = Image.fromarray(np.full((4, 5), 65535, np.uint16 if mode == "I;16" else np.int32))
    else:
        image = source.convert(mode)
    path = tmp_path / "image.tiff"
    image.save(path)
    pixels = decode_image(path, OWN_SIZE, channels, "auto")
    assert pixels.shape == (4, 5, channels)
    assert pixels.dtype == np.uint8
    assert pixels.min() >= 254


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif", "tiff", "ppm"])
def test_the_usual_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.new("RGB", (6, 5), (200, 100, 50)).save(path)
    pixels = decode_image(path, OWN_SIZE, 3, "rgb")
    np.testing.assert_allclose(pixels.mean((0, 1)), (200, 100, 50), atol=4)


def test_bgr_turns_the_channels_and_grey_repeats_them(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (2, 2), (10, 20, 30)).save(path)
    assert decode_image(path, OWN_SIZE, 3, "bgr")[0, 0].tolist() == [30, 20, 10]
    assert decode_image(path, OWN_SIZE, 4, "bgr")[0, 0].tolist() == [30, 20, 10, 255]
    assert len(set(decode_image(path, OWN_SIZE, 3, "gray")[0, 0].tolist())) == 1


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (30, 10)).save(path, exif=exif)
    assert decode_image(path, OWN_SIZE, 3, "rgb").shape == (30, 10, 3)


def test_the_shorter_side_is_resized_then_the_centre_cropped(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 40:] = 255
    Image.fromarray(pixels).save(path)
    got = decode_image(path, Geometry(20, (16, 12)), 3, "rgb")
    assert got.shape == (16, 12, 3)
    assert (got[0, 0, 0], got[0, -1, 0]) == (0, 255)
    with pytest.raises(CalibrationError, match=r"20x40 pixels are fewer than the crop of 24x24"):
        decode_image(path, Geometry(20, (24, 24)), 3, "rgb")


@pytest.mark.parametrize(("size", "box"), [((40, 80), (10, 0, 30, 40)), ((80, 40), (0, 10, 40, 30))])
def test_a_letterbox_keeps_the_ratio_and_fills_with_grey(tmp_path: Path, size, box) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((*size, 3), 255, np.uint8)).save(path)
    got = decode_image(path, Geometry((40, 40), None, letterbox=True), 3, "rgb")
    wanted = np.full((40, 40, 3), 114, np.uint8)
    wanted[box[0] : box[2], box[1] : box[3]] = 255
    np.testing.assert_array_equal(got, wanted)
    assert decode_image(path, Geometry((40, 40), None, letterbox=True), 1, "gray").shape == (40, 40, 1)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    for name, content in [("cut.png", whole.read_bytes()[:900]), ("no.jpg", b"text"), ("none.bmp", b"")]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CalibrationError, match=rf"{name}: the image cannot be decoded"):
            decode_image(path, OWN_SIZE, 3, "rgb")


def test_a_size_of_images_for_a_model_that_takes_none_is_refused() -> None:
    words = r"input_size is given, but no input takes images \('x' .float32 .N, 12..\); leave it out"
    with pytest.raises(ConfigError, match=words):
        fit_to_model(Preprocessing(input_size=(8, 8)), [spec("N", 12)])
