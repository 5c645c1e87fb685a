"""The state of an unfinished run on disk, from which ``--resume`` goes on (DESIGN.md section 9)."""

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_lapq._version import __version__
from onnx_lapq.calibration.hashing import hash_samples
from onnx_lapq.calibration.samples import Samples
from onnx_lapq.errors import ConfigError, OutputError
from onnx_lapq.graph.saving import check_writable, write_whole
from onnx_lapq.method.allocation import Rung
from onnx_lapq.method.powell.search_state import SearchState
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.network.layers import FixedCodes
from onnx_lapq.report.record import Ladder, StageRecord
from onnx_lapq.runtime.session import detach
from onnx_lapq.stages.equalization import Trial
from onnx_lapq.stages.search import Start

__all__ = ["Choices", "Identity", "RunState", "StateFile", "identify", "refuse_foreign", "state_path"]

logger = logging.getLogger(__name__)

Identity = Mapping[str, str]
"""What a state belongs to: a name for a person, and its hash, version or value."""

_FORMAT = 4
_RECORD = "record"
_SEAL = hashlib.sha256().digest_size


def state_path(output: Path) -> Path:
    """Where the state of a run lies until it has ended: beside the model."""
    return output.with_name(output.name + ".state")


@dataclass(frozen=True)
class Choices:
    """What a run has chosen before its search.

    Attributes:
        trial: Whether to even out channels.
        ladder: Bits of the weights.
    """

    trial: Trial | None = None
    ladder: Ladder | None = None


@dataclass(frozen=True)
class RunState:
    """What a run has found so far.

    Attributes:
        start: Where the joint step begins.
        evaluations: Loss evaluations so far.
        codes: Weights that are rounded already.
        compensated: The loss after rounding, once all are.
        search: Where the joint step is, once it has begun.
        rival: What rounding from the other start has led to, until the better of both is known.
    """

    start: Start
    evaluations: int
    codes: Mapping[str, FixedCodes] = field(default_factory=dict)
    compensated: StageRecord | None = None
    search: SearchState | None = None
    rival: "RunState | None" = None


def identify(model: ir.Model, samples: Samples, options: Mapping[str, Any]) -> Identity:
    """What decides the result of a run: a state of one run is no use to another.

    Args:
        model: The prepared float model.
        samples: The calibration set.
        options: Those that decide what is written.
    """
    return {
        "version of onnx-lapq": __version__,
        **{f"version of {name}": version(name) for name in ("onnxruntime", "numpy", "scipy")},
        "model": _hash_model(model),
        "set of samples": hash_samples(samples),
        **{f"option {name}": json.dumps(value) for name, value in options.items()},
    }


class StateFile:
    """The state file of one run.

    Args:
        path: The file; None keeps nothing.
        identity: What the run belongs to.

    Attributes:
        choices: What was chosen before the search: nothing yet, or what `load` has found.
    """

    def __init__(self, path: Path | None, identity: Identity) -> None:
        self.choices = Choices()
        self._path = path
        self._identity = dict(identity)

    def load(self) -> RunState | None:
        """The state that was saved last; None where there is none, or choices alone.

        Raises:
            ConfigError: It cannot be read, or belongs to a run of another model, data, options or version.
        """
        if self._path is None:
            raise ConfigError("resume is set, but there is no state file to go on from; name one")
        if not self._path.exists():
            logger.warning("%s: there is no saved state; the run starts from its beginning", self._path)
            return None
        try:
            content = io.BytesIO(_unsealed(self._path.read_bytes()))
            arrays = dict(np.load(content, allow_pickle=False))
            record = json.loads(arrays.pop(_RECORD).tobytes())
            if record["format"] == _FORMAT:
                self._check(record["identity"])
                self.choices = _choices(record["choices"])
                return _unpacked(record, arrays) if "start" in record else None
        except ConfigError:
            raise
        except Exception as error:  # a damaged file leads zipfile, zlib and numpy to raise nearly anything
            logger.debug("%s", error)
        raise ConfigError(
            f"{self._path}: cannot be read as a saved state; move it away and run without --resume"
        )

    def choose(self, choices: Choices) -> None:
        """Keep what is chosen before the search.

        Raises:
            OutputError: It cannot be written.
        """
        if choices != self.choices:
            self.choices = choices
            self._write({}, {})

    def save(self, state: RunState) -> None:
        """Replace the file by a newer state, whole.

        Raises:
            OutputError: It cannot be written.
        """
        self._write(*_packed(state))

    def _write(self, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        if self._path is None:
            return
        known = {"format": _FORMAT, "identity": self._identity, "choices": asdict(self.choices)}
        text = json.dumps({**known, **record})
        contents: dict[str, Any] = {_RECORD: np.frombuffer(text.encode(), np.uint8), **arrays}
        buffer = io.BytesIO()
        np.savez(buffer, **contents)
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
            f"{path}: a run keeps its state there, but it is no saved state; move it away, or "
            "choose another output"
        ) from error


def _choices(record: dict[str, Any]) -> Choices:
    trial, ladder = record["trial"], record["ladder"]
    if ladder is not None:
        ladder = Ladder(**{**ladder, "rungs": tuple(Rung(**rung) for rung in ladder["rungs"])})
    return Choices(None if trial is None else Trial(**trial), ladder)


def _sealed(content: bytes) -> bytes:
    """The content, and its SHA-256 behind it."""
    return content + hashlib.sha256(content).digest()


def _unsealed(sealed: bytes) -> bytes:
    content, seal = sealed[:-_SEAL], sealed[-_SEAL:]
    if hashlib.sha256(content).digest() != seal:
        raise ValueError("its checksum does not fit")
    return content


def _packed(state: RunState) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A state as JSON and the arrays that go beside it."""
    record: dict[str, Any] = {
        "evaluations": state.evaluations,
        "start": {
            "fit": None if state.start.fit is None else asdict(state.start.fit),
            "stages": [asdict(stage) for stage in state.start.stages],
        },
        "compensated": None if state.compensated is None else asdict(state.compensated),
        "search": None if state.search is None else state.search.to_json(),
        "codes": list(state.codes),
        "alternative": state.start.alternative is not None,
        "rival": None,
    }
    arrays = {f"steps/{name}": steps for name, steps in state.start.steps.items()}
    arrays |= {f"alternative/{name}": steps for name, steps in (state.start.alternative or {}).items()}
    for name, codes in state.codes.items():
        arrays |= {f"{part.name}/{name}": getattr(codes, part.name) for part in fields(FixedCodes)}
    if state.rival is not None:
        record["rival"], of_rival = _packed(state.rival)
        arrays |= {f"rival/{key}": array for key, array in of_rival.items()}
    return record, arrays


def _unpacked(record: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> RunState:
    stages = tuple(StageRecord(**stage) for stage in record["start"]["stages"])
    alternative = _within("alternative/", arrays) if record["alternative"] else None
    search, compensated, rival = record["search"], record["compensated"], record["rival"]
    return RunState(
        start=Start(_within("steps/", arrays), _fit(record["start"]["fit"]), stages, alternative),
        evaluations=record["evaluations"],
        codes={
            name: FixedCodes(**{part.name: arrays[f"{part.name}/{name}"] for part in fields(FixedCodes)})
            for name in record["codes"]
        },
        compensated=None if compensated is None else StageRecord(**compensated),
        search=None if search is None else SearchState.from_json(search),
        rival=None if rival is None else _unpacked(rival, _within("rival/", arrays)),
    )


def _within(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def _fit(record: dict[str, Any] | None) -> QuadraticFit | None:
    if record is None:
        return None
    coefficients = record["coefficients"]
    return QuadraticFit(
        **{
            **record,
            "samples": tuple((p, loss) for p, loss in record["samples"]),
            "coefficients": None if coefficients is None else tuple(coefficients),
        }
    )


def _hash_model(model: ir.Model) -> str:
    proto, tensors = detach(model)
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for array in tensors.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
