"""What a wire journal holds, as JSON and back: values, messages, options; without secrets."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from importlib import import_module
from typing import cast

import numpy as np

from duologue import items
from duologue.audio import AudioFrame
from duologue.errors import ConfigError, DuologueError, ErrorKind, SessionError
from duologue.events import events
from duologue.json_types import Json, JsonObject
from duologue.observe._wire_file import WIRE_FILE
from duologue.pipeline import interfaces
from duologue.realtime import BinaryMessage, commands, outputs
from duologue.realtime.border import (
    WireFacts,
)
from duologue.realtime.codec import SessionSetup
from duologue.video import VideoFrame

MIN_MEDIA_CHARS = 100
"""Characters of base64 from which on a text in a message is taken to be audio or an image."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_DATA_URL = re.compile(r"data:[\w/+.-]+;base64,")
_SECRET_KEY = re.compile(
    r"api[-_]?key|authorization|secret|passw|credential|cookie|signature|bearer|private[-_]?key"
    r"|(access|session|refresh|auth|id|security)[-_]?token|^token$|^(new)?_?handle$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"\b(?:sk|pk|ek|xi|dg|hf)[-_][A-Za-z0-9_-]{16,}|\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
    r"|\bya29\.[\w.-]{20,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
)
_PSEUDONYM = re.compile(r"secret-[0-9a-f]{12}")


class Secrets:
    """Replaces secrets by pseudonyms: the same one for the same secret, within one journal."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._salt = os.urandom(16)
        self._known: tuple[str, ...] = ()
        """Longest first; replaced as a whole, because two threads use it."""
        for text in known:
            self.add(text)

    def pseudonym(self, secret: str) -> str:
        """Return what stands for a secret."""
        if not secret or _PSEUDONYM.fullmatch(secret):
            return secret
        raw = secret.encode(errors="surrogatepass")
        digest = hashlib.blake2b(raw, key=self._salt, digest_size=6)
        return f"secret-{digest.hexdigest()}"

    def add(self, secret: str) -> None:
        """Remember a secret, which is replaced wherever it stands."""
        if len(secret) < 6 or secret in self._known or _PSEUDONYM.fullmatch(secret):
            return
        self._known = tuple(sorted((*self._known, secret), key=len, reverse=True))

    def clean_text(self, text: str) -> str:
        """Return a text without secrets."""
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, self.pseudonym(secret))
        return _SECRET_TEXT.sub(lambda found: self.pseudonym(found[0]), text)

    def clean(self, value: Json) -> Json:
        """Return a JSON value without secrets."""
        for secret in secrets_in(value):
            self.add(secret)
        return self._clean(value)

    def _clean(self, value: Json) -> Json:
        match value:
            case str():
                return self.clean_text(value)
            case list():
                return [self._clean(one) for one in value]
            case dict():
                return {key: self._clean(one) for key, one in value.items()}
            case _:
                return value


def secrets_in(value: Json, *, below_headers: bool = False) -> list[str]:
    """Return the texts in a JSON value that are secrets by the names of their fields."""
    found: list[str] = []
    if isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, str):
                if below_headers or _SECRET_KEY.search(key):
                    found.append(one)
            else:
                found += secrets_in(one, below_headers=below_headers or key == "headers")
    elif isinstance(value, list):
        for one in value:
            found += secrets_in(one, below_headers=below_headers)
    return found


# Values as JSON

_CLASSES: dict[str, type] = {
    name: kind
    for module in (commands, outputs, items, interfaces, events)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
} | {"SessionSetup": SessionSetup}


def value_to_json(value: object, *, keep_audio: bool = False) -> Json:
    """Return a value as JSON: dataclasses by the name of their class, audio by its hash."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case AudioFrame():
            return audio_to_json(value, keep=keep_audio)
        case VideoFrame():
            return {"$": "image"}
        case Enum():
            return str(value.value)
        case BaseException():
            return error_to_json(value)
        case Mapping():
            return {
                str(key): value_to_json(one, keep_audio=keep_audio) for key, one in value.items()
            }
        case bytes():
            return {"$": "bytes", "h": _hash(value), "n": len(value)}
        case list() | tuple() | set() | frozenset():
            return [value_to_json(one, keep_audio=keep_audio) for one in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields: JsonObject = {"$": type(value).__name__}
            for field in dataclasses.fields(value):
                one: object = getattr(value, field.name)
                if one is not field.default:
                    fields[field.name] = value_to_json(one, keep_audio=keep_audio)
            return fields
        case _:
            return {"$": "object", "type": type(value).__name__}


def audio_to_json(frame: AudioFrame, *, keep: bool) -> JsonObject:
    """Return audio as JSON; unless it is kept, as length, highest sample and hash."""
    data = frame.samples.tobytes()
    made: JsonObject = {"$": "audio", "rate": frame.rate, "n": len(frame.samples)}
    if keep:
        made["pcm"] = base64.b64encode(data).decode()
    elif frame.samples.any():
        made |= {"p": int(frame.samples.max()), "h": _hash(data)}
    return made


def audio_from_json(value: JsonObject) -> AudioFrame:
    """Return the audio of `audio_to_json`; noise of that length and height if it was not kept."""
    rate, length = cast("int", value["rate"]), cast("int", value["n"])
    if isinstance(pcm := value.get("pcm"), str):
        return AudioFrame(np.frombuffer(base64.b64decode(pcm), np.int16), rate)
    if not isinstance(hashed := value.get("h"), str):
        return AudioFrame(np.zeros(length, np.int16), rate)
    peak = cast("int", value["p"])
    # Its own noise for each hash, so that what is equal stays equal, and what is not does not.
    noise = np.random.default_rng(int(hashed, 16))
    samples = noise.integers(min(-8, -peak), peak, length, np.int16, endpoint=True)
    samples[0] = peak
    return AudioFrame(samples, rate)


def value_from_json(value: Json) -> object:
    """Return the value that `value_to_json` got, as far as that can be known."""
    if isinstance(value, list):
        return [value_from_json(one) for one in value]
    if not isinstance(value, dict):
        return value
    name = value.get("$")
    if name is None:
        return {key: value_from_json(one) for key, one in value.items()}
    if name == "audio":
        return audio_from_json(value)
    if name == "image":
        return VideoFrame(np.zeros((16, 16, 3), np.uint8), 0.0)
    if name == "error":
        return error_from_json(value)
    kind = _CLASSES.get(str(name))
    if kind is None:
        raise ConfigError(f"{WIRE_FILE} has a {name}, which this version of duologue does not know")
    given: dict[str, object] = {}
    for key, one in value.items():
        if key != "$":
            made = value_from_json(one)
            given[key] = tuple(made) if isinstance(made, list) else made
    if "kind" in given:
        given["kind"] = ErrorKind(given["kind"])
    made_value: object = kind(**given)
    return made_value


def error_to_json(error: BaseException) -> JsonObject:
    """Return an error as JSON."""
    made: JsonObject = {"$": "error", "type": type(error).__name__, "message": str(error)}
    if isinstance(error, SessionError):
        made |= {"code": error.code, "kind": error.kind.value}
    return made


def error_from_json(value: JsonObject) -> Exception:
    """Return the error of `error_to_json`; a `DuologueError` if it was no `SessionError`."""
    message = str(value.get("message", ""))
    if "kind" not in value:
        return DuologueError(message)
    return SessionError(message, code=str(value.get("code")), kind=ErrorKind(value["kind"]))


# Messages as JSON


def sent_to_json(message: object, *, keep_audio: bool = False) -> Json:
    """Return a message to a service as JSON, with media by their hashes."""
    if isinstance(message, BinaryMessage):
        return _media(bytes(message), "binary", keep=keep_audio)
    if not isinstance(message, bytes):
        return value_to_json(message, keep_audio=keep_audio)
    try:
        parsed: Json = json.loads(message)
    except ValueError:
        return {"$": "text", "text": message.decode(errors="replace")}
    return _without_media(parsed, keep=keep_audio)


def _without_media(value: Json, *, keep: bool) -> Json:
    match value:
        case str() if len(value) >= MIN_MEDIA_CHARS:
            return _media_text(value, keep=keep)
        case list():
            return [_without_media(one, keep=keep) for one in value]
        case dict():
            return {key: _without_media(one, keep=keep) for key, one in value.items()}
        case _:
            return value


def _media_text(text: str, *, keep: bool) -> Json:
    url = _DATA_URL.match(text)
    data = text[url.end() :] if url is not None else text
    if not _BASE64.fullmatch(data):
        return text
    try:
        raw = base64.b64decode(data, altchars=b"-_" if "-" in data or "_" in data else None)
    except (ValueError, binascii.Error):
        return text
    if url is not None or raw[:2] == b"\xff\xd8" or raw[:4] == b"\x89PNG":
        return {"$": "image"}
    return _media(raw, "media", keep=keep, text=text)


def _media(raw: bytes, name: str, *, keep: bool, text: str | None = None) -> JsonObject:
    made: JsonObject = {"$": name, "n": len(raw)}
    if any(raw):
        made["h"] = _hash(raw)
    if keep:
        made["data"] = text if text is not None else base64.b64encode(raw).decode()
    return made


def received_to_json(message: object, secrets: Secrets) -> Json:
    """Return a message of a service as JSON, from which the message can be made again."""
    if isinstance(message, AudioFrame):
        return audio_to_json(message, keep=True)
    if not isinstance(message, bytes):
        return {"$": "signal", "v": object_to_json(message)}
    name = "binary" if isinstance(message, BinaryMessage) else "text"
    try:
        text = message.decode()
    except UnicodeDecodeError:
        return {"$": name, "data": base64.b64encode(message).decode()}
    with contextlib.suppress(ValueError, RecursionError):
        parsed: Json = json.loads(text)
        cleaned = secrets.clean(parsed)  # which remembers those that it finds
        if any(secret not in text for secret in secrets_in(parsed)):
            text = json.dumps(cleaned)  # They are written with escapes.
    text = secrets.clean_text(text)
    return text if name == "text" else {"$": name, "text": text}


def received_from_json(value: Json) -> object:
    """Return the message of `received_to_json`."""
    match value:
        case str():
            return value.encode()
        case {"$": "binary" | "text" as name, **fields}:
            text, data = fields.get("text"), fields.get("data")
            raw = text.encode() if isinstance(text, str) else base64.b64decode(str(data))
            return BinaryMessage(raw) if name == "binary" else raw
        case {"$": "signal", "v": signal}:
            return object_from_json(signal)
        case _:
            return value_from_json(value)


def timer_name(callback: Callable[[], None]) -> str:
    """Return what a timer with this callback is called."""
    return str(getattr(callback, "__qualname__", type(callback).__name__))


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


# Options of a model or part as JSON


def options_to_json(origin: object) -> JsonObject:
    """Return the options that a model or part was made of, as far as they are no secrets."""
    options: object = getattr(origin, "options", None)
    made: JsonObject = {"class": f"{type(origin).__module__}:{type(origin).__qualname__}"}
    if not dataclasses.is_dataclass(options) or isinstance(options, type):
        return made
    given: JsonObject = {}
    for field in dataclasses.fields(options):
        value: object = getattr(options, field.name)
        shown = field.repr or field.name == "extra"
        one = object_to_json(value)
        if shown and value is not field.default and (one is not None or value is None):
            given[field.name] = one
    return made | {"options": given}


def object_to_json(value: object) -> Json:
    """Return an option, or another object of this library, as JSON.

    None for one that only its program can make.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): object_to_json(one) for key, one in value.items()}
        case list() | tuple():
            return [object_to_json(one) for one in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            kind = type(value)
            made: JsonObject = {"$": f"{kind.__module__}:{kind.__qualname__}"}
            for field in dataclasses.fields(value):
                one: object = getattr(value, field.name)
                if field.init and field.repr:
                    made[field.name] = object_to_json(one)
            return made
        case _:
            return None


def find_class(name: str) -> type:
    """Return the class of this library that a journal names.

    Raises:
        ConfigError: It is none of this library, or this version has none.
    """
    module, _, qualified = name.partition(":")
    if not module.startswith("duologue."):
        raise ConfigError(
            f"{name} is a class of your own: call duologue.testing.replay(call, realtime=...) with "
            "a function that makes it"
        )
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"this version of duologue has no {name}") from error
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise ConfigError(f"this version of duologue has no {name}")
    return found


def object_from_json(value: Json) -> object:
    """Return the object of `object_to_json`."""
    match value:
        case dict():
            fields = {key: object_from_json(one) for key, one in value.items()}
            name = fields.pop("$", None)
            if name is None:
                return fields
            kind = find_class(str(name))
            if not dataclasses.is_dataclass(kind):
                raise ConfigError(f"{name} is no option: the journal is damaged")
            make = cast("Callable[..., object]", kind)
            return make(**fields)
        case list():
            return tuple(object_from_json(one) for one in value)
        case _:
            return value


def facts_to_json(facts: WireFacts) -> JsonObject:
    """Return the facts of a wire as JSON."""
    made: JsonObject = {}
    if facts.server_time is not None:
        made["server_time"] = facts.server_time
    if facts.message_limit is not None:
        made["message_limit"] = facts.message_limit
    if facts.refused is not None:
        made["refused"] = [facts.refused[0], facts.refused[1].decode(errors="replace")]
    if facts.closed is not None:
        made["closed"] = list(facts.closed)
    return made


def facts_from_json(value: Json) -> WireFacts:
    """Return the facts of `facts_to_json`."""
    match value:
        case {**found}:
            facts = WireFacts(
                cast("float | None", found.get("server_time")),
                cast("int | None", found.get("message_limit")),
            )
            match found.get("refused"), found.get("closed"):
                case [int(status), str(body)], _:
                    facts.refused = status, body.encode()
                case _, [int(code), str(reason)]:
                    facts.closed = code, reason
            return facts
        case _:
            return WireFacts()
