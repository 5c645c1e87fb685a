"""What is saved is what is found, to the last bit."""

import math

import numpy as np
import pytest

from onnx_lapq.errors import ConfigError
from onnx_lapq.method.allocation import Rung
from onnx_lapq.method.powell.search_state import Accepted, SearchPoint, SearchState
from onnx_lapq.method.step_sizes.interpolation import QuadraticFit
from onnx_lapq.network.encoder import FixedCodes
from onnx_lapq.stages.found import Attempt, Found, Ladder, StageRecord
from onnx_lapq.stages.state_file import StateFile

CODES = {"w": FixedCodes(np.array([[1, -2]], np.int8), np.array([0.1]), np.array([1 / 3]))}
STEPS = {"w": np.array([0.1, 1 / 3]), "a": np.asarray(1e-7)}
RECORD = StageRecord("p=2", 0.1, None, 3)
SEARCH = SearchState(
    start=(0.1, 1 / 3),
    point=(0.0, -0.2),
    loss=0.5,
    guard=None,
    kept=SearchPoint((0.0, 0.0), 0.6, None),
    lowest_guard=(0.1, 0.2),
    directions=(1, (0.6, 0.8)),
    steps=(0.1, -0.2),
    sweep=1,
    line=0,
    idle=2,
    sweep_point=(0.0, 0.0),
    sweep_loss=math.inf,
    largest_drop=0.0,
    largest_line=0,
    last_gain=None,
    evaluations=7,
    history=(Accepted(1, 0.6, None), Accepted(4, 0.5, 0.4)),
)
FOUND = Found(
    evaluations=9,
    ladder=Ladder(None, 100, 4, (Rung("w", 8, 4, 50, 0.1, 0.1),)),
    fit=QuadraticFit(((2.0, 0.1),), None, None, None, 0.2, "min-max", math.inf, 0.2, "why"),
    stages=(RECORD,),
    attempts=(Attempt(2.0, STEPS, CODES, RECORD), Attempt(math.inf, STEPS)),
    start=STEPS,
    codes=CODES,
    search=SEARCH,
    steps=STEPS,
    stopped="max-evaluations",
    history=SEARCH.history,
)


def plain(found: object) -> object:
    """Nested dicts and lists that compare; arrays with their type."""
    if isinstance(found, np.ndarray):
        return str(found.dtype), found.shape, found.tobytes()
    if hasattr(found, "__dataclass_fields__"):
        return {name: plain(getattr(found, name)) for name in found.__dataclass_fields__}
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    return [plain(one) for one in found] if isinstance(found, tuple) else found


@pytest.mark.parametrize("found", [FOUND, Found()], ids=["everything", "nothing"])
def test_what_is_saved_is_what_is_loaded(tmp_path, found):
    store = StateFile(tmp_path / "state", {"model": "a"})
    store.save(found)
    assert plain(store.load()) == plain(found)


def test_a_record_of_other_fields_is_refused(tmp_path, monkeypatch):
    store = StateFile(tmp_path / "state", {})
    with monkeypatch.context() as patch:
        patch.setattr(
            "onnx_lapq.stages.state_file.msgspec.to_builtins", lambda *_, **__: {"evaluations": "x"}
        )
        store.save(FOUND)
    with pytest.raises(ConfigError, match="cannot be read as a saved state"):
        store.load()
