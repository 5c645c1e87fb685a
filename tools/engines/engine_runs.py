"""Run all variants of each model of a folder in turn; for engines with a Python package, whatever its age."""

import json
import statistics
import time
from pathlib import Path

import numpy as np

_ROUNDS = 200
_SECONDS = 5.0
"""Of all rounds of one model."""


def run_folder(engine, folder, suffix, open_model):
    """Print one line of JSON: the engine, and of each model its first output and its time with one sample.

    ``ms`` is the median of all rounds, ``of_float`` that of the ratios to the float model in the same round.

    Args:
        engine: Its name and version.
        folder: What `make_outputs.py` wrote.
        suffix: Of the model files.
        open_model: From a file to a function from inputs by name to outputs.
    """
    parts = sorted(path.parent for path in Path(folder).glob("*/inputs.json"))
    rows = [row for part in parts for row in _run_model(part, suffix, open_model)]
    print(json.dumps({"engine": engine, "rows": rows}))


def _run_model(folder, suffix, open_model):
    inputs = json.loads((folder / "inputs.json").read_text())
    feeds = {n: np.array(each["values"], each["type"]).reshape(each["shape"]) for n, each in inputs.items()}
    single = {name: values[:1] for name, values in feeds.items()}
    rows, models = [], {}
    for path in sorted(folder.glob(f"*{suffix}")):
        row = {"model": folder.name, "variant": path.name.split(".")[0]}
        rows.append(row)
        try:
            model = open_model(path)
            row["output"] = np.asarray(model(feeds)[0], np.float64).reshape(-1).tolist()
            models[row["variant"]] = model
        except Exception as error:  # each engine has exceptions of its own
            row["error"] = f"{type(error).__name__}: {error}".strip()[:300]
    for row, taken in zip(rows, _times(models, single, [row["variant"] for row in rows]), strict=True):
        row.update(taken)
    return rows


def _times(models, single, variants):
    rounds = {name: [] for name in models}
    began = time.perf_counter()
    for done in range(_ROUNDS):
        if done > 5 and time.perf_counter() - began > _SECONDS:
            break
        for name, model in models.items():
            start = time.perf_counter()
            model(single)
            rounds[name].append(1000 * (time.perf_counter() - start))
    for name in variants:
        if name not in models:
            yield {}
            continue
        ratios = [one / plain for one, plain in zip(rounds[name], rounds["float"], strict=True)]
        yield {"ms": statistics.median(rounds[name]), "of_float": statistics.median(ratios)}
