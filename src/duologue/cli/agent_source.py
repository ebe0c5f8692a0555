"""Where the agents of a command come from: the user's function, or the model of its options.

A command asks its `AgentSource` for an agent for each conversation. `AppSource` calls the function
that ``app:make_agent`` names. `ModelSource` makes the model that ``--llm``, ``--stt``, ``--tts``
and ``--set`` describe. There are three shapes:

* a speech-to-speech model: ``--llm openai``, or the built-in engine by default;
* such a model that replies in text, and a voice: ``--llm openai --tts elevenlabs:VOICE``;
* a pipeline around a text model: ``--llm anthropic:MODEL --stt deepgram --tts cartesia:VOICE``.
  What is left out of it comes from the built-in engine.

A `Realtime` serves one conversation, so each one gets its own. The parts of a pipeline serve any
number and are made once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from duologue._optional import is_installed
from duologue.cli import options as shared
from duologue.cli.app_path import call_app, load_app
from duologue.cli.extras import EXTRAS
from duologue.cli.options import ModelOptions
from duologue.errors import ConfigError, SessionError
from duologue.realtime.codec import SessionSetup

if TYPE_CHECKING:
    from duologue.agent.agent import Agent
    from duologue.edges.protocol import Edge
    from duologue.pipeline.interfaces import (
        LLM,
        STT,
        TTS,
        StreamingSTT,
        StreamingTTS,
        TurnDetector,
    )
    from duologue.realtime.realtime import Realtime
    from duologue.vad.vad import VAD

_REALTIME = ("aws", "gemini", "local", "openai", "qwen")
"""Providers of this package with a speech-to-speech model."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The loaded parts of a pipeline."""

    llm: LLM
    stt: STT | StreamingSTT
    tts: TTS | StreamingTTS
    turn_detection: TurnDetector | None
    vad: VAD | None


class AgentSource(Protocol):
    """Makes an agent for each conversation."""

    extras: Sequence[str]
    """The extras that it needs."""

    in_process: bool
    """Whether its model may run in virtual time, because no service on a network takes part."""

    @property
    def description(self) -> str:
        """What talks, as the user names it."""
        ...

    loading_message: str
    """What to print while it is prepared; "" if that takes no time."""

    async def prepare(self) -> str:
        """Get ready for the first conversation; return a warning, "" if there is none.

        Raises:
            ConfigError: The service refuses the key, the model or an option.
        """
        ...

    async def call(self, edge: Edge) -> Agent | None:
        """Return the agent of a conversation, which has not joined; None if it is over already."""
        ...


class AppSource:
    """Asks the user's function for an agent (see `duologue.cli.app_path`)."""

    extras: Sequence[str] = ()
    in_process = True  # not known; the user who runs an app in virtual time knows
    loading_message = ""

    def __init__(self, path: str) -> None:
        self.path = path
        self._function = load_app(path)

    @property
    def description(self) -> str:
        """The path of the function."""
        return self.path

    async def prepare(self) -> str:
        """Do nothing: the function prepares what it needs."""
        return ""

    async def call(self, edge: Edge) -> Agent | None:
        """Call the function.

        Raises:
            AppError: The function failed; the log has the file and line.
        """
        return await call_app(self.path, self._function, edge)


class ModelSource:
    """An `AgentSource` with the model that the options describe.

    ``is_pipeline`` is whether that is a text model, with a recogniser and a voice.

    Raises:
        ConfigError: There is no such provider or option, or there is no key.
        MissingExtraError: A provider of another distribution lacks a package.
    """

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._parts: _Parts | None = None
        self._voice: TTS | StreamingTTS | None = None
        provider = options.provider
        if options.stt is not None or (provider == "local" and options.tts is not None):
            self.is_pipeline = True
        else:
            # Importing one of ours would report one missing package; `extras` reports all of them.
            self.is_pipeline = provider not in _REALTIME and find_realtime(provider) is None
        if self.is_pipeline:
            _check_part("llm", provider)
        self.extras: Sequence[str] = _extras(options, pipeline=self.is_pipeline)
        self.in_process = self.extras in ([], ["local"])
        self.loading_message = (
            "Loading the engine ..." if "local" in self.extras else f"Trying {options.provider} ..."
        )

    @property
    def description(self) -> str:
        """What talks, as the options name it."""
        options = self._options
        parts = [options.llm or f"local:{options.model or shared.DEFAULT_PROFILE}"]
        parts += [
            f"{kind} {part}" for kind, part in (("stt", options.stt), ("tts", options.tts)) if part
        ]
        return " with ".join((parts[0], " and ".join(parts[1:]))) if parts[1:] else parts[0]

    async def prepare(self) -> str:
        """Load weights, make the parts, and connect to a speech-to-speech model once."""
        options = self._options
        if self.is_pipeline:
            self._parts = parts = await self._make_parts()
            return await self._check_parts(parts)
        realtime = self.make_realtime()
        if options.tts is not None:
            self._voice = await asyncio.to_thread(self._make_tts, options.tts)
        setup = SessionSetup(options.instructions)
        await realtime.prepare(setup)
        try:
            transient = await realtime.check(setup)
        except SessionError as error:
            raise ConfigError(f"--llm {options.provider}: {error}") from None
        if transient is None:
            return ""
        return f"{options.provider} can't be reached now, but may be later: {transient}"

    async def _check_parts(self, parts: _Parts) -> str:
        """Try the parts that are reached over a network; return a warning, "" if there is none."""
        from duologue.cli.part_check import check_connection, check_llm
        from duologue.pipeline.interfaces import StreamingSTT, StreamingTTS

        checks = []
        if self._options.provider != "local":
            await parts.llm.prepare(self._options.instructions, ())
            checks.append(check_llm(f"--llm {self._options.provider}", parts.llm))
        if isinstance(parts.stt, StreamingSTT):
            stt = parts.stt.connect()
            run = stt.run(lambda event: None)
            checks.append(check_connection(f"--stt {self._options.stt}", run, _connects(stt)))
        if isinstance(parts.tts, StreamingTTS):
            tts = parts.tts.connect()
            checks.append(check_connection(f"--tts {self._options.tts}", tts.run(), _connects(tts)))
        results = await asyncio.gather(*checks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        warnings = "; ".join(str(result) for result in results if result)
        return f"not everything can be reached now: {warnings}" if warnings else ""

    async def call(self, edge: Edge) -> Agent:
        """Return an agent with a model of its own."""
        return self.make_agent(edge)

    def make_agent(self, edge: Edge) -> Agent:
        """Return an agent, which has not joined; a pipeline must be prepared before."""
        from duologue.agent.agent import Agent

        instructions, parts = self._options.instructions, self._parts
        if parts is not None:
            return Agent(
                edge=edge,
                llm=parts.llm,
                stt=parts.stt,
                tts=parts.tts,
                turn_detection=parts.turn_detection,
                vad=parts.vad,
                instructions=instructions,
            )
        return Agent(
            edge=edge, llm=self.make_realtime(), tts=self._voice, instructions=instructions
        )

    def make_realtime(self) -> Realtime:
        """Return a speech-to-speech model for one conversation."""
        from duologue.providers.settings import option_names, read_settings

        options, kind = self._options, find_realtime(self._options.provider)
        assert kind is not None  # noqa: S101 - this is no pipeline
        settings = read_settings(kind, self._settings_of("llm"))
        names = option_names(kind)
        if options.voice is not None and options.tts is None:  # else it is that of the TTS
            if "voice" not in names:
                raise ConfigError(f"{options.provider} has no choice of voices: leave out --voice")
            settings["voice"] = options.voice
        if options.tts is not None:
            if "output" not in names:
                raise ConfigError(
                    f"{options.provider} can't reply in text for --tts: "
                    "choose openai or qwen, or give --stt too"
                )
            settings.setdefault("output", "text")
        if options.provider == "local":
            settings.pop("offline", None)
            return shared.make_realtime(
                options.model or shared.DEFAULT_PROFILE, offline=options.offline, **settings
            )
        if options.model is not None:
            settings.setdefault("model", options.model)
        return cast("Callable[..., Realtime]", kind)(**settings)

    def _settings_of(self, part: Literal["llm", "stt", "tts"]) -> list[str]:
        """Return the settings of a part, without its prefix."""
        result = []
        for setting in self._options.settings:
            name, dot, rest = setting.partition(".")
            prefix = name if dot and name in ("llm", "stt", "tts") else "llm"
            if prefix == part:
                result.append(rest if dot and name == part else setting)
        return result

    async def _make_parts(self) -> _Parts:
        options = self._options
        stt_name, tts_name = options.stt or "local", options.tts or "local"
        # Parts of services first: one that lacks its key says so before any weights are loaded.
        llm = None if options.provider == "local" else await asyncio.to_thread(self._make_llm)
        stt = None if _is_local(stt_name) else await asyncio.to_thread(self._make_stt, stt_name)
        tts = None if _is_local(tts_name) else await asyncio.to_thread(self._make_tts, tts_name)
        loaded_llm, loaded_stt, loaded_tts = await asyncio.gather(
            asyncio.to_thread(lambda: llm or self._make_llm()),
            asyncio.to_thread(lambda: stt or self._make_stt(stt_name)),
            asyncio.to_thread(lambda: tts or self._make_tts(tts_name)),
            return_exceptions=True,
        )
        # The first error in the order of the options, not in that of time.
        if isinstance(loaded_llm, BaseException):
            raise loaded_llm
        if isinstance(loaded_stt, BaseException):
            raise loaded_stt
        if isinstance(loaded_tts, BaseException):
            raise loaded_tts
        llm, stt, tts = loaded_llm, loaded_stt, loaded_tts
        finds_turns = getattr(stt, "turns", "") == "service"
        turn_detection: TurnDetector | None = None
        vad: VAD | None = None
        if is_installed("earshot"):
            from duologue.vad.earshot import EarshotVAD

            vad = EarshotVAD()
        if not finds_turns and is_installed("onnxruntime"):
            from duologue.providers.local.engine import load_turn_detector

            load = partial(load_turn_detector, offline=options.offline)
            turn_detection = await asyncio.to_thread(load)
        return _Parts(llm, stt, tts, turn_detection, vad)

    def _make_llm(self) -> LLM:
        options = self._options
        if options.provider == "local":
            from duologue.providers.local.engine import find_profile, load_gguf, load_llm

            model = options.model or shared.DEFAULT_PROFILE
            if shared.names_file(model):
                return load_gguf(model, offline=options.offline)
            return load_llm(find_profile(model), offline=options.offline)[1]
        return cast("LLM", self._make_part("llm", cast("str", options.llm)))

    def _make_stt(self, spec: str) -> STT | StreamingSTT:
        return cast("STT | StreamingSTT", self._make_part("stt", spec))

    def _make_tts(self, spec: str) -> TTS | StreamingTTS:
        voice = self._options.voice
        if voice is not None:
            if ":" in spec:
                raise ConfigError("--voice and --tts both name a voice: leave out --voice")
            spec = f"{spec}:{voice}"
        return cast("TTS | StreamingTTS", self._make_part("tts", spec))

    def _make_part(self, kind: Literal["llm", "stt", "tts"], spec: str) -> object:
        from duologue.providers import parts
        from duologue.providers.settings import read_settings

        make = {"llm": parts.make_llm, "stt": parts.make_stt, "tts": parts.make_tts}[kind]
        settings = read_settings(
            parts.find_part(kind, spec.partition(":")[0]), self._settings_of(kind)
        )
        made: object = make(spec, **cast("dict[str, Any]", settings))
        return made


def _is_local(spec: str) -> bool:
    return spec.partition(":")[0] == "local"


def agent_source(app: str | None, model: ModelOptions) -> AgentSource:
    """Return what makes the agents of a command.

    Raises:
        ConfigError: There are both an app and options of the model, or one of them can't be used.
    """
    if app is None:
        return ModelSource(model)
    if model.given:
        raise ConfigError(f"{app} chooses its own model: leave out {', '.join(model.given)}")
    return AppSource(app)


def find_realtime(name: str) -> type[Realtime] | None:
    """Return the speech-to-speech class of a provider; None if it has text models only.

    Raises:
        ConfigError: There is no such provider.
        MissingExtraError: A package that it needs is not installed.
    """
    module_name = f"duologue.providers.{name}"
    if not name.isidentifier() or name.startswith("_"):
        raise ConfigError(_unknown_provider(name))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        return None
    return cast("type[Realtime] | None", getattr(module, "Realtime", None))


def _connects(part: object) -> Callable[[], bool]:
    """Return what tells whether a part has been connected; a foreign part may not say so."""
    return lambda: getattr(part, "connections", 1) > 0


def _check_part(kind: Literal["llm", "stt", "tts"], name: str) -> None:
    """Raise `ConfigError` unless there is such a part."""
    from duologue.providers.parts import part_names

    if name != "local" and name not in part_names(kind):
        raise ConfigError(_unknown_provider(name))


def _unknown_provider(name: str) -> str:
    from duologue.providers.parts import part_names

    names = sorted({*_REALTIME, *part_names("llm"), *_other_providers()})
    near = get_close_matches(name, names, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"
    return f"there is no provider {name!r}; {hint}"


def _other_providers() -> list[str]:
    from importlib.metadata import entry_points

    from duologue.providers import GROUP

    return [found.name for found in entry_points(group=GROUP)]


def _extras(options: ModelOptions, *, pipeline: bool) -> list[str]:
    names = [options.provider]
    names += [(options.stt or "local").partition(":")[0]] if pipeline else []
    if options.tts is not None or pipeline:
        names.append((options.tts or "local").partition(":")[0])
    return [name for name in dict.fromkeys(names) if name in EXTRAS]
