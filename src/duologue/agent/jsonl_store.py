"""`JsonlStore`: a conversation in a file of JSON lines, which several processes may share.

Each line is appended in one write, under a lock of the file, so that the bytes of two writers never
mix. Reading takes no lock and changes nothing, because another process may be writing the last
line. When a crash has cut a line short, the next write ends it with a newline, and `load` skips it.

The store never calls ``fsync``, which would block the event loop for up to a tenth of a second. So
a crash of the program loses nothing that was put. A crash of the machine may lose what was put in
the last half minute, or leave a line of zeros, which `load` skips too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path

from duologue.errors import ConfigError
from duologue.items import Item, item_from_dict, item_to_dict
from duologue.json_types import JsonObject

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

_LINE_START = b'{"kind": '
"""The first bytes of every line."""

LOCK_TIMEOUT_S = 0.05
"""Seconds to wait while another process writes. After that the line is written without the lock:
it is still one write, and the conversation must not wait for another process."""

MAX_UNWRITTEN_LINES = 1000
"""Lines kept for the next attempt while the disk is full; the oldest are dropped first."""


class JsonlStore:
    """Keep a conversation in a file, one change a line, so that a crash loses nothing written.

    Several programs may write to one file on a local file system. Changes that could not be written
    because the disk was full are written with the next change. `load` raises `ConfigError` for a
    file that is not such a record, and for a path where no file can be. `put` and `remove` raise
    ``OSError``.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._unwritten: deque[bytes] = deque(maxlen=MAX_UNWRITTEN_LINES)

    def load(self) -> Sequence[Item]:
        """Replay the changes and return the items. Never write to the file.

        Skip empty lines, lines that were cut short, and fields and kinds of items that a newer
        version has written.
        """
        if self._path.is_dir():
            raise ConfigError(f"{self._path} is a folder: pass a file in it")
        if not self._path.parent.is_dir():
            raise ConfigError(f"there is no folder {self._path.parent}: make it first")
        if not self._path.exists():
            return ()
        items: dict[str, Item] = {}
        cut_short = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip(b" \t\r\n\0")
                if not text:
                    continue
                try:
                    _replay(text, items)
                except (ValueError, RecursionError) as error:
                    if not _is_cut_short(text):
                        raise ConfigError(
                            f"{self._path} line {number} is not a conversation item: "
                            "move the file away"
                        ) from error
                    # Another process may still be writing the last line: it is no loss.
                    cut_short += line.endswith(b"\n")
        if cut_short:
            log.warning("%s: %d lines were cut short by a crash", self._path, cut_short)
        return tuple(items.values())

    def put(self, item: Item) -> None:
        """Append the item."""
        self._append(item_to_dict(item))

    def remove(self, item_id: str) -> None:
        """Append the removal of an item."""
        self._append({"kind": "removed", "id": item_id})

    def _append(self, values: JsonObject) -> None:
        line = json.dumps(values, ensure_ascii=False).encode(errors="replace") + b"\n"
        self._unwritten.append(line)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        file = os.open(self._path, flags, 0o666)
        try:
            with _locked(file) as alone:
                size = os.lseek(file, 0, os.SEEK_END)
                data = b"".join(self._unwritten)
                if size and not _ends_a_line(file, size):
                    data = b"\n" + data
                try:
                    written = os.write(file, data)
                    if written < len(data):
                        raise OSError(28, "No space left on device", str(self._path))
                except OSError:
                    if alone:
                        os.ftruncate(file, size)
                    raise
        finally:
            os.close(file)
        self._unwritten.clear()


@contextlib.contextmanager
def _locked(file: int) -> Generator[bool]:
    """Hold the advisory lock of the file; yield False if it is busy for `LOCK_TIMEOUT_S`."""
    if sys.platform == "win32":
        yield True  # No lock: on Windows, only one process may write at a time.
        return
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                yield False
                return
            time.sleep(0.0005)
        except OSError:  # The file system has no locks.
            yield False
            return
        else:
            break
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _ends_a_line(file: int, size: int) -> bool:
    os.lseek(file, size - 1, os.SEEK_SET)
    return os.read(file, 1) == b"\n"


def _replay(line: bytes, items: dict[str, Item]) -> None:
    """Apply one line to ``items``; raise ``ValueError`` if the line is not a change."""
    values = json.loads(line)
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ValueError("not an item")
    if values["kind"] == "removed":
        items.pop(str(values.get("id")), None)
        return
    with contextlib.suppress(KeyError):  # A kind of item that a newer version wrote.
        item = item_from_dict(values)
        items[item.id] = item


def _is_cut_short(line: bytes) -> bool:
    """Return whether ``line`` is one of ours, cut short, perhaps within a character."""
    if not (line.startswith(_LINE_START) or _LINE_START.startswith(line)):
        return False
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if error.end < len(line) or error.reason != "unexpected end of data":
            return False
    try:
        json.loads(line.decode(errors="ignore"))
    except ValueError:
        return True
    return False
