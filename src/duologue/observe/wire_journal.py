"""The wire journal of a call: all that crossed the border of its session, both ways.

A line of ``wire.jsonl`` is a record: ``t`` is when, in seconds of the recording, ``b`` counts turns
of the event loop, ``s`` is whose border it was (the session, or a streaming part), and ``k`` what
happened:

    begin           a session or part began, made of these options
    tell            it got a command: a method's name ``n`` and arguments ``a``
    ask, ret        it called the other side, in the same form; what that returned, if anything
    fire            the timer number ``i`` of that name fired
    unix            reading of the calendar's clock
    voice           verdict on the person's voice number ``i``
    dial            it made connection number ``w``
    up, refused     the connection was made, or was not
    in, out         a message ``m`` was received or sent
    sent            sending message number ``i`` took until now
    full            a message could not be sent at once
    end, closed     the connection ended; was closed
    stop            the journal ends here, because of a pause, a slow disk or an error

Records with a depth ``d`` happened within the last ``ask`` of the depth below. Secrets are replaced
by pseudonyms. Audio of the person is replaced by its length, highest sample and hash unless it was
asked for; images always are.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from duologue.clock import Clock
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.observe._recording_border import RecordingBorder
from duologue.observe._wire_file import WIRE_FILE
from duologue.observe.wire_json import (
    Secrets,
    options_to_json,
    value_to_json,
)
from duologue.pipeline.socket_stt import SocketSTT
from duologue.realtime.border import (
    Border,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.realtime import Realtime

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the journal's format."""

ADJACENT_TURNS = 3
"""Turns of the event loop that are counted behind each record."""

type Write = Callable[[Callable[[], str]], bool]
"""Writes the line that a function returns, which runs in a thread; False once that is too much."""


class WireJournal:
    """Writes the wire journal of one call; the `Borders` of its session.

    Args:
        write: Writes a line.
        clock: The clock of the call.
        zero: The clock's time at the beginning of the recording.
        unix_time: The same moment in Unix seconds.
        keep_audio: Whether the person's audio is written, too.
        secrets: Texts that are never written.
    """

    def __init__(
        self,
        write: Write,
        clock: Clock,
        *,
        zero: float,
        unix_time: float,
        keep_audio: bool = False,
        secrets: Sequence[str] = (),
    ) -> None:
        self._write = write
        self.clock = clock
        self.zero = zero
        self._unix_zero = unix_time
        self.keep_audio = keep_audio
        self.secrets = Secrets(secrets)
        self._subjects = 0
        self._turns_to_count = 0
        self._stopped_turn = -1
        self._stopped_at = 0.0
        self.turn = 0
        """Turns of the event loop so far in which anything was written, and a few behind each."""
        self.is_open = True
        self._has_failed = False

    def session(self, realtime: Realtime, setup: SessionSetup) -> Border:
        """Return the border of a session that begins."""
        border = self._border()
        border.rate = realtime.capabilities.input_rate
        key: object = getattr(realtime, "_api_key", None)
        if isinstance(key, str):
            self.secrets.add(key)
        facts = self._options(realtime)
        realtime.unix_time = border.unix_clock(realtime.unix_time)
        voice = realtime.voice
        border.put(
            "begin",
            subject="pipeline" if realtime.in_process else "session",
            version=VERSION,
            unix=self._unix_zero,
            keep_audio=self.keep_audio,
            zero=self.zero,
            session_id=realtime.session_id,
            provider=realtime.capabilities.provider,
            model=realtime.capabilities.model,
            input_rate=realtime.capabilities.input_rate,
            base_url=_plain_address(getattr(realtime, "base_url", None)),
            voice_rate=None if voice is None else voice.rate,
            setup=setup,
            **facts,
        )
        return border

    def part(self, part: object) -> Border:
        """Return the border of a streaming part that begins."""
        border = self._border()
        origin: object = getattr(part, "origin", None)
        service: object = getattr(origin, "_service", None)
        key: object = getattr(service, "_api_key", None)
        if isinstance(key, str):
            self.secrets.add(key)
        border.put(
            "begin",
            subject="stt" if isinstance(part, SocketSTT) else "tts",
            version=VERSION,
            unix=self._unix_zero,
            keep_audio=self.keep_audio,
            zero=self.zero,
            base_url=_plain_address(getattr(service, "base_url", None)),
            **self._options(origin),
        )
        return border

    def stop(self, reason: str) -> None:
        """End the journal."""
        if self.is_open:
            self.is_open = False
            line = _stop_line(self._now(), reason)
            self._write(lambda: line)

    def _options(self, origin: object) -> JsonObject:
        """Return the options of a model or part; end the journal if its class fails at it."""
        try:
            return options_to_json(origin)
        except Exception as error:
            log.exception("the wire journal ends early")
            self.stop(f"the options can't be written: {type(error).__name__}")
            return {}

    def _border(self) -> RecordingBorder:
        border = RecordingBorder(self, self._subjects)
        self._subjects += 1
        return border

    def put(self, record: dict[str, object], message: Callable[[], Json] | None) -> None:
        """Write a record; ``message`` returns the message in it."""
        if not self.is_open:
            return
        if not self._turns_to_count:
            self.turn += ADJACENT_TURNS + 1
            asyncio.get_running_loop().call_soon(self._count_turn)
        self._turns_to_count = ADJACENT_TURNS
        # A timer that fires must find its time reached.
        if self._stopped_turn != self.turn or record["k"] == "fire":
            self._stopped_turn, self._stopped_at = self.turn, self.clock.now()
        record = {"t": self._stopped_at - self.zero, "b": self.turn, **record}
        if not self._write(functools.partial(self._line, record, message)):
            self.stop("the disk is too slow")

    def time(self) -> float:
        """Return the time by the clock of the inside.

        It stands still for the rest of a turn of the event loop in which anything was written, so
        that what is decided by it comes out the same in a replay.
        """
        return self._stopped_at if self._stopped_turn == self.turn else self.clock.now()

    def _now(self) -> float:
        return self.clock.now() - self.zero

    def _count_turn(self) -> None:
        self.turn += 1
        self._turns_to_count -= 1
        if self._turns_to_count:
            asyncio.get_running_loop().call_soon(self._count_turn)

    def _line(self, record: Mapping[str, object], message: Callable[[], Json] | None) -> str:
        """Return the line of a record; runs in the recorder's thread.

        An error ends the journal only, not the recording.
        """
        if self._has_failed:
            return ""
        try:
            return self._encoded(record, message)
        except Exception as error:
            self._has_failed, self.is_open = True, False
            log.exception("the wire journal ends early")
            reason = f"a record can't be written: {type(error).__name__}"
            return _stop_line(cast("float", record["t"]), reason)

    def _encoded(self, record: Mapping[str, object], message: Callable[[], Json] | None) -> str:
        keep = self.keep_audio and record["k"] == "tell"
        made = cast("JsonObject", value_to_json(record, keep_audio=keep))
        if message is not None:
            made["m"] = message()
        if made["k"] != "in":
            made = cast("JsonObject", self.secrets.clean(made))
        return json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n"


def _stop_line(at: float, reason: str) -> str:
    return json.dumps({"t": round(at, 3), "k": "stop", "reason": reason}) + "\n"


def _plain_address(address: object) -> str | None:
    """Return an address without password and parameters."""
    if not isinstance(address, str):
        return None
    scheme, _, rest = address.partition("://")
    rest = re.split(r"[?#]", rest)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def calls_with_wire(folder: Path) -> Sequence[Path]:
    """Return the folders of the calls in a folder that have a wire journal; or the one call it is.

    Raises:
        ConfigError: There is none.
    """
    if (folder / WIRE_FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{WIRE_FILE}"))
    if not found:
        raise _no_journal(folder)
    return found


def _no_journal(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} has no wire journal ({WIRE_FILE}): record with Recorder(..., wire=True)"
    )


def read_wire(folder: str | Path) -> Sequence[JsonObject]:
    """Return the records of a call's wire journal; a last line that is cut short is left out.

    Raises:
        ConfigError: There is none, or it is of a newer version.
    """
    path = Path(folder)
    path = path / WIRE_FILE if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _no_journal(path.parent) from error
    found: list[JsonObject] = []
    for line in text.split("\n"):
        try:
            record: Json = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found.append(record)
    versions = [one.get("version") for one in found if one.get("k") == "begin"]
    if any(version != VERSION for version in versions):
        raise ConfigError(f"{path} is of another version of duologue: replay it with that one")
    return found
