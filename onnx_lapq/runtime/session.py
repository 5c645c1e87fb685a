"""Onnxruntime sessions as the evaluator and the tests open them."""

import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort

from onnx_lapq.errors import ConfigError, ModelError, RunError
from onnx_lapq.runtime.providers import CPU, find_provider, with_fallback
from onnx_lapq.runtime.unsharing import unshare

__all__ = [
    "Feeds",
    "detach",
    "first_run",
    "give_back_shared_memory",
    "is_loadable",
    "open_file",
    "open_session",
    "run",
]

_LARGE = 1 << 20
"""Bytes of a tensor that is handed to a session beside the model."""

_BELOW_A_BYTE = (ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2)
"""Types that a session takes within the model only."""

_FATAL = 4
"""Onnxruntime raises what it would log below this level."""

_AS_REQUESTED = 1
"""Onnxruntime's kSameAsRequested; by itself an arena doubles."""

_SHARED = "session.use_env_allocators", "1"
_LEAST = '<ir_version: 8, opset_import: ["": 17]> least (float[1] x) => (float[1] y) { y = Neg(x) }'
_ANYTHING = {"x": np.zeros(1, np.float32)}

_PATIENCE = 25.0
"""Seconds for the first samples."""

Feeds = Mapping[str, np.ndarray]


def detach(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model without its large tensors, and these by name.

    A serialized model holds 2 GB at most; tensors that are handed over beside it are neither limited nor
    copied.
    """
    large = [
        name
        for name, value in model.graph.initializers.items()
        if (tensor := value.const_value) is not None
        and tensor.dtype not in _BELOW_A_BYTE
        and (isinstance(tensor, ir.ExternalTensor) or tensor.nbytes > _LARGE)
    ]
    light, tensors = model.clone() if large else model, {}
    for name in large:
        value = light.graph.initializers[name]
        tensor = value.const_value
        assert tensor is not None
        tensors[name] = np.asarray(tensor.numpy(), order="C")
        value.const_value = ir.ExternalTensor(
            location="detached",
            offset=0,
            length=tensor.nbytes,
            dtype=tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
        )
    return ir.to_proto(light), tensors


def open_session(
    model: ir.Model | onnx.ModelProto,
    tensors: Mapping[str, np.ndarray] | None = None,
    *,
    fuse_integers: bool = True,
    precise: bool = False,
    provider: str = CPU,
    arena: Literal["none", "own", "shared"] = "none",
) -> ort.InferenceSession:
    """Open a single-threaded session.

    Args:
        model: The model.
        tensors: What `detach` took out of it; they live as long as the session.
        fuse_integers: Let onnxruntime replace Q/DQ groups by integer kernels, as it does by default. Off,
            it computes in float what the graph says.
        precise: Keep uint8 times int8 from overflowing on processors without VNNI.
        provider: What runs it, but for the nodes that only the CPU runs.
        arena: Where the memory of a run comes from, and whether it is kept for the next one: not kept; kept
            by the session, as in a user's program; or kept for all sessions that share it. Kept, it is
            faster, since the system clears memory before it gives it; but of hundreds of sessions each would
            keep its largest run. Providers other than the CPU share none. See `give_back_shared_memory`.

    Raises:
        ConfigError: The provider is not there or does not start.
        ModelError: Onnxruntime does not accept the model.
    """
    options = _options()
    is_shared = arena == "shared" and find_provider(provider) == CPU
    options.enable_cpu_mem_arena = arena == "own" or is_shared
    if is_shared:
        _in_shared_memory()
        options.add_session_config_entry(*_SHARED)
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not fuse_integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    proto, detached = (model, dict(tensors or {})) if isinstance(model, onnx.ModelProto) else detach(model)
    if precise:
        proto, detached = unshare(proto, detached)
    options.add_external_initializers(
        list(detached), [ort.OrtValue.ortvalue_from_numpy(array) for array in detached.values()]
    )
    session = _open(proto.SerializeToString(), options, "the model", provider)
    weakref.finalize(session, detached.clear)
    return session


def open_file(path: Path, *, optimized: Path | None = None, provider: str = CPU) -> ort.InferenceSession:
    """Open a model file the way a user's program does, with default optimisation, on one thread.

    Args:
        path: The file.
        optimized: Where onnxruntime leaves the graph that it runs, if given.
        provider: What runs it, but for the nodes that only the CPU runs.

    Raises:
        ConfigError: The provider is not there or does not start.
        ModelError: Onnxruntime does not accept the model.
    """
    options = _options()
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return _open(str(path), options, str(path), provider)


def is_loadable(model: str | onnx.ModelProto) -> bool:
    """Whether onnxruntime takes a model, given as a file or in memory; nothing of it is computed."""
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        _open(model if isinstance(model, str) else model.SerializeToString(), options, "the model", CPU)
    except (ModelError, ValueError):
        return False
    return True


def run(session: ort.InferenceSession, feeds: Feeds, outputs: list[str] | None = None) -> list[np.ndarray]:
    """Run a session.

    Raises:
        RunError: Onnxruntime failed, for example because a sample's shape does not fit.
        MemoryError: There is no memory left.
    """
    try:
        results: list[np.ndarray] = session.run(outputs, dict(feeds))
    except Exception as error:  # onnxruntime's exceptions share no public base class
        _raise_if_out_of_memory(error)
        raise RunError(f"onnxruntime cannot run the model: {_reason(error)}") from error
    return results


def first_run(
    session: ort.InferenceSession, feeds: Feeds, outputs: list[str] | None = None
) -> list[np.ndarray]:
    """Run a session that nobody has run yet.

    Raises:
        ModelError: Onnxruntime fails, or takes so long that thousands of runs are out of the question.
        MemoryError: There is no memory left.
    """
    options = ort.RunOptions()
    done = threading.Event()
    threading.Thread(target=_end_when_impatient, args=(options, done), daemon=True).start()
    try:
        results: list[np.ndarray] = session.run(outputs, dict(feeds), options)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        _raise_if_out_of_memory(error)
        reason = f"not done after {_PATIENCE:.0f} s" if options.terminate else _reason(error)
        raise ModelError(
            f"the model cannot be run on its first samples: {reason}; check its shapes and loops"
        ) from error
    finally:
        done.set()
    return results


def _end_when_impatient(options: ort.RunOptions, done: threading.Event) -> None:
    """End a run that has used up its time, counted in seconds of the processor."""
    start = time.process_time()
    while not done.wait(0.5):
        if time.process_time() - start > _PATIENCE:
            options.terminate = True
            return


def give_back_shared_memory() -> None:
    """Let the system have what no session uses of the arena that sessions share."""
    if _in_shared_memory.cache_info().currsize:
        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        _in_shared_memory().run(None, _ANYTHING, options)


@cache
def _in_shared_memory() -> ort.InferenceSession:
    """Make the arena of this process, which grows by as much as is asked for, and the least session in it.

    The session has run: an arena never gives back what it was asked for first.
    """
    cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with suppress(RuntimeError):  # there is one already, which this program made, or another thread
        ort.create_and_register_allocator(cpu, ort.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED}))
    options = _options()
    options.add_session_config_entry(*_SHARED)
    session = _open(onnx.parser.parse_model(_LEAST).SerializeToString(), options, "the model", CPU)
    run(session, _ANYTHING)
    return session


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    return options


def _open(model: str | bytes, options: ort.SessionOptions, name: str, provider: str) -> ort.InferenceSession:
    provider = find_provider(provider)
    if provider != CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(
            model, options, providers=with_fallback(provider), enable_fallback=False
        )
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ModelError(f"onnxruntime does not load {name}: {_reason(error)}") from error
    if provider not in session.get_providers():
        raise ConfigError(f"provider {provider} does not start; check its driver and libraries")
    return session


def _raise_if_out_of_memory(error: Exception) -> None:
    if "bad_alloc" in str(error):
        raise MemoryError from error


def _reason(error: Exception) -> str:
    return str(error).split(" : ")[-1].strip().split("\n")[0]
