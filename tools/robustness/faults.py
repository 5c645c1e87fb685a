"""Kill runs at random moments, go on with ``--resume``, and see that nothing is lost or half-written.

python tools/robustness/faults.py demo/model.onnx demo/calib --kills 50 --signal KILL
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from isolated import start_isolated

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
        whole = Path(name) / "whole"
        _start(options, whole).join()  # the first also imports everything
        start = time.monotonic()
        _start(options, whole).join()
        seconds = time.monotonic() - start
        for number in range(options.kills):
            job = Path(name) / f"{number}"
            hit, sound = _kill_and_resume(options, job, chance.random() * seconds, whole / "out.onnx")
            killed += hit
            bad += not sound
            print(f"{number}: {'hit' if hit else 'ended'}, {'sound' if sound else 'WRONG'}", flush=True)
            shutil.rmtree(job)
    print(f"{options.kills} runs, {killed} hit by SIG{options.signal} before their end, {bad} went wrong")
    raise SystemExit(1 if bad else 0)


def _kill_and_resume(options: argparse.Namespace, job: Path, after: float, whole: Path) -> tuple[bool, bool]:
    """Whether the signal came before the run's end, and whether all was as it should be."""
    job.mkdir()
    (job / "out.onnx").write_bytes(b"old")
    process = _start(options, job)
    process.join(after)
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, getattr(signal, f"SIG{options.signal}"))
    process.join()
    kept = (job / "out.onnx").read_bytes()
    allowed = {"out.onnx", "out.onnx.report.json", "out.onnx.state"}
    sound = kept in (b"old", whole.read_bytes())
    sound &= options.signal == "KILL" or {path.name for path in job.iterdir()} <= allowed
    resumed = _start(options, job, "--resume")
    resumed.join()
    sound &= resumed.exitcode == 0 and (job / "out.onnx").read_bytes() == whole.read_bytes()
    return process.exitcode != 0, sound


def _start(options: argparse.Namespace, folder: Path, *more: str) -> BaseProcess:
    """A run in a folder."""
    folder.mkdir(exist_ok=True)
    paths = [str(options.model.resolve()), str(options.calib.resolve())]
    caps = [f"--samples={options.samples}", f"--max-evals={options.max_evals}"]
    return start_isolated([*paths, "-o", "out.onnx", *_OPTIONS, *caps, *more], folder)[0]


if __name__ == "__main__":
    main()
