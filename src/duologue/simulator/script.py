"""The script language: what a simulated model hears, answers, and expects of its client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from duologue.items import Json
from duologue.realtime.errors import ConfigError
from duologue.simulator.expectations import Expectation
from duologue.simulator.yaml_file import lines_of_steps, parse_yaml, read_text, shown
from duologue.testing.scripted import Reply, ToolUse

_STEPS = ("hear", "say", "call", "calls", "fail", "refuse", "wait", "expect")
_REPLY = {
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
_OTHERS: Mapping[str, Mapping[str, type]] = {
    "hear": {"hear": str},
    "wait": {"wait": float},
    "expect": {"expect": str, "within": float, "where": dict},
}
_NAMES: Mapping[type, str] = {str: "a text", dict: "an object", list: "a list"}

MAX_S = 86_400.0
"""Seconds of a script's pauses and of its replies: a day."""
_HIGHEST = {"seconds": 3600.0, "pace": 1000.0, "tone": 20_000.0}
"""Bounds of some fields; that of the others is `MAX_S`."""


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """A reply, and where its sound comes from: a WAV file, the local voice, or else a tone."""

    reply: Reply
    wav: Path | None = None
    voice: Literal["tone", "local"] = "tone"


@dataclass(frozen=True, slots=True)
class Script:
    """A script, compiled: the turns' words, the replies, and what is expected, each in order.

    ``paraphrase``: the model does not say word for word what it is told to say.
    """

    transcripts: Sequence[str] = ()
    replies: Sequence[ScriptedReply] = ()
    expectations: Sequence[Expectation] = ()
    paraphrase: bool = False
    transcription_delay: float = 0.0

    @classmethod
    def load(cls, file: Path) -> Script:
        """Read a YAML file. Raises `ConfigError`, with the line."""
        return cls.parse(read_text(file), where=str(file), folder=file.parent)

    @classmethod
    def parse(cls, text: str, *, where: str = "script", folder: Path = Path()) -> Script:
        """Compile a YAML text. Raises `ConfigError`, with the line."""
        value = parse_yaml(text, where)
        lines = lines_of_steps(text)
        options: dict[str, Json] = {}
        if isinstance(value, dict):
            options = {key: one for key, one in value.items() if key != "steps"}
            value = value.get("steps")
        if not isinstance(value, list):
            raise ConfigError(f"{where}: a script is a list of steps")
        compiler = _Compiler(folder)
        for index, step in enumerate(value):
            compiler.add(step, f"{where}, line {lines[index]} (step {index + 1})")
        return _with_options(compiler.script(), options, where)


def _with_options(script: Script, options: Mapping[str, Json], where: str) -> Script:
    for key, value in options.items():
        match key, value:
            case "paraphrase", bool():
                script = replace(script, paraphrase=value)
            case "transcription_delay", int() | float() if _is_number(value, MAX_S):
                script = replace(script, transcription_delay=float(value))
            case _:
                raise ConfigError(
                    f"{where}: {key}: {shown(value)} is not known; beside steps it takes "
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

    def script(self) -> Script:
        return Script(tuple(self._transcripts), tuple(self._replies), tuple(self._expectations))

    def add(self, step: Json, place: str) -> None:
        if not isinstance(step, dict):
            raise ConfigError(f"{place}: a step is an object such as `say: Hello.`")
        kind = next((key for key in step if key in _STEPS), None)
        if kind is None:
            raise ConfigError(f"{place}: a step has one of {', '.join(_STEPS)}")
        known = _OTHERS.get(kind, _REPLY)
        for key, value in step.items():
            _check(key, value, known, place)
        match kind:
            case "hear":
                self._transcripts.append(str(step["hear"]))
            case "wait":
                self._wait += _number(step["wait"])
            case "expect":
                where = step.get("where")
                self._expectations.append(
                    Expectation(
                        str(step["expect"]),
                        within=_number(step.get("within"), 5.0),
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
        tools = [ToolUse(str(step["call"]), _object(step.get("with")))] if "call" in step else []
        calls = step.get("calls")
        for call in calls if isinstance(calls, list) else []:
            if not isinstance(call, dict) or len(call) != 1:
                raise ConfigError(f"{place}: calls takes objects such as {{weather: {{city: x}}}}")
            tools += [ToolUse(name, _object(arguments)) for name, arguments in call.items()]
        reply = Reply(
            str(step.get("say", "")),
            seconds=None if seconds is None else _number(seconds),
            after_s=_number(step.get("after"), 0.1) + self._wait,
            pace=_number(step.get("pace"), 0.0),
            tone=_number(step.get("tone"), 440.0),
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
            raise ConfigError(f"{place}: voice must be tone or local, not {shown(voice)}")
        return ScriptedReply(reply, wav, "local" if voice == "local" else "tone")


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _number(value: Json, default: float = 0.0) -> float:
    return float(value) if isinstance(value, int | float) else default


def _check(key: str, value: Json, known: Mapping[str, type], place: str) -> None:
    kind = known.get(key)
    if kind is None:
        raise ConfigError(f"{place}: {key} is not known here; it takes {', '.join(known)}")
    if kind is float:
        highest = _HIGHEST.get(key, MAX_S)
        good, wanted = _is_number(value, highest), f"a number from 0 to {highest:g}"
    elif kind is str:
        good, wanted = isinstance(value, str | int | float), _NAMES[str]
    else:
        good, wanted = isinstance(value, kind), _NAMES[kind]
    if not good:
        raise ConfigError(f"{place}: {key} must be {wanted}, not {shown(value)}")


def _is_number(value: Json, highest: float) -> bool:
    """Return whether it is a number from 0 to ``highest``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= highest
