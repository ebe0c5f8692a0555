"""Log records as JSON, one a line, each with the id of the call that it belongs to.

The id is a context variable, which every task that a call starts inherits. The formatter writes the
type of an error and where it was raised, but not its text, because the error of a tool or of a
handler may repeat what a person said; the messages of this library contain no words of either side.
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_call_id: ContextVar[str | None] = ContextVar("duologue_call_id", default=None)

MAX_FRAMES = 20
"""Most stack frames of an error that are written: those next to where it was raised."""


@contextmanager
def call_context(call_id: str) -> Generator[None]:
    """Mark everything that is logged in the block, and by tasks begun in it, as of one call."""
    token = _call_id.set(call_id)
    try:
        yield
    finally:
        _call_id.reset(token)


def current_call_id() -> str | None:
    """Return the id of the call that this code runs for; None outside of a call."""
    return _call_id.get()


class JsonLogFormatter(logging.Formatter):
    """Formats each record as a JSON object: ``time``, ``level``, ``logger``, ``message``, ``pid``.

    ``session`` is the id of the call, where the record belongs to one. An error adds ``error`` (its
    type) and ``stack`` (``file:line function``, innermost last), and never its text.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "pid": os.getpid(),
        }
        if (call_id := _call_id.get()) is not None:
            entry["session"] = call_id
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            entry["error"] = type(error).__name__
            frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
            entry["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(entry, ensure_ascii=False, default=str)


def _message(record: logging.LogRecord) -> str:
    """Return the message of a record; where it ends with the text of its error, without that."""
    message = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = " ".join(str(record.exc_info[1]).split())
        if text:
            message = message.replace(text, "...")
    return message
