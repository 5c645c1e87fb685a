"""What a run leaves behind when the disk, the folder or the state file fails it."""

import os
import shutil
import subprocess
import time
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from image_folders import write_images
from small_models import residual

from onnx_lapq import QuantizationConfig, quantize
from onnx_lapq.errors import ConfigError, OutputError
from onnx_lapq.graph import saving
from onnx_lapq.graph.saving import write_model
from onnx_lapq.stages.state_file import StateFile, state_path

CONFIG = QuantizationConfig(
    weight_bits=4, activation_bits=4, p_values=(2.0, 3.0, 4.0), max_evaluations=4, equalize=False
)


@pytest.fixture(scope="module")
def calib(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("samples") / "calib")


@pytest.fixture(scope="module")
def result(calib):
    return quantize(residual(), calib, CONFIG)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 kB, where the system lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=16k", "tmpfs"]
    if (
        mount is None
        or subprocess.run([mount, *options, folder], capture_output=True, check=False).returncode
    ):
        pytest.skip("no disk can be mounted")
    yield folder
    subprocess.run(["umount", folder], check=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_leaves_the_old_output_and_nothing_else(small_disk, result):
    (small_disk / "out.onnx").write_bytes(b"old")
    (small_disk / "filler").write_bytes(bytes(8192))
    with pytest.raises(OutputError, match="No space left"):
        result.save(small_disk / "out.onnx")
    assert (small_disk / "out.onnx").read_bytes() == b"old"
    assert names(small_disk) == ["filler", "out.onnx"]


def test_a_disk_that_fills_up_during_the_run_ends_it_in_a_sentence(small_disk, calib):
    (small_disk / "filler").write_bytes(bytes(12288))
    with pytest.raises(OutputError, match=r"out\.onnx\.state: cannot be written \(No space left"):
        quantize(residual(), calib, CONFIG, state=state_path(small_disk / "out.onnx"))
    assert names(small_disk) == ["filler"]


def test_a_read_only_disk_is_refused(small_disk, result):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OutputError, match="is not writable"):
        result.save(small_disk / "out.onnx")


def test_the_old_output_stays_until_the_new_one_is_whole(tmp_path, result, monkeypatch):
    (tmp_path / "out.onnx").write_bytes(b"old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((tmp_path / "out.onnx").read_bytes()))
    result.save(tmp_path / "out.onnx")
    assert seen[0] == b"old"
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))


def test_an_output_folder_removed_during_the_run_ends_it_in_a_sentence(tmp_path, calib):
    folder = tmp_path / "out"
    folder.mkdir()

    def remove(progress):
        if progress.phase == "rounding":
            shutil.rmtree(folder, ignore_errors=True)

    with pytest.raises(OutputError, match=r"out\.onnx\.state: cannot be written \(No such file"):
        quantize(residual(), calib, CONFIG, observer=remove, state=state_path(folder / "out.onnx"))
    assert not folder.exists()


def test_what_killed_writes_of_large_models_left_does_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "_PROTOBUF_LIMIT", 100)
    stale = tmp_path / f".a.{'0' * 32}"
    stale.mkdir()
    (stale / "a.data").write_bytes(b"half")
    os.utime(stale, (time.time() - 3600,) * 2)
    write_model(tmp_path / "a", ir.from_proto(residual()))
    assert names(tmp_path) == ["a", "a.data"]


def strange_compression(path):
    content = bytearray(path.read_bytes())
    for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + method] = 99
    path.write_bytes(content)


def damaged_deflate(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("record.npy", bytes(1000))
    content = bytearray(path.read_bytes())
    content[40:46] = b"\xff" * 6
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [strange_compression, damaged_deflate])
def test_a_state_that_no_zip_reader_takes_is_refused(tmp_path, damage):
    path = tmp_path / "out.onnx.state"
    np.savez(path.with_suffix(".npz"), record=np.zeros(4, np.uint8))
    path.with_suffix(".npz").rename(path)
    damage(path)
    with pytest.raises(ConfigError, match="cannot be read as a saved state"):
        StateFile(path, {}).load()


def test_a_state_with_one_bit_changed_is_refused(tmp_path, calib):
    path = tmp_path / "out.onnx.state"
    quantize(residual(), calib, CONFIG, state=path)
    content = bytearray(path.read_bytes())
    for at in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ConfigError, match="cannot be read as a saved state"):
            quantize(residual(), calib, replace(CONFIG, resume=True), state=path)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, calib, result):
    result.save(tmp_path / "out.onnx")
    for workers in (1, 2, 3):
        quantize(residual(), calib, replace(CONFIG, workers=workers)).save(tmp_path / f"{workers}.onnx")
    written = {path.name: path.read_bytes() for path in tmp_path.glob("*.onnx")}
    assert len(written) == 4
    assert len(set(written.values())) == 1
