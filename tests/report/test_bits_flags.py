"""Options as flags: the bits always, and of all others those that are no defaults."""

from dataclasses import asdict

import pytest

from onnx_lapq.config import QuantizationConfig
from onnx_lapq.report.bits_flags import bits_flags
from onnx_lapq.stages.promotion import Promotion

FOUND = Promotion("calibration samples", (), ("Conv=w4", "a*=8"), ())


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, "-w 8 -a 8"),
        ({"weight_bits": 3, "activation_bits": 4, "first_last": "float"}, "-w 3 -a 4 --first-last float"),
        ({"per_channel": True}, "-w 8 -a 8 --per-channel"),
        ({"per_channel": False, "target": "generic"}, "-w 8 -a 8 --per-tensor --target generic"),
        ({"exclude": ("a*", "b"), "full_range": True}, "-w 8 -a 8 --exclude 'a*' --exclude b --full-range"),
        (
            {"weight_bits": 4, "activation_bits": 32, "group_size": 64, "seed": 7},
            "-w 4 -a 32 --group-size 64",
        ),
    ],
)
def test_all_that_decides_bits_is_given(options, flags):
    record = asdict(QuantizationConfig(storage="packed", **options))
    assert bits_flags(FOUND, record) == f"--storage packed --bits Conv=w4 --bits 'a*=8' {flags}"
