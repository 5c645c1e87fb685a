import errno
import os
import time

import pytest

from onnx_lapq.common.whole_files import check_writable, write_whole, writing_beside
from onnx_lapq.errors import ModelError, OutputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_check_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def refuse(path):
        assert path.read_bytes() == b"new"
        raise ModelError("it computes something else")

    with pytest.raises(ModelError, match="something else"):
        write_whole(tmp_path / "a", b"new", refuse)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("gone/a", "no such folder"),
        ("", "is a folder"),
        ("x" * 300, "cannot be written"),
        ("pipe", "or pipe"),
    ],
)
def test_what_cannot_be_written_is_refused_beforehand(tmp_path, output, words):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=words):
        check_writable(tmp_path / output)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "; free some space or choose another path"), (errno.EPERM, "; choose another path")],
)
def test_space_is_asked_for_where_there_is_none(tmp_path, number, advice):
    with pytest.raises(OutputError) as raised, writing_beside(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert str(raised.value) == f"{tmp_path / 'a'}: cannot be written ({os.strerror(number)}){advice}"


def test_what_killed_writes_left_does_not_pile_up(tmp_path):
    stale, fresh, other = (
        tmp_path / f".{name}.{digit * 32}" for name, digit in (("a", "0"), ("a", "1"), ("b", "2"))
    )
    for path in (stale, fresh, other):
        path.write_bytes(b"half")
    for path in (stale, other):
        os.utime(path, (time.time() - 3600,) * 2)
    write_whole(tmp_path / "a", b"whole")
    assert names(tmp_path) == [fresh.name, other.name, "a"]
