"""What is put aside comes back as it was, from memory or from disk."""

import errno
import tempfile

import numpy as np
import pytest

from onnx_lapq.common.scratch import Scratch
from onnx_lapq.errors import RunError

ARRAYS = [np.arange(6, dtype=np.uint8).reshape(2, 3), np.full((5,), 0.1, np.float32), np.empty((0, 2))]


@pytest.mark.parametrize("budget", [0, 10, 1000])
def test_arrays_come_back_in_order_and_as_they_were(budget):
    shelf = Scratch(budget).shelf()
    for array in ARRAYS:
        shelf.append(array)
    for array, found in zip(ARRAYS, shelf, strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_what_is_beyond_the_budget_lies_on_disk_until_there_is_room_again():
    scratch = Scratch(8)
    first, second = scratch.shelf(), scratch.shelf()
    first.append(ARRAYS[0])
    second.append(ARRAYS[1])
    assert not isinstance(first[0], np.memmap)
    assert isinstance(second[0], np.memmap)
    first.clear()
    third = scratch.shelf()
    third.append(ARRAYS[0])
    assert not isinstance(third[0], np.memmap)


def test_no_file_is_left_to_see(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shelf = Scratch(0).shelf()
    shelf.append(ARRAYS[0])
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(shelf[0], ARRAYS[0])


def test_a_full_disk_is_one_sentence(monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(RunError, match=r"No space left on device.*TMPDIR") as caught:
        Scratch(0).shelf().append(ARRAYS[0])
    assert "\n" not in str(caught.value)
