from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_lapq.calibration import (
    InputSpec,
    Preprocessing,
    implausible_range,
    input_range,
    open_samples,
    subset,
    take,
)
from onnx_lapq.calibration.balancing import balanced_indices
from onnx_lapq.calibration.stored import StoredInput, StoredSamples
from onnx_lapq.errors import CalibrationError, ConfigError

INPUTS = [InputSpec("x", np.dtype(np.float32), ("N", 2))]


def numbered(count: int, labels: list[int] | None = None) -> StoredSamples:
    data = np.arange(count, dtype=np.float32)[:, None].repeat(2, axis=1)
    held = None if labels is None else np.array(labels, np.int64)
    return StoredSamples({"x": StoredInput(data)}, held, {"count": count})


def test_paths_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    cases = {"missing": "no such file or folder", "empty": "no files", "text": "2 .txt", "a.csv": "neither"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    for name in "ab":
        (tmp_path / "text" / f"{name}.txt").write_text("")
    (tmp_path / "a.csv").write_text("")
    for name, message in cases.items():
        with pytest.raises(CalibrationError, match=message):
            open_samples(tmp_path / name, INPUTS, Preprocessing())


def test_images_beside_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    np.save(tmp_path / "a.npy", np.zeros(2))
    with pytest.raises(CalibrationError, match="holds both images"):
        open_samples(tmp_path, INPUTS, Preprocessing())


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        open_samples(tmp_path, INPUTS, Preprocessing(), limit=0)


def test_a_subset_keeps_the_order_asked_for() -> None:
    samples = subset(numbered(9, labels=list(range(9))), [4, 5, 6, 2, 8, 8])
    assert samples.batch(1, 5)["x"][:, 0].tolist() == [5, 6, 2, 8]
    assert samples.batch(6, 9)["x"].shape == (0, 2)
    assert samples.labels is not None
    assert samples.labels.tolist() == [4, 5, 6, 2, 8, 8]
    assert samples.describe()["count"] == len(samples) == 6


def test_take_is_balanced_and_never_more_than_there_is() -> None:
    samples = numbered(8, labels=[0, 0, 0, 0, 0, 0, 1, 2])
    taken = take(samples, 4)
    assert taken.labels is not None
    assert np.bincount(taken.labels).tolist() == [2, 1, 1]
    assert take(samples, 8) is samples


def test_fewer_samples_than_classes_are_spread() -> None:
    picked = balanced_indices(np.arange(100), 100, 4)
    assert picked.tolist() == [12, 37, 62, 87]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 60))
def test_balanced_indices_are_fair(labels: list[int], count: int) -> None:
    values = np.array(labels, np.int64)
    picked = balanced_indices(values, len(labels), count)
    assert picked.size == min(count, len(labels))
    assert (np.diff(picked) > 0).all()
    sizes, got = np.bincount(values, minlength=6), np.bincount(values[picked], minlength=6)
    unexhausted = got[got < sizes]
    if unexhausted.size:
        assert got.max() - unexhausted.min() <= 1


def test_input_range_spans_the_batch() -> None:
    assert input_range({"x": np.array([[1.0, -2.0]]), "i": np.array([3])}) == {"x": (-2, 1), "i": (3, 3)}


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (-2.1, 2.6), (-124, 151), (0, 0.5)])
def test_ordinary_ranges_pass(low: float, high: float) -> None:
    assert implausible_range(low, high) is None


@pytest.mark.parametrize(
    ("low", "high", "hint"),
    [
        (0, 255, "not scaled"),
        (0, 0, "blank"),
        (-2.12, 1111, "beyond 0..255"),
        (-2.118, -2.101, "narrow"),
        (-1, 0, "none above 0"),
    ],
)
def test_odd_ranges_are_explained(low: float, high: float, hint: str) -> None:
    assert hint in (implausible_range(low, high) or "")
