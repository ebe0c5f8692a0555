"""What is replayed: a session, or a streaming part, made again from its journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from duologue.errors import ConfigError
from duologue.json_types import JsonObject
from duologue.observe.wire_json import (
    find_class,
    object_from_json,
)
from duologue.pipeline.interfaces import Synthesis
from duologue.pipeline.socket_stt import SocketSTT
from duologue.pipeline.socket_tts import SocketTTS
from duologue.realtime.border import (
    BORDER,
    Border,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.realtime import Realtime
from duologue.testing._replay_border import (
    OuterClock,
    PlayedVoice,
    ReplayBorder,
    ReplayObserver,
)
from duologue.vad.energy import EnergyVAD


class Subject:
    """What is replayed."""

    async def run(self) -> None:
        """Run until cancelled, or over."""
        raise NotImplementedError

    def tell(self, name: str, args: Sequence[object]) -> None:
        """Repeat a recorded command."""
        raise NotImplementedError


class SessionSubject(Subject):
    def __init__(self, border: ReplayBorder, make: Callable[[], Realtime] | None) -> None:
        begin = border.script.begin
        self._border = border
        model = _make_realtime(begin, border.time) if make is None else make()
        readings, unix = border.script.unix_readings, border.script.unix
        model.unix_time = lambda: readings.popleft() if readings else border.now() + unix
        model.borders = self
        if isinstance(rate := begin.get("voice_rate"), int):
            model.use_voice(PlayedVoice(border, rate))
        self._model = model

    def session(self, realtime: Realtime, setup: SessionSetup) -> Border:
        """Return the border; see `duologue.realtime.border.Borders`."""
        del realtime, setup
        return self._border

    async def run(self) -> None:
        setup = cast("SessionSetup", self._border.decode(self._border.script.begin["setup"]))
        await self._model.run(setup, ReplayObserver(self._border))

    def tell(self, name: str, args: Sequence[object]) -> None:
        session = self._border.commands
        if session is None:
            return
        match name:
            case "interrupt":
                session.interrupt(keep_results=bool(args[0]))
            case (
                "send_audio" | "transmit" | "transmit_directly" | "end_turn" | "clear_input"
                | "request" | "discard_reply" | "restore_reply" | "send_tool_result" | "update"
                | "roll_over"
            ):  # fmt: skip
                method: Callable[..., object] = getattr(session, name)
                method(*args)


class _PartSubject(Subject):
    """A streaming part."""

    def __init__(self, border: ReplayBorder) -> None:
        self._border = border

    def part(self, part: object) -> Border:
        """Return the border of the part."""
        del part
        self._border.began.set()
        return self._border

    async def run(self) -> None:
        token = BORDER.set(cast("Border", self))
        try:
            await self.run_part()
        finally:
            BORDER.reset(token)

    async def run_part(self) -> None:
        """Run the part."""
        raise NotImplementedError


class STTSubject(_PartSubject):
    def __init__(self, border: ReplayBorder) -> None:
        super().__init__(border)
        self._part = cast("SocketSTT[object]", _make_part(border.script.begin, border.time))

    async def run_part(self) -> None:
        await self._part.run(lambda _: None)

    def tell(self, name: str, args: Sequence[object]) -> None:
        if name in ("push", "settle", "end_turn"):
            method: Callable[..., object] = getattr(self._part, name)
            method(*args)


class TTSSubject(_PartSubject):
    def __init__(self, border: ReplayBorder) -> None:
        super().__init__(border)
        self._part = cast("SocketTTS[object]", _make_part(border.script.begin, border.time))
        self._syntheses: list[Synthesis] = []

    async def run_part(self) -> None:
        await self._part.run()

    def tell(self, name: str, args: Sequence[object]) -> None:
        match name, args:
            case "synthesize", [bool(hurry)]:
                self._syntheses.append(self._part.synthesize(lambda _: None, hurry=hurry))
            case "send", [int(number), str(text)]:
                with suppress(StopIteration):  # It never waits.
                    self._syntheses[number].send(text).send(None)
            case "flush", [int(number)]:
                self._syntheses[number].flush()
            case "finish", [int(number)]:
                self._syntheses[number].finish()
            case "cancel", [int(number), played]:
                self._syntheses[number].cancel(cast("int | None", played))


def _make_realtime(begin: JsonObject, now: Callable[[], float]) -> Realtime:
    made = _make(begin, now, vad=EnergyVAD())
    if not isinstance(made, Realtime):
        raise ConfigError(f"{begin.get('class')} is no Realtime: the journal is damaged")
    return made


def _make_part(begin: JsonObject, now: Callable[[], float]) -> object:
    connect: Callable[[], object] = getattr(_make(begin, now), "connect")  # noqa: B009 - any part's
    return connect()


def _make(begin: JsonObject, now: Callable[[], float], **more: object) -> object:
    name = str(begin.get("class"))
    kind = find_class(name)
    options = {
        key: object_from_json(value)
        for key, value in cast("JsonObject", begin.get("options", {})).items()
    }
    known = {one.name for one in dataclasses.fields(_options_type(kind, name))}
    given = {
        **options,
        **more,
        "api_key": "replayed",
        "base_url": begin.get("base_url"),
        "clock": OuterClock(now),
    }
    make = cast("Callable[..., object]", kind)
    return make(**{key: value for key, value in given.items() if key in known})


def _options_type(kind: type, name: str) -> type:
    options: object = getattr(getattr(kind, "__init__"), "options_type", None)  # noqa: B009 - of any class
    if not isinstance(options, type) or not dataclasses.is_dataclass(options):
        raise ConfigError(f"{name} can't be made again from the journal: give replay a realtime")
    return options
