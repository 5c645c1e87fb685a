"""Every command and every piece of Python in README.md and docs/ runs, page by page.

A page is run from top to bottom in a folder that has ``demo/`` and ``examples/``, as the root of a clone has.
Searches are cut short (`_QUICK`), unless a command caps its search itself. A block behind a line
``<!-- not run: REASON -->`` is left out.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(console|python)\n(.*?)```", re.DOTALL)
_QUICK = ("--samples", "40", "--max-evals", "3", "--p-grid", "2,3,4")
_COMMANDS = ("compare", "config", "evaluate", "inspect", "landscape", "report")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_on_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "build").mkdir()
    names: dict[str, object] = {}
    for skipped, language, text in _BLOCK.findall(page.read_text()):
        if skipped:
            continue
        if language == "python":
            exec(compile(text, page.name, "exec"), names)
        for line in text.splitlines() if language == "console" else []:
            if line.startswith("$ "):
                _run(line.removeprefix("$ "))


def test_few_blocks_are_left_out():
    pages = "".join(page.read_text() for page in PAGES)
    blocks = _BLOCK.findall(pages)
    assert sum(bool(skipped) for skipped, _, _ in blocks) <= len(blocks) // 5
    assert pages.count("<!-- not run") == sum(bool(skipped) for skipped, _, _ in blocks)


def _run(line: str) -> None:
    command, _, output = line.partition(" > ")
    program, *arguments = shlex.split(command)
    if program == "onnx-lapq":
        quick = () if arguments[0] in _COMMANDS else _QUICK
        missing = [
            word
            for flag, value in zip(quick[::2], quick[1::2], strict=True)
            for word in (flag, value)
            if flag not in arguments
        ]
        result = run(*arguments, *missing)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if output:
            Path(output).write_text(result.stdout)
    elif program == "python":
        runpy.run_path(arguments[0], run_name="__main__")
    else:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        subprocess.run(line, shell=True, check=True, env={**os.environ, "PATH": path})
