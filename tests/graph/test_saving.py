"""Models beside which tensors lie in files of their own."""

import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import feeds, residual

from onnx_lapq.errors import ModelError, OutputError
from onnx_lapq.graph import saving
from onnx_lapq.graph.external import bytes_on_disk
from onnx_lapq.graph.loading import load
from onnx_lapq.graph.saving import describe_model, write_model
from onnx_lapq.runtime.session import open_file, run


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(saving, "_PROTOBUF_LIMIT", 100)


def outputs(path):
    return run(open_file(path), feeds(residual(), 4))[0]


def test_a_model_above_the_limit_has_its_tensors_beside_it(tmp_path, small_limit):
    onnx.save(residual(), tmp_path / "float.onnx")
    write_model(tmp_path / "out.onnx", load(tmp_path / "float.onnx"))
    assert {path.name for path in tmp_path.iterdir()} == {"float.onnx", "out.onnx", "out.onnx.data"}
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(tmp_path / "float.onnx"))
    parts = [(tmp_path / name).stat() for name in ("out.onnx", "out.onnx.data")]
    assert bytes_on_disk(tmp_path / "out.onnx") == sum(part.st_size for part in parts)
    assert len({part.st_mode for part in parts}) == 1


def test_external_tensors_of_the_input_are_written_inside_where_they_fit(tmp_path):
    onnx.save(residual(), tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    write_model(tmp_path / "b.onnx", load(tmp_path / "a.onnx"))
    before = outputs(tmp_path / "a.onnx")
    (tmp_path / "a.bin").unlink()
    np.testing.assert_array_equal(outputs(tmp_path / "b.onnx"), before)


def test_a_failed_write_leaves_nothing_behind(tmp_path, small_limit, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ir, "save", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_model(tmp_path / "out.onnx", ir.from_proto(residual()))
    assert not list(tmp_path.iterdir())


def test_a_model_in_a_cache_of_links_is_read_and_its_data_once_copied(tmp_path):
    """Hugging Face keeps files by their hash, and folders of links to them."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    for path in (blobs, folder):
        path.mkdir(parents=True)
    onnx.save(residual(), blobs / "0")
    (folder / "model.onnx").symlink_to("../../blobs/0")
    assert describe_model(folder / "model.onnx").bytes == (blobs / "0").stat().st_size
    expected = len(load(folder / "model.onnx").graph)
    onnx.save(residual(), blobs / "1", save_as_external_data=True, location="2", size_threshold=0)
    proto = onnx.load(blobs / "1", load_external_data=False)
    for entry in (entry for tensor in proto.graph.initializer for entry in tensor.external_data):
        entry.value = "model.onnx_data" if entry.key == "location" else entry.value
    (blobs / "1").write_bytes(proto.SerializeToString())
    (folder / "large.onnx").symlink_to("../../blobs/1")
    (folder / "model.onnx_data").symlink_to("../../blobs/2")
    with pytest.raises(ModelError, match=r"is a link out of the model's folder.*cp -rL"):
        load(folder / "large.onnx")
    shutil.copytree(folder, tmp_path / "copy")
    assert len(load(tmp_path / "copy" / "large.onnx").graph) == expected
