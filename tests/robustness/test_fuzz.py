import subprocess
import sys
from pathlib import Path

_TOOL = Path(__file__).parents[2] / "tools" / "robustness" / "fuzz.py"


def test_a_short_run_of_the_fuzzer_finds_nothing():
    found = subprocess.run(
        [sys.executable, _TOOL, "--cases", "60", "--seed", "0"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 ended badly" in found.stdout
