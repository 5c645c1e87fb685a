import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnx_lapq.calibration import InputSpec, Preprocessing, Samples, open_samples
from onnx_lapq.errors import CalibrationError, ConfigError

MODEL = InputSpec("pixels", np.dtype(np.float32), ("N", 3, 8, 8))
ANY_SIZE = InputSpec("pixels", np.dtype(np.float32), ("N", 3, "h", "w"))


def picture(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def read(path: Path, spec: InputSpec = MODEL, **options: Any) -> Samples:
    limit = options.pop("limit", None)
    return open_samples(path, [spec], Preprocessing(**options), limit)


def test_a_flat_folder_has_no_labels_and_is_sorted(tmp_path: Path) -> None:
    for name, value in [("b.JPG", 20), ("a.png", 10), ("ö.WebP", 30), ("B.Jpeg", 0)]:
        picture(tmp_path / name, value)
    samples = read(tmp_path, scale=1.0)
    assert samples.labels is None
    feed = samples.batch(0, 10)["pixels"]
    np.testing.assert_allclose(feed[:, 0, 0, 0], [0, 10, 20, 30], atol=2)
    assert feed.shape == (4, 3, 8, 8)
    assert samples.batch(1, 3)["pixels"].flags.c_contiguous


def test_class_folders_give_labels_at_any_depth(tmp_path: Path) -> None:
    for name in ["cat/1.png", "cat/deep/er/2.png", "ant/3.png"]:
        picture(tmp_path / name)
    samples = read(tmp_path)
    assert samples.labels is not None
    assert samples.labels.dtype == np.int64
    assert samples.labels.tolist() == [0, 1, 1]
    assert samples.describe()["class_names"] == ["ant", "cat"]
    assert samples.describe()["labels"] == "sub-folders"


@pytest.mark.parametrize(
    "names", [["cat/1.png", "2.png", "ant/3.png"], ["images/1.png"], ["train/1.png", "val/2.png"]]
)
def test_folders_that_are_not_classes_give_no_labels(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        picture(tmp_path / name)
    assert read(tmp_path).labels is None


def test_an_empty_class_folder_keeps_its_index(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    picture(tmp_path / "c" / "1.png")
    labels = read(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [0, 2]


def test_numbered_folders_out_of_order_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("2", "10"):
        picture(tmp_path / name / "1.png")
    labels = read(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [0, 1]
    assert "folder '10' is class 0" in caplog.text


def test_what_is_no_image_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "a.png")
    for name in [".DS_Store", "Thumbs.db", "README.md", "._a.png", "__MACOSX/a.png", ".cache/b.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with caplog.at_level(logging.INFO):
        samples = read(tmp_path)
    assert len(samples) == 1
    assert "skipped 2 other files" in caplog.text


def test_loops_of_links_end(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(read(tmp_path)) == 1


def test_linked_files_and_folders_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "store" / "1.png")
    folder = tmp_path / "calib"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "store" / "1.png")
    (folder / "all").symlink_to(tmp_path / "store", target_is_directory=True)
    assert len(read(folder)) == 2


def test_limit_is_even_over_classes_and_repeatable(tmp_path: Path) -> None:
    for label, count in (("a", 10), ("b", 2), ("c", 10)):
        for index in range(count):
            picture(tmp_path / label / f"{index}.png", index)
    samples = read(tmp_path, limit=8)
    assert samples.labels is not None
    assert np.bincount(samples.labels).tolist() == [3, 2, 3]
    again = read(tmp_path, limit=8).batch(0, 8)["pixels"]
    np.testing.assert_array_equal(samples.batch(0, 8)["pixels"], again)


def test_limit_spares_the_other_files(tmp_path: Path) -> None:
    for index in range(3):
        picture(tmp_path / f"{index}.png")
    (tmp_path / "0.png").write_bytes(b"damaged")
    assert len(read(tmp_path, limit=1)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "a.png,3\nb.png,1\n",
        "file,label\nb.png,1\na.png,3\nelsewhere.png,9\n",
        "\ufefffile;label\r\n./a.png;3\r\n\r\nb.png;1\r\n",
        'name\tclass\nfolder\\a.png\t3\n"b.png"\t1\n'.replace("folder\\", ".\\"),
    ],
)
def test_labels_csv_gives_labels(tmp_path: Path, text: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
    labels = read(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [3, 1]


def test_labels_csv_overrides_folders_and_knows_their_names(tmp_path: Path) -> None:
    picture(tmp_path / "ant" / "1.png")
    picture(tmp_path / "cat" / "2.png")
    (tmp_path / "Labels.CSV").write_text("1.png,cat\ncat/2.png,0\n")
    samples = read(tmp_path)
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]
    assert samples.describe()["labels"] == "labels.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1\n", r"no row for 'b.png' \(1 of 2 files"),
        ("a.png,1\nb.png,zebra\n", r"label 'zebra' in line 2"),
        ("a.png,1\nb.png,2\na.png,3\n", r"line 3 gives 'a.png' a second label"),
        ("a.png\n", r"line 1 is not of the form file,label"),
        ("", r"no row for 'a.png'"),
    ],
)
def test_bad_labels_csv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(CalibrationError, match=message):
        read(tmp_path)


def test_images_of_another_size_are_resized_to_the_model(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(31, 17))
    samples = read(tmp_path)
    assert samples.batch(0, 1)["pixels"].shape == (1, 3, 8, 8)
    assert samples.describe()["preprocessing"]["resize"] == (8, 8)


def test_a_model_without_size_takes_the_size_of_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(20, 10))
    assert read(tmp_path, ANY_SIZE).batch(0, 1)["pixels"].shape == (1, 3, 10, 20)
    picture(tmp_path / "b.png", size=(20, 11))
    with pytest.raises(CalibrationError, match=r"b\.png: 11x20 pixels, but a\.png .* --input-size 10x20"):
        read(tmp_path, ANY_SIZE)
    for size in ({"resize": (4, 4)}, {"input_size": (4, 4)}, {"input_size": (4, 4), "resize": 5}):
        assert read(tmp_path, ANY_SIZE, **size).batch(0, 2)["pixels"].shape == (2, 3, 4, 4)
    with pytest.raises(ConfigError, match=r"input_size is 4x4, but the model's input is 8x8"):
        read(tmp_path, MODEL, input_size=(4, 4))


def test_a_half_fixed_size_must_be_met(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(20, 10))
    spec = InputSpec("x", np.dtype(np.float32), ("N", 1, 12, "w"))
    with pytest.raises(CalibrationError, match=r"10x20 pixels, but input 'x' takes 12xany"):
        read(tmp_path, spec)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "bomb.png", size=(100, 100))
    for limit in (9_000, 1_000):  # Pillow warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(CalibrationError, match=r"bomb\.png: the image has more pixels"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("shape", "resize"), [(("N", 3, 8, 1025), None), (("N", 3, 1025, 1025), "letterbox:1025")]
)
def test_a_picture_is_not_enlarged_beyond_reason(
    tmp_path: Path, shape: tuple[int | str, ...], resize: str | None
) -> None:
    picture(tmp_path / "tiny.png", size=(4, 4))
    spec = InputSpec("x", np.dtype(np.float32), shape)
    message = r"tiny\.png: 4x4 pixels would become \d+x1025, a side more than 256 times"
    with pytest.raises(CalibrationError, match=message):
        read(tmp_path, spec, resize=resize)


def test_a_letterbox_may_be_far_wider_than_its_picture(tmp_path: Path) -> None:
    picture(tmp_path / "tiny.png", size=(4, 4))
    spec = InputSpec("x", np.dtype(np.float32), ("N", 3, 8, 1025))
    assert read(tmp_path, spec, resize="letterbox:8x1025").batch(0, 1)["x"].shape == (1, 3, 8, 1025)


@pytest.mark.parametrize("resize", [None, "letterbox:80x90"])
def test_what_is_larger_than_pillow_takes_is_not_resized_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: str | None
) -> None:
    picture(tmp_path / "a.png", size=(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7000)
    spec = InputSpec("x", np.dtype(np.float32), ("N", 3, 80, 90))
    with pytest.raises(CalibrationError, match=r"a\.png: 80x90 pixels after resizing are more than Pillow's"):
        read(tmp_path, spec, resize=resize)


def test_the_first_damaged_image_is_named(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    for name in "bd":
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(CalibrationError, match=r"b\.png: the image cannot be decoded"):
        read(tmp_path)


def test_models_that_take_no_image_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    table = InputSpec("table", np.dtype(np.float32), ("N", 12))
    with pytest.raises(CalibrationError, match=r"'table' .* does not look like an image"):
        read(tmp_path, table)
    with pytest.raises(CalibrationError, match=r"has 2 \('pixels', 'table'\)"):
        open_samples(tmp_path, [MODEL, table], Preprocessing())


def test_progress_and_record(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    seen: list[tuple[int, int]] = []
    samples = open_samples(tmp_path, [MODEL], Preprocessing(), progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    record = samples.describe()
    assert json.loads(json.dumps(record))["count"] == 3
    assert record["preprocessing"]["scale"] == 1 / 255
