"""Memory that is freed goes back to the system, and what is loaded is left alone."""

import gc
import subprocess
import sys

import pytest

from onnx_lapq.cli.allocator import keep_what_is_loaded

PROGRAM = """
import resource, sys
from pathlib import Path
from onnx_lapq.cli.allocator import give_back_freed_memory

if sys.argv[1] == "True":
    give_back_freed_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

del [bytearray(b"1") * (16 << 20) for _ in range(2)][:]  # glibc keeps blocks of this size from now on
blocks = [bytearray(b"1") * (8 << 20) for _ in range(16)]
held = [bytearray(b"1") * (8 << 20), *([bytearray(1000) for _ in range(1000)])]
full = resident()
del blocks
print(full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux is meant")
def test_large_blocks_go_back_to_the_system_when_they_are_freed():
    given_back = [
        int(subprocess.run([sys.executable, "-c", PROGRAM, asked], capture_output=True, check=True).stdout)
        for asked in ("False", "True")
    ]
    assert given_back[0] < 64
    assert given_back[1] >= 120


def test_what_is_loaded_is_not_looked_through_again():
    try:
        keep_what_is_loaded()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 1000
    finally:
        gc.unfreeze()
