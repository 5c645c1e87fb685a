import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_lapq.calibration import PRESETS, InputSpec, Preprocessing, Samples, open_samples
from onnx_lapq.errors import CalibrationError

IMAGE = InputSpec("pixels", np.dtype(np.float32), ("N", 3, 4, 5))
TABLE = InputSpec("table", np.dtype(np.float32), ("N", 6))
IDS = InputSpec("ids", np.dtype(np.int64), ("N", "length"))
RAW = Preprocessing(scale=1.0)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def read(path: Path, *inputs: InputSpec, preprocessing: Preprocessing = RAW, **options: Any) -> Samples:
    return open_samples(path, inputs, preprocessing, **options)


def test_an_npz_feeds_every_input_in_the_models_dtype(tmp_path: Path) -> None:
    path = save(
        tmp_path / "calib.npz",
        table=np.arange(18.0).reshape(3, 6),
        ids=np.ones((3, 7), np.int32),
        labels=np.array([2, 0, 1], np.uint8),
        unused=np.zeros(2),
    )
    samples = read(path, TABLE, IDS)
    feed = samples.batch(1, 3)
    assert {name: (array.dtype.name, array.shape) for name, array in feed.items()} == {
        "table": ("float32", (2, 6)),
        "ids": ("int64", (2, 7)),
    }
    assert samples.labels is not None
    assert (samples.labels.dtype.name, samples.labels.tolist()) == ("int64", [2, 0, 1])
    assert json.loads(json.dumps(samples.describe()))["count"] == 3


def test_a_single_input_takes_an_array_of_any_name(tmp_path: Path) -> None:
    path = save(tmp_path / "calib.npz", arr_0=np.zeros((4, 6), np.float32), labels=np.zeros(4, int))
    assert len(read(path, TABLE)) == 4


@pytest.mark.parametrize(("name", "is_told"), [("arr_0", False), ("table", False), ("labelsx", True)])
def test_an_array_of_another_name_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, is_told: bool
) -> None:
    path = save(tmp_path / "calib.npz", **{name: np.zeros((4, 6), np.float32)})
    assert len(read(path, TABLE)) == 4
    assert (f"array '{name}' is taken for input 'table'" in caplog.text) == is_told


def test_an_input_may_be_called_labels(tmp_path: Path) -> None:
    spec = InputSpec("labels", np.dtype(np.int64), ("N",))
    path = save(tmp_path / "calib.npz", labels=np.arange(4), table=np.zeros((4, 6), np.float32))
    samples = read(path, spec, TABLE)
    assert samples.labels is None
    assert samples.batch(0, 4)["labels"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "dtype", "shape"),
    [
        (np.array([[1], [0], [5]]), "int64", (3,)),
        (np.array([1.0, 0.0, 5.0]), "int64", (3,)),
        (np.array([True, False, True]), "int64", (3,)),
        (np.array([1.0, 0.0, 1.0]), "float32", (3,)),
        (np.array([[1, 0], [0, 0], [1, 1]]), "float32", (3, 2)),
        (np.full((3, 2, 4), 7), "int64", (3, 2, 4)),
        (np.array([[8, 0], [0, 3], [1, 1]]), "int64", (3, 2)),
        (np.array([[1, 0], [0, -100], [1, 1]]), "int64", (3, 2)),
        (np.array([[8.0, 0.0], [0.0, 3.0], [1.0, 1.0]]), "int64", (3, 2)),
    ],
)
def test_labels_take_the_form_of_a_loss(tmp_path: Path, labels: Any, dtype: str, shape: Any) -> None:
    got = read(save(tmp_path / "c.npz", table=np.zeros((3, 6)), labels=labels), TABLE).labels
    assert got is not None
    assert (got.dtype.name, got.shape) == (dtype, shape)


def test_files_whose_positions_have_low_classes_only_go_with_the_others(tmp_path: Path) -> None:
    for name, labels in (("a", [[0, 1]]), ("b", [[5, 2]])):
        save(tmp_path / f"{name}.npz", table=np.zeros((1, 6)), labels=np.array(labels))
    got = read(tmp_path, TABLE).labels
    assert got is not None
    assert (got.dtype.name, got.tolist()) == ("int64", [[0, 1], [5, 2]])


@pytest.mark.parametrize("labels", [np.array(["a", "b", "c"]), np.full((3, 2), 2.5)])
def test_labels_of_another_form_are_refused(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(CalibrationError, match=r"c\.npz, array 'labels'"):
        read(save(tmp_path / "c.npz", table=np.zeros((3, 6)), labels=labels), TABLE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 7), np.float32), r"shape \[2, 7\] does not fit input 'table' \(float32 \[N, 6\]\)"),
        (np.zeros((2, 2, 6), np.float32), r"shape \[2, 2, 6\] does not fit"),
        (np.full((2, 6), np.nan, np.float32), r"sample 0 holds NaN"),
        (np.array([[0.0] * 6, [1e300] * 6]), r"cast to float32: sample 1 holds NaN or infinity"),
        (np.zeros((2, 6), np.complex64), r"complex64 values cannot be cast"),
        (np.full((2, 6), 2**24 + 1), r"int64 values cannot be cast to the float32"),
        (np.zeros((0, 6), np.float32), r"hold no samples"),
        (np.array([[None] * 6]), r"pickled Python objects"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read(save(tmp_path / "calib.npz", table=array), TABLE)


def test_floats_are_not_cut_to_integers(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="float64 values cannot be cast to the int64"):
        read(save(tmp_path / "calib.npz", ids=np.zeros((2, 3))), IDS)


def test_inputs_must_be_there_and_of_one_length(tmp_path: Path) -> None:
    path = save(tmp_path / "calib.npz", table=np.zeros((2, 6)), ids=np.zeros((3, 2), int))
    with pytest.raises(CalibrationError, match=r"\('table' 2, 'ids' 3\)"):
        read(path, TABLE, IDS)
    with pytest.raises(CalibrationError, match=r"no array for input 'pixels' \(there is 'table', 'ids'\)"):
        read(path, TABLE, IMAGE)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 5, 3), (4, 5, 3), (3, 4, 5)])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_uint8_images_of_any_layout_are_preprocessed(tmp_path: Path, shape: Any, layout: str) -> None:
    hwc = np.random.default_rng(0).integers(0, 256, (2 if len(shape) == 4 else 1, 4, 5, 3), np.uint8)
    stored = hwc if shape[-1] == 3 else np.moveaxis(hwc, -1, 1)
    dims = (3, 4, 5) if layout == "nchw" else (4, 5, 3)
    spec = InputSpec("x", np.dtype(np.float32), ("N", *dims))
    path = save(tmp_path / "calib.npz", x=stored if len(shape) == 4 else stored[0])
    got = read(path, spec, preprocessing=Preprocessing()).batch(0, 9)["x"]
    wanted = np.moveaxis(hwc, -1, 1) if layout == "nchw" else hwc
    np.testing.assert_allclose(got, wanted / 255, atol=1e-6)


def test_uint8_images_are_turned_to_bgr(tmp_path: Path) -> None:
    pixels = np.zeros((1, 4, 5, 3), np.uint8)
    pixels[..., 0] = 200
    got = read(save(tmp_path / "c.npz", x=pixels), IMAGE, preprocessing=PRESETS["caffe"]).batch(0, 1)
    np.testing.assert_allclose(got["pixels"][0, :, 0, 0], [-103.939, -116.779, 200 - 123.68], atol=1e-4)


@pytest.mark.parametrize("dims", [(1, 4, 5), (4, 5, 1), (4, 5)])
def test_a_stack_of_grey_images_is_taken(tmp_path: Path, dims: Any) -> None:
    spec = InputSpec("x", np.dtype(np.float32), ("N", *dims))
    np.save(tmp_path / "grey.npy", np.full((7, 4, 5), 9, np.uint8))
    got = read(tmp_path / "grey.npy", spec).batch(0, 7)["x"]
    assert got.shape == (7, *dims)
    assert (got == 9).all()


def test_uint8_images_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="uint8 images of shape"):
        read(save(tmp_path / "c.npz", x=np.zeros((2, 8, 8, 3), np.uint8)), IMAGE)


def test_uint8_that_is_no_image_is_fed_as_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "c.npz", table=np.full((2, 6), 200, np.uint8))
    assert read(path, TABLE, preprocessing=Preprocessing()).batch(0, 1)["table"].max() == 200


def test_a_folder_of_npy_holds_one_sample_each(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        np.save(tmp_path / f"{index}.npy", np.full((6,) if index else (1, 6), index, np.float32))
    (tmp_path / "notes.txt").write_text("")
    seen: list[tuple[int, int]] = []
    samples = read(tmp_path, TABLE, progress=lambda *done: seen.append(done))
    assert samples.batch(0, 3)["table"][:, 0].tolist() == [0, 1, 2]
    assert seen[-1] == (3, 3)


def test_a_folder_of_npy_takes_labels_from_folders_or_csv(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.zeros(6, np.float32))
    assert read(tmp_path, TABLE).describe()["class_names"] == ["a", "b"]
    (tmp_path / "labels.csv").write_text("a/0.npy,7\nb/0.npy,8\n")
    labels = read(tmp_path, TABLE).labels
    assert labels is not None
    assert labels.tolist() == [7, 8]


def test_a_folder_of_npz_holds_batches(tmp_path: Path) -> None:
    save(tmp_path / "1.npz", table=np.zeros((2, 6)), ids=np.zeros((2, 3), int), labels=[4, 5])
    save(tmp_path / "2.npz", table=np.ones(6), ids=np.zeros(3, int), labels=6)
    samples = read(tmp_path, TABLE, IDS)
    assert len(samples) == 3
    assert samples.labels is not None
    assert samples.labels.tolist() == [4, 5, 6]


def test_samples_of_one_shape_are_fed_together(tmp_path: Path) -> None:
    for name, length in (("a", 4), ("b", 3), ("c", 4)):
        np.savez(tmp_path / f"{name}.npz", ids=np.full(length, ord(name)), labels=ord(name))
    samples = read(tmp_path, IDS)
    assert samples.groups == (1, 2)
    assert samples.batch(0, 1)["ids"].tolist() == [[ord("b")] * 3]
    assert samples.batch(1, 3)["ids"].tolist() == [[ord("a")] * 4, [ord("c")] * 4]
    assert samples.labels is not None
    assert bytes(samples.labels.tolist()) == b"bac"
    assert samples.describe()["inputs"]["ids"]["shape"] == [3, None]
    assert len(read(tmp_path, IDS, limit=2)) == 2


def test_samples_of_different_type_are_refused(tmp_path: Path) -> None:
    spec = InputSpec("pixels", np.dtype(np.float32), ("N", 3, "h", "w"))
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(CalibrationError, match=r"b\.npy: .* is uint8, but float32 in .*a\.npy"):
        read(tmp_path, spec, preprocessing=Preprocessing())


def test_limit_opens_no_more_files_than_needed(tmp_path: Path) -> None:
    for index in range(5):
        np.save(tmp_path / f"{index}.npy", np.full(6, index, np.float32))
    (tmp_path / "0.npy").write_bytes(b"")
    samples = read(tmp_path, TABLE, limit=1)
    assert samples.batch(0, 1)["table"][0, 0] == 2
    assert samples.describe()["found"] == 5


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"not an array", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError, match=name):
        read(tmp_path / name, TABLE)


def test_an_npy_of_objects_or_without_samples_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[None] * 6]), allow_pickle=True)
    with pytest.raises(CalibrationError, match=r"objects\.npy: holds pickled Python objects"):
        read(tmp_path / "objects.npy", TABLE)
    np.save(tmp_path / "empty.npy", np.zeros((0, 6), np.float32))
    with pytest.raises(CalibrationError, match=r"empty\.npy: the arrays hold no samples"):
        read(tmp_path / "empty.npy", TABLE)


def test_an_npy_named_npz_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 6)))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(CalibrationError, match=r"a\.npz: cannot be read"):
        read(tmp_path / "a.npz", TABLE)
