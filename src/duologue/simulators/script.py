"""The script language: what a simulated model hears, says, and expects of its client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.simulators._expectations import Expectation
from duologue.simulators._yaml_file import parse_yaml, read_text, short_repr, step_lines
from duologue.testing.scripted import Reply, ToolUse

_STEP_KINDS = ("hear", "say", "call", "calls", "fail", "refuse", "wait", "expect")
_REPLY_FIELDS = {
    "say": str,
    "call": str,
    "with": dict,
    "calls": list,
    "seconds": float,
    "after": float,
    "pace": float,
    "tone": float,
    "wav": str,
    "voice": str,
    "fail": dict,
    "refuse": str,
}
_OTHER_FIELDS: Mapping[str, Mapping[str, type]] = {
    "hear": {"hear": str},
    "wait": {"wait": float},
    "expect": {"expect": str, "within": float, "where": dict},
}
_TYPE_NAMES: Mapping[type, str] = {str: "a text", dict: "an object", list: "a list"}

MAX_S = 86_400.0
"""Seconds of the longest pause or reply of a script: a day."""
_MAX_VALUES = {"seconds": 3600.0, "pace": 1000.0, "tone": 20_000.0}
"""Upper bounds of fields; all others have `MAX_S`."""


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """A reply, and the source of its audio: a WAV file, the local voice, or a tone."""

    reply: Reply
    wav: Path | None = None
    voice: Literal["tone", "local"] = "tone"


@dataclass(frozen=True, slots=True)
class Script:
    """A compiled script.

    Attributes:
        transcripts: The transcripts of the turns, in order.
        replies: The replies, in order.
        expectations: What is expected of the client, in order.
        paraphrase: The model does not say verbatim text word for word.
        transcription_delay: Seconds by which transcripts are late.
    """

    transcripts: Sequence[str] = ()
    replies: Sequence[ScriptedReply] = ()
    expectations: Sequence[Expectation] = ()
    paraphrase: bool = False
    transcription_delay: float = 0.0

    @classmethod
    def load(cls, file: Path) -> Script:
        """Read a YAML file.

        Raises:
            ConfigError: The file cannot be read or is wrong; the message names the line.
        """
        return cls.parse(read_text(file), where=str(file), folder=file.parent)

    @classmethod
    def parse(cls, text: str, *, where: str = "script", folder: Path = Path()) -> Script:
        """Compile a YAML text.

        Args:
            text: The script.
            where: Its name in errors.
            folder: The folder of its WAV files.

        Raises:
            ConfigError: The script is wrong; the message names the line.
        """
        value = parse_yaml(text, where)
        lines = step_lines(text)
        options: JsonObject = {}
        if isinstance(value, dict):
            options = {key: one for key, one in value.items() if key != "steps"}
            value = value.get("steps")
        if not isinstance(value, list):
            raise ConfigError(f"{where}: a script must be a list of steps")
        compiler = _Compiler(folder)
        for index, step in enumerate(value):
            compiler.add_step(step, f"{where}, line {lines[index]} (step {index + 1})")
        return _with_options(compiler.build(), options, where)


def _with_options(script: Script, options: Mapping[str, Json], where: str) -> Script:
    for key, value in options.items():
        match key, value:
            case "paraphrase", bool():
                script = replace(script, paraphrase=value)
            case "transcription_delay", int() | float() if _is_number(value, MAX_S):
                script = replace(script, transcription_delay=float(value))
            case _:
                raise ConfigError(
                    f"{where}: {key}: {short_repr(value)} is not known; besides steps there are "
                    "paraphrase: true and transcription_delay: SECONDS"
                )
    return script


class _Compiler:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._transcripts: list[str] = []
        self._replies: list[ScriptedReply] = []
        self._expectations: list[Expectation] = []
        self._wait = 0.0

    def build(self) -> Script:
        return Script(tuple(self._transcripts), tuple(self._replies), tuple(self._expectations))

    def add_step(self, step: Json, place: str) -> None:
        if not isinstance(step, dict):
            raise ConfigError(f"{place}: a step must be an object such as `say: Hello.`")
        kind = next((key for key in step if key in _STEP_KINDS), None)
        if kind is None:
            raise ConfigError(f"{place}: a step must have one of {', '.join(_STEP_KINDS)}")
        known = _OTHER_FIELDS.get(kind, _REPLY_FIELDS)
        for key, value in step.items():
            _check_field(key, value, known, place)
        match kind:
            case "hear":
                self._transcripts.append(str(step["hear"]))
            case "wait":
                self._wait += _as_number(step["wait"])
            case "expect":
                where = step.get("where")
                self._expectations.append(
                    Expectation(
                        str(step["expect"]),
                        within=_as_number(step.get("within"), 5.0),
                        where=where if isinstance(where, dict) else {},
                        turns=len(self._transcripts),
                        replies=len(self._replies),
                        place=place,
                    )
                )
            case _:
                self._replies.append(self._reply(step, place))

    def _reply(self, step: Mapping[str, Json], place: str) -> ScriptedReply:
        seconds = step.get("seconds")
        fail = step.get("fail")
        message = None
        if isinstance(fail, dict):
            message = str(fail.get("message", "the script says so"))
        tools = [ToolUse(str(step["call"]), _as_object(step.get("with")))] if "call" in step else []
        calls = step.get("calls")
        for call in calls if isinstance(calls, list) else []:
            if not isinstance(call, dict) or len(call) != 1:
                raise ConfigError(
                    f"{place}: calls must be objects such as {{weather: {{city: x}}}}"
                )
            tools += [ToolUse(name, _as_object(arguments)) for name, arguments in call.items()]
        reply = Reply(
            str(step.get("say", "")),
            seconds=None if seconds is None else _as_number(seconds),
            after_s=_as_number(step.get("after"), 0.1) + self._wait,
            pace=_as_number(step.get("pace"), 0.0),
            tone=_as_number(step.get("tone"), 440.0),
            tools=tuple(tools),
            fails=message,
            refused=None if "refuse" not in step else str(step["refuse"]),
        )
        self._wait = 0.0
        wav = self._folder / str(step["wav"]) if "wav" in step else None
        if wav is not None and not wav.is_file():
            raise ConfigError(f"{place}: there is no file {wav}")
        voice = step.get("voice", "tone")
        if voice not in ("tone", "local"):
            raise ConfigError(f"{place}: voice must be tone or local, not {short_repr(voice)}")
        return ScriptedReply(reply, wav, "local" if voice == "local" else "tone")


def _as_object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _as_number(value: Json, default: float = 0.0) -> float:
    return float(value) if isinstance(value, int | float) else default


def _check_field(key: str, value: Json, known: Mapping[str, type], place: str) -> None:
    kind = known.get(key)
    if kind is None:
        raise ConfigError(f"{place}: {key} is not known here; known are {', '.join(known)}")
    if kind is float:
        highest = _MAX_VALUES.get(key, MAX_S)
        good, wanted = _is_number(value, highest), f"a number from 0 to {highest:g}"
    elif kind is str:
        good, wanted = isinstance(value, str | int | float), _TYPE_NAMES[str]
    else:
        good, wanted = isinstance(value, kind), _TYPE_NAMES[kind]
    if not good:
        raise ConfigError(f"{place}: {key} must be {wanted}, not {short_repr(value)}")


def _is_number(value: Json, highest: float) -> bool:
    """Return whether it is a number from 0 to ``highest``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= highest
