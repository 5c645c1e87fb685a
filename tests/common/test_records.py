"""Dataclasses and plain data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest

from onnx_lapq.common.records import (
    HOLDS,
    check,
    decode,
    documented,
    first_sentence,
    json_schema,
    takes,
    to_json,
    to_plain,
)
from onnx_lapq.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        share: From 0 to 1. More is
            refused.
        names: Of ``nodes``.

    Raises:
        ConfigError: Too much.
    """

    share: float | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if self.share is not None and self.share > 1:
            raise ConfigError(f"share is {self.share}; give 0 to 1")


@dataclass(frozen=True)
class Whole:
    """All of it, in
    two lines.

    Attributes:
        count: How many.
        way: Which.
        part: The first.
        points: Evaluations, loss and guard loss.
        path: Where.
        held: The second.
    """

    count: int
    way: Literal["a", "b"]
    part: Part
    points: tuple[tuple[int, float | None], ...] = ()
    path: Path | None = None
    held: dict[str, Any] | None = field(default=None, metadata={HOLDS: Part})


WHOLE = Whole(3, "a", Part(0.1, ("x", "y")), ((1, 0.1 + 0.2), (2, None)), Path("m.onnx"))


def test_what_is_written_is_read_again_to_the_last_bit():
    assert decode(to_plain(WHOLE), Whole) == WHOLE
    assert to_plain(WHOLE)["points"] == [[1, 0.1 + 0.2], [2, None]]


def test_plain_data_holds_no_arrays_no_paths_and_no_infinity():
    odd = {"a": np.arange(2.0), "b": np.int64(3), "c": float("nan"), "d": np.float64("inf"), "e": Path("x/y")}
    assert to_plain(odd) == {"a": [0.0, 1.0], "b": 3, "c": None, "d": None, "e": "x/y"}
    assert to_json({"ä": (1,)}) == '{\n  "ä": [\n    1\n  ]\n}\n'


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": "3"}, r"\$\.count"),
        ({"way": "c"}, r"\$\.way"),
        ({"part": {"share": 0.1, "names": [1]}}, r"\$\.part\.names\[0\]"),
        ({"part": {"share": 2.0}}, "share is 2.0; give 0 to 1"),
        ({"points": [[1]]}, r"\$\.points\[0\]"),
        ({"path": 3}, "3 is no Path"),
    ],
)
def test_data_that_does_not_fit_is_a_value_error_that_names_the_place(change, words):
    with pytest.raises(ValueError, match=words):
        decode({**to_plain(WHOLE), **change}, Whole)
    with pytest.raises(ValueError, match="part"):
        decode({"count": 3, "way": "a"}, Whole)


def test_a_checked_record_holds_the_types_that_are_annotated():
    part = Part(1, ["a", "b"])
    assert (type(part.share), part.names) == (float, ("a", "b"))
    assert type(Part(np.float64(0.5)).share) is float
    assert hash(part) == hash(Part(1.0, ("a", "b")))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": "x"}, "share is 'x'; give a number or None"),
        ({"share": True}, "share is True; give a number or None"),
        ({"share": float("nan")}, "share is nan; give a number or None"),
        ({"share": object}, "; give a number or None"),
        ({"names": "abc"}, "names is 'abc'; give a tuple, each a text"),
        ({"names": ("a", 1)}, r"names is \('a', 1\); give a tuple, each a text"),
    ],
)
def test_values_of_other_types_are_refused_by_name(options, words):
    with pytest.raises(ConfigError, match=words):
        Part(**options)


def test_types_in_words():
    assert takes(tuple[int, int] | int | None) == "a pair, each an integer or an integer or None"
    assert takes(Literal["a", "b"]) == "one of a, b"
    assert takes(Part) == "a Part"


def test_what_docstrings_say_of_fields():
    texts = documented(Part)
    assert texts == {"share": "From 0 to 1. More is refused.", "names": "Of `nodes`."}
    assert first_sentence(texts["share"]) == "From 0 to 1."


def test_the_schema_takes_what_is_written_and_says_what_it_means():
    schema = json_schema(Whole)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"] == "All of it, in two lines."
    assert list(schema["properties"]) == schema["required"] == list(to_plain(WHOLE))
    assert schema["properties"]["part"] == {"$ref": "#/$defs/Part", "description": "The first."}
    assert schema["properties"]["held"]["anyOf"][0] == {"$ref": "#/$defs/Part"}
    jsonschema.validate(to_plain(WHOLE), schema)
    jsonschema.validate({**to_plain(WHOLE), "points": [[1, None]], "held": to_plain(Part())}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**to_plain(WHOLE), "points": [[1]]}, schema)


def test_a_type_without_a_schema_is_an_error():
    class NoDataclass:
        pass

    with pytest.raises(TypeError):
        json_schema(NoDataclass)
