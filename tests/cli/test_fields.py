"""Messages on options name flags on the command line."""

import pytest

from onnx_lapq.cli.fields import TABLES, in_flags


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("weight_bits is 9; give 2 to 8", "--weight-bits is 9; give 2 to 8"),
        ("seed is -1; give more", "--seed is -1; give more"),
        ("p_values is (2.0,); give three", "--p-grid is (2.0,); give three"),
        ("give max_kl, min_snr or max_drop", "give --max-kl, --min-snr or --max-drop"),
        ("test.npz: max_kl needs scores; use min_snr", "test.npz: --max-kl needs scores; use --min-snr"),
        ("another option max_evaluations", "another option --max-evals"),
        ("--bits 'max_kl=8': give PATTERN=BITS", "--bits 'max_kl=8': give PATTERN=BITS"),
        ("samples is 0; give an integer above 0 or None", "--samples is 0; give an integer above 0"),
        ("guard samples: no labels", "guard samples: no labels"),
        ("size_budget/max_kl: a path", "size_budget/max_kl: a path"),
    ],
)
def test_names_of_fields_become_flags(message, shown):
    assert in_flags(message, TABLES[""].keys() | TABLES["gate"].keys()) == shown


def test_keys_of_an_option_file_stay():
    assert in_flags("max_kl is -1; give min_snr", {"min_snr"}) == "max_kl is -1; give --min-snr"
