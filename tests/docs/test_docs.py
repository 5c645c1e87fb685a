"""Every command and every piece of Python in README.md and docs/ runs, page by page, sub-folders included.

A page is run from top to bottom in a folder that has ``demo/`` and ``examples/``, as the root of a clone has.
Searches are cut short (`_QUICK`), unless a command caps its search itself. A block behind a line
``<!-- not run: REASON -->`` is left out.
"""

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run

from onnx_lapq.report.record import Report

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(console|python)\n(.*?)```", re.DOTALL)
_QUICK = ("--samples", "40", "--max-evals", "3", "--p-grid", "2,3,4")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")
_REFERENCE = re.compile(r"docs/([\w/-]+\.md)(?:, \"([^\"]+)\")?")
_COMMANDS = ("compare", "config", "evaluate", "inspect", "landscape", "report", "sensitivity")


RUN = [page for page in PAGES if _BLOCK.search(page.read_text())]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
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


def test_pages_on_kinds_of_model_have_one_shape():
    shapes = {tuple(_headings_in_order(page))[1:] for page in (DOCS / "guide" / "kinds").glob("*.md")}
    assert shapes == {("The samples", "The run", "What the last lines say", "Where it is not good enough")}


def test_every_page_is_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(_pages(nav)) == sorted(
        str(page.relative_to(DOCS)) for page in PAGES if DOCS in page.parents
    )


def test_links_between_pages_lead_to_files_and_headings():
    for page in PAGES:
        text = _FENCE.sub("", page.read_text())
        for link, heading in _LINK.findall(text):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            assert not heading or heading in _headings(target), f"{page.name}: {link}#{heading}"


def test_headings_that_the_code_refers_to_exist():
    for source in (
        path for name in ("onnx_lapq", "cli", "calibration") for path in (ROOT / name).rglob("*.py")
    ):
        text = " ".join(source.read_text().split())
        for name, heading in _REFERENCE.findall(text):
            page = ROOT / "docs" / name
            assert page.exists(), f"{source.name}: docs/{name}"
            assert not heading or _slug(heading) in _headings(page), f"{source.name}: docs/{name}, {heading}"


def test_every_field_of_the_report_is_on_its_page():
    page = (DOCS / "reference/report-schema.md").read_text()
    assert [field.name for field in fields(Report) if f"`{field.name}`" not in page] == []


def test_few_blocks_are_left_out():
    pages = "".join(page.read_text() for page in PAGES)
    blocks = _BLOCK.findall(pages)
    assert sum(bool(skipped) for skipped, _, _ in blocks) <= len(blocks) // 5
    assert pages.count("<!-- not run") == sum(bool(skipped) for skipped, _, _ in blocks)


def test_every_promise_of_reliability_names_tests_that_exist_and_can_fail():
    lines = (DOCS / "reference/reliability.md").read_text().splitlines()
    rows = [line.strip("| ").rsplit(" | ", 1) for line in lines if line.startswith("| ")][2:]
    assert len(rows) > 10
    for promise, proof in rows:
        names = re.findall(r"`([^`]+)`", proof)
        assert names, promise
        for name in names:
            assert (ROOT / name).is_file(), name
            if name.startswith("tests/"):
                _require_assertions(name)


def _pages(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for page in entry.values():
            yield from [page] if isinstance(page, str) else _pages(page)


def _headings(page: Path) -> set[str]:
    return set(map(_slug, _headings_in_order(page)))


def _headings_in_order(page: Path) -> list[str]:
    return [line.lstrip("# ") for line in page.read_text().splitlines() if line.startswith("#")]


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def _require_assertions(name: str) -> None:
    """Every test of a file asserts, itself or through a function beside it."""
    functions = [
        node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.FunctionDef)
    ]
    asserting = {"raises"}
    for _ in range(2):
        asserting |= {function.name for function in functions if _asserts(function, asserting)}
    tests = {function.name for function in functions if function.name.startswith("test_")}
    assert tests, name
    assert tests <= asserting, tests - asserting


def _asserts(function: ast.FunctionDef, asserting: set[str]) -> bool:
    nodes = list(ast.walk(function))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    helps = any(name.startswith("assert_") for name in names)
    return helps or bool(names & asserting) or any(isinstance(node, ast.Assert) for node in nodes)


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
