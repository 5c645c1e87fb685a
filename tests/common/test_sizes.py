"""Sizes as a person reads them: never 0.00."""

import pytest

from onnx_lapq.common.sizes import in_megabytes, with_unit


@pytest.mark.parametrize(
    ("count", "text", "column"),
    [
        (0, "0.0 kB", "0.00"),
        (4217, "4.2 kB", "0.0042"),
        (49_999, "50.0 kB", "0.05"),
        (102_400, "0.10 MB", "0.10"),
        (15_113_000, "15.11 MB", "15.11"),
    ],
)
def test_small_sizes_show_digits_that_count(count, text, column):
    assert (with_unit(count), in_megabytes(count)) == (text, column)
