"""OpenVINO: a torch module compiled once per machine, its rows run as independent requests.

The converted and compiled model lies in the user's cache folder, so only the first start after an installation
converts. One request holds one row: on a CPU a larger batch gains nothing, and requests that do not wait for each
other lose less to decoder threads on the same cores than threads that share one request.
"""

import hashlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import ModelError

Precision = Literal["auto", "bfloat16", "float32"]


def cache_folder() -> Path:
    """Where compiled models are kept: ``$XDG_CACHE_HOME/watchword``, or ``~/.cache/watchword``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "watchword"


class CompiledNet:
    """A network compiled for rows of one shape. Calls from several threads take turns; the GIL is free meanwhile."""

    def __init__(
        self,
        build: Callable[[], torch.nn.Module],
        example: NDArray[Any],
        *,
        key: str,
        precision: Precision = "auto",
        threads: int = 2,
    ) -> None:
        """Compile, or find what was compiled before.

        Args:
            build: Makes the module, in evaluation mode, float32. Called only if nothing is cached. It takes one tensor
                and returns a tuple of float32 tensors, all with the row as the first axis.
            example: One row, ``(1, ...)``, of the dtype and shape that rows will have.
            key: Names the graph and the weights; whatever changes either must change it.
            precision: ``auto`` is bfloat16 where the processor has it.
            threads: Requests in flight, one thread each.

        Raises:
            ModelError: The network cannot be converted or compiled here.
        """
        import openvino  # models import with torch and numpy alone

        core = openvino.Core()
        self.precision = pick_precision(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        self._shape = example.shape[1:]
        self._dtype = example.dtype
        digest = hashlib.sha256(f"{key} {example.shape} {example.dtype} {openvino.__version__}".encode()).hexdigest()
        folder = cache_folder() / f"{key.partition(' ')[0]}-{digest[:20]}"
        try:
            self._compiled = _compile(core, openvino, folder, build, example, self.precision, threads)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot compile {key.partition(' ')[0]!r}: {' '.join(str(error).split())[:300]}; "
                f"remove {folder}, or set encode.runtime: torch"
            ) from error
        # One more than threads, so that none idles while the caller fetches a result.
        self._requests = [self._compiled.create_infer_request() for _ in range(threads + 1)]
        self._tensor = openvino.Tensor
        self._outputs = [tuple(output.shape)[1:] for output in self._compiled.outputs]
        self._lock = threading.Lock()

    def __call__(self, rows: NDArray[Any]) -> tuple[torch.Tensor, ...]:
        """Run ``(N, ...)`` rows, ``N >= 0``. Returns one float32 ``(N, ...)`` tensor an output, on the CPU."""
        if rows.shape[1:] != self._shape or rows.dtype != self._dtype:
            raise ModelError(
                f"encoder compiled for rows of {self._dtype} {self._shape}, not {rows.dtype} {rows.shape[1:]}"
            )
        rows = np.ascontiguousarray(rows)
        results = [np.empty((len(rows), *shape), np.float32) for shape in self._outputs]
        with self._lock:
            used = self._requests[: len(rows)]
            try:
                for row in range(len(rows)):
                    request = used[row % len(used)]
                    request.wait()
                    request.set_input_tensor(0, self._tensor(rows[row : row + 1], shared_memory=True))
                    for number, result in enumerate(results):
                        request.set_output_tensor(number, self._tensor(result[row : row + 1], shared_memory=True))
                    request.start_async()
            finally:
                for request in used:
                    request.wait()
        return tuple(torch.from_numpy(result) for result in results)


def pick_precision(wanted: Precision, capabilities: list[str]) -> Literal["bfloat16", "float32"]:
    """Resolve ``auto`` by what the processor says it can do."""
    if wanted == "auto":
        return "bfloat16" if "BF16" in capabilities else "float32"
    return wanted


def _compile(
    core: Any,
    openvino: Any,
    folder: Path,
    build: Callable[[], torch.nn.Module],
    example: NDArray[Any],
    precision: str,
    threads: int,
) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[precision],
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # decoder threads share the cores
    }
    graph = folder / "graph.xml"
    if not graph.is_file():
        model = _convert(openvino, build(), example)
        if not _store(openvino, model, folder):
            return core.compile_model(model, "CPU", options)
    return core.compile_model(str(graph), "CPU", options | {"CACHE_DIR": str(folder)})


def _convert(openvino: Any, module: torch.nn.Module, example: NDArray[Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated by torch and is what OpenVINO uses
        model = openvino.convert_model(
            module, example_input=torch.from_numpy(example), input=[openvino.PartialShape(list(example.shape))]
        )
    model.validate_nodes_and_infer_types()
    return model


def _store(openvino: Any, model: Any, folder: Path) -> bool:
    """Write the graph so that another process finds all of it or none; False where the folder cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    except OSError:
        return False
    try:
        openvino.save_model(model, str(draft / "graph.xml"), compress_to_fp16=False)
        draft.rename(folder)
    except OSError:  # another process was first, or the disk is full
        shutil.rmtree(draft, ignore_errors=True)
    return (folder / "graph.xml").is_file()
