"""A thread pool for inference that all sessions share, so that the event loop never waits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from duologue._optional import import_optional
from duologue.audio import Samples

type Floats = NDArray[np.float32]

_POOL = ThreadPoolExecutor(
    max_workers=max(3, min(4, os.cpu_count() or 2)), thread_name_prefix="duologue-inference"
)


async def run_in_thread[T](function: Callable[[], T]) -> T:
    """Run ``function`` in the shared pool; calls wait in order for a free thread."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, function)


class InferenceSession(Protocol):
    """The one method of an onnxruntime session that is used here."""

    def run(self, names: None, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs, in the model's order."""
        ...


def open_session(path: str) -> InferenceSession:
    """Load an ONNX or ORT file for use by one thread.

    One thread is fastest for models this small, and idle threads must not spin, because the
    language model needs the cores.
    """
    ort = import_optional("onnxruntime", "local")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session: InferenceSession = ort.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )
    return session


def to_floats(samples: Samples) -> Floats:
    """Return int16 samples as float32 between -1 and 1."""
    return samples.astype(np.float32) * np.float32(1 / 32768)
