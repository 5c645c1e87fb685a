"""Kill runs at random moments, go on with ``--resume``, and see that nothing is lost or half-written.

python tools/faults.py demo/model.onnx demo/calib --kills 50 --signal KILL
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_OPTIONS = ["-q", "-w", "4", "-a", "4", "--workers", "1"]


def main() -> None:
    """Kill, resume and compare; exit code 1 where bytes differ or the old output suffered."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--max-evals", type=int, default=60)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    bad = killed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        _run(options, folder / "whole.onnx").wait()
        seconds = time.monotonic() - start
        wanted = (folder / "whole.onnx").read_bytes()
        for number in range(options.kills):
            job = folder / "job"
            job.mkdir()
            (job / "out.onnx").write_bytes(b"old")
            process = _run(options, job / "out.onnx")
            time.sleep(chance.uniform(0.1, 1) * seconds)
            process.send_signal(getattr(signal, f"SIG{options.signal}"))
            killed += process.wait() != 0
            after = (job / "out.onnx").read_bytes()
            halves = [path.name for path in job.iterdir() if not path.name.startswith("out.onnx")]
            sound = after in (b"old", wanted) and (options.signal == "KILL" or not halves)
            _run(options, job / "out.onnx", "--resume").wait()
            sound &= (job / "out.onnx").read_bytes() == wanted
            bad += not sound
            if not sound:
                print(f"kill {number}: {sorted(path.name for path in job.iterdir())}")
            shutil.rmtree(job)
    print(f"{options.kills} runs, {killed} hit by SIG{options.signal} before their end, {bad} went wrong")
    raise SystemExit(1 if bad else 0)


def _run(options: argparse.Namespace, output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "onnx_lapq",
        options.model,
        options.calib,
        "-o",
        output,
        *_OPTIONS,
        f"--samples={options.samples}",
        f"--max-evals={options.max_evals}",
        *more,
    ]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
