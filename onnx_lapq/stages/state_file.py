"""What an unfinished run has found, on disk: ``--resume`` goes on from it.

The file is an ``.npz`` with its SHA-256 behind it. The array ``record`` holds JSON: the format, what the run
belongs to, and `Found`, whose arrays are replaced by the names of the other arrays of the file.
"""

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.calibration.hashing import hash_samples
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.common.versions import library_version
from onnx_lapq.common.whole_files import check_writable, write_whole
from onnx_lapq.errors import ConfigError, OutputError
from onnx_lapq.runtime.session import detach
from onnx_lapq.stages.found import Found

__all__ = ["Identity", "StateFile", "identify", "refuse_foreign", "state_path"]

logger = logging.getLogger(__name__)

Identity = Mapping[str, str]
"""What a state belongs to: a name for a person, and its hash, version or value."""

_FORMAT = 8
_RECORD = "record"
_SEAL = hashlib.sha256().digest_size
_CAPS = ("max_evaluations", "max_minutes")
"""Options that a resumed run may have of its own: they say how far to go, not where to."""


def state_path(output: Path) -> Path:
    """Where the state of a run lies until it has ended: beside the model."""
    return output.with_name(output.name + ".state")


def identify(model: ir.Model, samples: Samples, options: Mapping[str, Any]) -> Identity:
    """What decides the result of a run: a state of one run is no use to another.

    Args:
        model: The prepared float model.
        samples: The calibration set.
        options: Those that decide what is written.
    """
    return {
        "version of onnx-lapq": __version__,
        **{f"version of {name}": library_version(name) for name in ("onnxruntime", "numpy", "scipy")},
        "model": _hash_model(model),
        "set of samples": hash_samples(samples),
        **{f"option {name}": json.dumps(value) for name, value in options.items() if name not in _CAPS},
    }


class StateFile:
    """The state file of one run.

    Args:
        path: The file; None keeps nothing.
        identity: What the run belongs to.
    """

    def __init__(self, path: Path | None, identity: Identity) -> None:
        self._path = path
        self._identity = dict(identity)

    def load(self) -> Found:
        """What was saved last; nothing found yet, where there is no file.

        Raises:
            ConfigError: It cannot be read, or belongs to a run of another model, data, options or version.
        """
        if self._path is None:
            raise ConfigError("resume is set, but there is no state file to go on from; name one")
        if not self._path.exists():
            logger.warning("%s: there is no saved state; the run starts from its beginning", self._path)
            return Found()
        try:
            arrays = dict(np.load(io.BytesIO(_unsealed(self._path.read_bytes())), allow_pickle=False))
            record = json.loads(arrays.pop(_RECORD).tobytes())
            if record["format"] == _FORMAT:
                self._check(record["identity"])
                return msgspec.convert(record["found"], Found, dec_hook=lambda kind, key: arrays[key])
        except ConfigError:
            raise
        except Exception as error:  # a damaged file leads zipfile, zlib and numpy to raise nearly anything
            logger.debug("%s", error)
        raise ConfigError(
            f"{self._path}: cannot be read as a saved state; move it away and run without --resume"
        )

    def save(self, found: Found) -> None:
        """Replace the file by what is found now, whole.

        Raises:
            OutputError: It cannot be written.
        """
        if self._path is None:
            return
        arrays: dict[str, Any] = {}

        def key(array: np.ndarray) -> str:
            name = f"array{len(arrays)}"
            arrays[name] = array
            return name

        plain = msgspec.to_builtins(found, enc_hook=key)
        text = json.dumps({"format": _FORMAT, "identity": self._identity, "found": plain})
        arrays[_RECORD] = np.frombuffer(text.encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_whole(self._path, _sealed(buffer.getvalue()))

    def _check(self, saved: Identity) -> None:
        wanted = self._identity
        other = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
        if other:
            raise ConfigError(
                f"{self._path}: belongs to a run with another {other[0]}; give the same, or run without "
                "--resume to start afresh"
            )


def refuse_foreign(path: Path) -> None:
    """Refuse to replace a file that is not a saved state, of whichever run.

    Raises:
        OutputError: It is something else.
    """
    if not path.exists():
        return
    try:
        check_writable(path)
        _unsealed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: a run saves under this name what it has found so far, and the file is something "
            "else; move it away, or choose another output"
        ) from error


def _sealed(content: bytes) -> bytes:
    """The content, and its SHA-256 behind it."""
    return content + hashlib.sha256(content).digest()


def _unsealed(sealed: bytes) -> bytes:
    content, seal = sealed[:-_SEAL], sealed[-_SEAL:]
    if hashlib.sha256(content).digest() != seal:
        raise ValueError("its checksum does not fit")
    return content


def _hash_model(model: ir.Model) -> str:
    proto, tensors = detach(model)
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for array in tensors.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
