"""Read the header of a GGUF file, to tell a chat model from every other file before it is loaded.

The runtime says only that a file can't be loaded, whatever is wrong with it. The header says it in
a sentence: the file is cut off, is an embedding model, or lacks a chat template.

    "GGUF" version | number of tensors, of keys | keys and values | tensors: name, shape, offset
    padding to the alignment | data of the tensors

All numbers are little-endian. The file may be anything, so every length is checked against the
size of the file before it is used.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from duologue.weights._errors import WeightsError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
"""The form of each type of number, for `struct`."""
_MAX_KEYS = 1 << 16
_MAX_TENSORS = 1 << 20
_MAX_DIMENSIONS = 4
_MAX_NESTING = 4

_BLOCK_BYTES = {
    1: "0:4 1:2 24:1 25:2 26:4 27:8 28:8 30:2",
    32: "2:18 3:20 6:22 7:24 8:34 9:36 20:18 39:17",
    256: (
        "10:84 11:110 12:144 13:176 14:210 15:292 16:66 17:74 18:98 19:50 21:110 22:82 23:136 "
        "29:56 34:54 35:66"
    ),
}
"""For each size of a block, in numbers, the types of tensors that have it, and its bytes."""
_BLOCKS = {
    int(kind): (numbers, int(size))
    for numbers, types in _BLOCK_BYTES.items()
    for kind, _, size in (each.partition(":") for each in types.split())
}
"""Numbers in a block, and bytes of a block, for each type of tensor. Others count as empty."""

type Value = str | int | float | bool | None


class GgufError(WeightsError):
    """A file is not a GGUF chat model; the text says why, and what to use instead."""


class _CutOffError(Exception):
    """The file ends before its header does."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the header of a GGUF file says.

    Attributes:
        values: Its keys and values; arrays are None.
        min_bytes: Size of the complete file in bytes, at least.
    """

    values: dict[str, Value]
    min_bytes: int

    @property
    def architecture(self) -> str:
        """The architecture, such as ``qwen3``."""
        return str(self.values.get("general.architecture") or "unknown")

    def get(self, key: str) -> Value:
        """Return the value of a key of the architecture, such as ``context_length``."""
        return self.values.get(f"{self.architecture}.{key}")


def read_header(data: bytes | mmap.mmap) -> GgufHeader:
    """Parse the header at the beginning of ``data``, which is the whole file or its beginning.

    Raises:
        GgufError: This is no GGUF file, or its header is damaged or cut off.
    """
    try:
        return _Reader(data).header()
    except _CutOffError:
        raise GgufError("it is cut off or damaged: download it again") from None


def check_chat_model(path: Path, name: str | None = None) -> GgufHeader:
    """Return the header of a GGUF chat model.

    Args:
        path: The file.
        name: How errors call it; by default by its name.

    Raises:
        GgufError: The file is something else, or incomplete; the text begins with its name.
        OSError: The file can't be read.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if not size:
                raise GgufError("it is empty: download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = read_header(data)
        _check_kind(header)
        if size < header.min_bytes:
            raise GgufError(
                f"it is cut off after {size:,} of at least {header.min_bytes:,} bytes: "
                "download it again"
            )
    except GgufError as error:
        raise GgufError(f"{name or path.name} can't be the language model: {error}") from None
    return header


def _check_kind(header: GgufHeader) -> None:
    kind = header.values.get("general.type")
    if isinstance(kind, str) and kind not in ("", "model"):
        raise GgufError(f"it is a {kind!r} for another model: name the file of the model itself")
    if isinstance(parts := header.values.get("split.count"), int) and parts > 1:
        raise GgufError(f"it is one of {parts} parts: take a file in one piece")
    if header.get("pooling_type"):
        raise GgufError("it is an embedding model: take a chat model ('Instruct', 'it', 'Chat')")
    if not header.values.get("tokenizer.chat_template"):
        raise GgufError(
            "it has no chat template, so it was not trained to talk: take a chat model "
            "('Instruct', 'it', 'Chat')"
        )


class _Reader:
    __slots__ = ("_at", "_data", "_size")

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self._at = 0

    def header(self) -> GgufHeader:
        start = self._data[: len(_MAGIC)]
        if start != _MAGIC:
            if self._data[:20].startswith(b"version https://git-"):
                raise GgufError("it is the pointer of Git LFS to a file: run 'git lfs pull'")
            raise GgufError("it is no GGUF file")
        self._at = len(_MAGIC)
        version = self._int("I")
        if version not in _VERSIONS:
            raise GgufError(f"it is of version {version} of GGUF: convert it to version 3")
        tensors, keys = self._int("Q"), self._int("Q")
        if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
            raise _CutOffError
        values = {self._string(): self._value(self._int("I")) for _ in range(keys)}
        ends = max(self._tensor_ends(tensors), default=0)
        alignment = values.get("general.alignment")
        step = alignment if isinstance(alignment, int) and alignment > 0 else 32
        return GgufHeader(values, -(-self._at // step) * step + ends)

    def _tensor_ends(self, count: int) -> Iterator[int]:
        """Yield where the data of each tensor ends, in bytes behind the beginning of all data."""
        for _ in range(count):
            self._skip_string()
            dimensions = self._int("I")
            if dimensions > _MAX_DIMENSIONS:
                raise _CutOffError
            numbers = prod(self._int("Q") for _ in range(dimensions))
            per_block, block_bytes = _BLOCKS.get(self._int("I"), (1, 0))
            yield self._int("Q") + numbers // per_block * block_bytes

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array(0)
            return None
        if kind not in _NUMBERS:
            raise _CutOffError
        return self._unpack(_NUMBERS[kind])

    def _skip_array(self, nesting: int) -> None:
        kind, count = self._int("I"), self._int("Q")
        if kind in _NUMBERS:
            self._take(struct.calcsize(_NUMBERS[kind]) * count)
        elif kind == _STRING:
            for _ in range(count):
                self._skip_string()
        elif kind == _ARRAY and nesting < _MAX_NESTING:
            for _ in range(count):
                self._skip_array(nesting + 1)
        else:
            raise _CutOffError

    def _string(self) -> str:
        length = self._int("Q")
        start = self._take(length)
        return self._data[start : start + length].decode("utf-8", "replace")

    def _skip_string(self) -> None:
        self._take(self._int("Q"))

    def _int(self, form: str) -> int:
        return int(self._unpack(form))

    def _unpack(self, form: str) -> int | float | bool:
        start = self._take(struct.calcsize("<" + form))
        value: int | float | bool = struct.unpack_from("<" + form, self._data, start)[0]
        return value

    def _take(self, count: int) -> int:
        """Move on by ``count`` bytes, and return where they begin."""
        start = self._at
        if count > self._size - start:
            raise _CutOffError
        self._at = start + count
        return start
