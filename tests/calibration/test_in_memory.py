"""Samples that a program holds, in every form that it may hold them in."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_lapq.calibration import InputSpec, Preprocessing, open_samples
from onnx_lapq.errors import CalibrationError

IMAGE = InputSpec("image", np.dtype(np.float32), ("N", 3, 4, 4))
USER = InputSpec("user", np.dtype(np.int64), ("N",))
ITEM = InputSpec("item", np.dtype(np.int64), ("N",))
VALUES = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)
CLASSES = np.array([0, 1, 2, 0, 1, 2])


class Tensor:
    """What a framework hands out: numpy can read it, but it is no array of numpy's."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values if dtype is None else self.values.astype(dtype)

    @property
    def ndim(self) -> int:
        return self.values.ndim


class Reader:
    """What onnxruntime's quantize_static is calibrated with."""

    def __init__(self) -> None:
        self._left = iter({"image": value[None]} for value in VALUES)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def read(source: Any, *inputs: InputSpec, **options: Any) -> Any:
    return open_samples(source, inputs or [IMAGE], Preprocessing(), **options)


WITHOUT_LABELS = {
    "an array": VALUES,
    "a framework's tensor": Tensor(VALUES),
    "arrays by input": {"image": VALUES},
    "samples": list(VALUES),
    "a generator": (value for value in VALUES),
    "samples of one batch row": [value[None] for value in VALUES],
    "batches": [VALUES[:4], VALUES[4:]],
    "nested lists": VALUES.tolist(),
    "tuples of one": [(Tensor(value),) for value in VALUES],
    "mappings": [{"image": Tensor(value)} for value in VALUES],
    "mappings with other columns": [{"text": "a cat", "image": value} for value in VALUES],
    "a data reader": Reader(),
}


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_samples_without_labels(name: str) -> None:
    samples = read(WITHOUT_LABELS[name])
    np.testing.assert_array_equal(samples.batch(0, 6)["image"], VALUES)
    assert samples.labels is None


WITH_LABELS = {
    "arrays by input": {"image": VALUES, "labels": CLASSES},
    "pairs": list(zip(VALUES, CLASSES, strict=True)),
    "pairs of a list": [(value, int(label)) for value, label in zip(VALUES.tolist(), CLASSES, strict=True)],
    "collated pairs": [[Tensor(VALUES[:4]), Tensor(CLASSES[:4])], [Tensor(VALUES[4:]), Tensor(CLASSES[4:])]],
    "a mapping and a label": [
        ({"image": value}, label) for value, label in zip(VALUES, CLASSES, strict=True)
    ],
    "mappings": [{"pixels": v.tolist(), "label": int(c)} for v, c in zip(VALUES, CLASSES, strict=True)],
    "batched mappings": [
        {"image": VALUES[:2], "labels": CLASSES[:2]},
        {"image": VALUES[2:], "labels": CLASSES[2:]},
    ],
}


@pytest.mark.parametrize("name", WITH_LABELS)
def test_samples_with_labels(name: str) -> None:
    samples = read(WITH_LABELS[name])
    np.testing.assert_array_equal(samples.batch(0, 6)["image"], VALUES)
    np.testing.assert_array_equal(samples.labels, CLASSES)
    assert samples.labels.dtype == np.int64


SEVERAL = {
    "arrays by input": {"user": np.arange(4), "item": np.arange(4, 8), "labels": np.array([0.0, 1, 0, 1])},
    "tuples": [(i, i + 4, float(i % 2)) for i in range(4)],
    "mappings": [{"user": i, "item": i + 4, "label": float(i % 2)} for i in range(4)],
    "a tuple and a label": [((i, i + 4), float(i % 2)) for i in range(4)],
    "collated tuples": [
        [Tensor([0, 1]), Tensor([4, 5]), Tensor([0.0, 1.0])],
        [Tensor([2, 3]), Tensor([6, 7]), Tensor([0.0, 1.0])],
    ],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_inputs(name: str) -> None:
    samples = read(SEVERAL[name], USER, ITEM)
    batch = samples.batch(0, 4)
    assert batch["user"].tolist() == [0, 1, 2, 3]
    assert batch["item"].tolist() == [4, 5, 6, 7]
    assert batch["user"].dtype == np.int64
    assert samples.labels.tolist() == [0, 1, 0, 1]
    assert samples.labels.dtype == np.float32


def test_pillow_images_are_brought_to_the_models_size() -> None:
    images = [Image.new("L", (9, 7), color) for color in (0, 255)]
    samples = read([{"image": image, "label": index} for index, image in enumerate(images)])
    np.testing.assert_array_equal(samples.batch(0, 2)["image"][:, :, 0, 0], [[0, 0, 0], [1, 1, 1]])


def test_an_iterable_is_read_no_further_than_the_limit() -> None:
    def endless() -> Any:
        while True:
            yield VALUES[:4], CLASSES[:4]

    samples = read(endless(), limit=6)
    assert len(samples) == len(samples.labels) == 6


def test_a_limit_on_arrays_is_even_over_the_classes() -> None:
    samples = read({"image": VALUES, "labels": CLASSES}, limit=3)
    assert sorted(samples.labels) == [0, 1, 2]


class OnAnotherDevice:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "is empty"),
        (7, "int, which holds none"),
        ([OnAnotherDevice()], "sample 0: numpy cannot make an array of it .TypeError: can't convert cuda:0"),
        ([VALUES[0], VALUES[0, :2]], r"sample 1, array 'image': shape \[2, 4, 4\] does not fit"),
        ([(VALUES[0], 1), VALUES[1]], "some calibration samples have a label"),
        ([(VALUES, [1, 2])], "2 labels for 6 samples"),
        ([(VALUES[0], 1, 2)], r"3 values for 1 inputs \(image\)"),
        ([{"pixels": VALUES[0], "mask": VALUES[0]}], "no array for input 'image'"),
        ({"pixels": VALUES, "mask": VALUES}, "no array for input 'image'"),
        ([np.full((3, 4, 4), np.nan)], "NaN or infinity"),
        ({"image": [np.zeros((3, 4, 4)), np.zeros((3, 5, 4))]}, "differ in shape; give a list with one item"),
    ],
)
def test_samples_that_do_not_fit_are_refused(source: Any, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        read(source)


def test_arrays_of_arrays_and_labels_of_several_shapes_are_refused() -> None:
    arrays = np.empty(6, object)
    arrays[:] = list(VALUES)
    with pytest.raises(CalibrationError, match=r"an array of arrays, .*; give a list with one item for each"):
        read(arrays)
    with pytest.raises(CalibrationError, match="the labels of the calibration samples differ in shape"):
        read([(VALUES[0], [0.5, 0.5]), (VALUES[1], [0.5, 0.2, 0.3])])


def test_labels_of_another_number_than_the_samples_are_not_put_down_to_an_axis() -> None:
    with pytest.raises(CalibrationError, match=r"'image' 6, 'labels' 5\); make them equal$"):
        read({"image": VALUES, "labels": CLASSES[:5]})
    with pytest.raises(CalibrationError, match="or give the right axis of the samples with --batch-axis"):
        read({"user": CLASSES, "item": CLASSES[:5]}, USER, ITEM)
