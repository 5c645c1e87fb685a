"""Imports go one way, from the commands down to the errors, and no folder is crowded."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = """__main__ | cli | __init__ | study | pipeline | job | result | report | stages | network
    | config evaluation | graph.rewriting | graph.writing | graph.placement graph.simplify
    | graph calibration | runtime method | common | progress | errors _version"""
HEIGHT = {room: -at for at, floor in enumerate(FLOORS.split("|")) for room in floor.split()}


def room(module: str) -> str:
    """The longest name of a room that a module's dotted name, without the package's, begins with."""
    name = module or "__init__"
    return name if name in HEIGHT else room(name.rpartition(".")[0])


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, without the package's name."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {
        f"{node.module}.{one.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    }
    names |= {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    return {name.partition(".")[2] for name in names if name.partition(".")[0] == "onnx_lapq"}


def test_imports_go_down():
    up = set()
    for top in ("onnx_lapq", "cli", "calibration"):
        for path in (ROOT / top).rglob("*.py"):
            file = path.relative_to(ROOT)
            here = room(".".join(file.with_suffix("").parts).removeprefix("onnx_lapq."))
            there = {one for one in imports(path) if room(one) != here and HEIGHT[room(one)] >= HEIGHT[here]}
            up |= {f"{file} -> {one}" for one in there}
    assert sorted(up) == []


def test_no_folder_holds_more_than_20_python_files():
    tops = ("onnx_lapq", "cli", "calibration", "tests", "tools")
    files = Counter(path.parent for top in tops for path in (ROOT / top).rglob("*.py"))
    assert max(files.values()) <= 20
