"""Run GGUF language models in this process with llama.cpp: threads, slots, streaming, stopping.

One model serves every session. It keeps `SLOTS` prompt caches, and each request goes to the slot
that saves the most work, so a conversation finds its own cache again without an id.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast
from urllib.parse import urlsplit

from duologue._net import one_line
from duologue._optional import import_optional
from duologue.errors import ErrorKind, SessionError
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import TokenUsage
from duologue.vad.words import shared_length

SLOTS = 4
"""Conversations whose prompts stay cached, and generations that run at the same time."""
CONTEXT_TOKENS = 8192
"""Tokens of all slots together; one conversation may use what the others leave free."""

type Message = JsonObject
type Chunk = str | TokenUsage | SessionError


SPIN_COUNT = 1000
"""Rounds that an OpenMP thread of the runtime spins before it sleeps.

A prompt is read by a team of threads that wait for each other some hundred times. GNU OpenMP spins
300,000 rounds at each, which takes the core away from the very thread that the others wait for as
soon as another program, or the recogniser, needs one too: reading eight words then takes 2.7 s
instead of 0.3 s.
"""


CLOSE_THOUGHT = '{% if add_generation_prompt %}{{ "\\n</think>\\n\\n" }}{% endif %}'
"""Ends the thought that some chat templates begin in each prompt: the model replies at once."""
NO_THOUGHTS: JsonObject = {
    "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"}
}
"""Fields of a request that switch thoughts off, or make them short, where a template can."""
_THOUGHT_TAG = "<think>"
_RUNTIME_TIMEOUT_S = 30.0
"""Seconds that the runtime may take to render a prompt."""


class _Server(Protocol):
    listening_address: str

    def handle_chat_completions(self, request: object, callback: object) -> object: ...


@dataclass(eq=False, slots=True)
class _Slot:
    index: int
    thread: ThreadPoolExecutor
    cached: list[str] = field(default_factory=list)
    runs: list[_Run] = field(default_factory=list)


class _Run:
    """One request, created in the event loop and executed in a slot's thread."""

    __slots__ = ("_loop", "is_short", "queue", "stopped")

    def __init__(self, *, is_short: bool) -> None:
        self.is_short = is_short
        self._loop = asyncio.get_running_loop()
        # It never holds more than max_tokens chunks, so it needs no other bound.
        self.queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        self.stopped = threading.Event()

    def put(self, chunk: Chunk | None) -> None:
        """Pass a chunk from the slot's thread to the loop; do nothing once the loop has closed."""
        if self.stopped.is_set():
            return
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, chunk)
        except RuntimeError:
            self.stopped.set()


class Llama:
    """A loaded GGUF model. Loading blocks for 0.5 to 5 s.

    Args:
        path: The file.
        threads: Cores that read prompts; None uses all.
        chat_template: The template of its prompts if it is not known to this package. The template
            is tried, and thoughts are switched off: they would cost the person seconds of silence.

    Raises:
        SessionError: the file is not a model, or its template can't be used.
    """

    def __init__(
        self, path: Path, *, threads: int | None = None, chat_template: str | None = None
    ) -> None:
        self._load(path, threads)
        if chat_template is not None and self._prompt_end(path).endswith(_THOUGHT_TAG):
            self._load(path, threads, chat_template + CLOSE_THOUGHT)
        self._slots = [_Slot(n, ThreadPoolExecutor(1, f"duologue-llm-{n}")) for n in range(SLOTS)]
        self._slots_lock = threading.Lock()

    def _load(self, path: Path, threads: int | None, chat_template: str | None = None) -> None:
        runtime = _import_runtime()
        params = runtime.CommonParams()
        params.model.path = str(path)
        params.n_ctx = CONTEXT_TOKENS
        params.n_parallel = SLOTS
        params.kv_unified = True
        params.cache_ram_mib = 0
        params.verbosity = -1
        params.use_jinja = True
        params.warmup = False
        # Generate with one thread: several wait for each other at every layer, so a token takes ten
        # times as long as soon as another program needs a core, and they save only a quarter when
        # alone.
        # Prompts are read many tokens at a time, which gains from all cores.
        params.cpuparams.n_threads = 1
        params.cpuparams_batch.n_threads = threads or os.cpu_count() or 2
        if chat_template is not None:
            params.chat_template = chat_template
        # The runtime also listens on a loopback port; a key that is never shown locks it.
        self._key = secrets.token_urlsafe(32)
        params.api_keys = [self._key]
        try:
            self._server: _Server = runtime.Server(params)
        except (RuntimeError, ValueError) as error:
            size = path.stat().st_size if path.exists() else 0
            raise SessionError(
                f"{path.name} ({size / 1e9:.1f} GB) can't be loaded as a language "
                "model: llama.cpp does not know its kind or its chat template, or memory is short; "
                "try 'pip install -U xllamacpp', or another file",
                kind=ErrorKind.FATAL,
            ) from error

    def _prompt_end(self, path: Path) -> str:
        """Return the end of a prompt in the template of the model, where its reply begins.

        Raises:
            SessionError: the template refuses a plain conversation.
        """
        roles = ("system", "user", "assistant", "user")
        messages: list[Json] = [{"role": role, "content": "Hello."} for role in roles]
        body = json.dumps({"messages": messages, **NO_THOUGHTS})
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        address = urlsplit(self._server.listening_address)
        connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=_RUNTIME_TIMEOUT_S
        )
        try:
            connection.request("POST", "/apply-template", body, headers)
            reply = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            reply = {"error": {"message": f"the runtime does not answer: {error}"}}
        finally:
            connection.close()
        if isinstance(reply, dict) and isinstance(prompt := reply.get("prompt"), str):
            return prompt.rstrip()
        fault = reply.get("error") if isinstance(reply, dict) else None
        reason = fault.get("message") if isinstance(fault, dict) else reply
        raise SessionError(
            f"the chat template of {path.name} can't be used: {one_line(str(reason))}; take "
            "another conversion of the model",
            kind=ErrorKind.FATAL,
        )

    async def stream(
        self, messages: Sequence[Message], options: JsonObject, *, max_tokens: int
    ) -> AsyncGenerator[str | TokenUsage]:
        """Stream the text of the reply, then its `TokenUsage`.

        Closing the generator stops the generation at the next token.

        Args:
            messages: The prompt.
            options: Further fields of the request.
            max_tokens: Tokens of the reply at most.

        Raises:
            SessionError: the model refuses the request.
        """
        run = _Run(is_short=max_tokens <= 1)
        slot = self._choose_slot(run, messages)
        request: JsonObject = {
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": True,
            "id_slot": slot.index,
            "max_tokens": max_tokens,
            **options,
        }
        slot.thread.submit(self._run_in_slot, slot, run, request)
        try:
            while (chunk := await run.queue.get()) is not None:
                if isinstance(chunk, SessionError):
                    raise chunk
                yield chunk
        finally:
            run.stopped.set()

    def _choose_slot(self, run: _Run, messages: Sequence[Message]) -> _Slot:
        """Return the slot that saves the most work: little to read, little cache lost, not busy."""
        texts = [f"{message['role']}: {message['content']}" for message in messages]
        with self._slots_lock:
            slot = min(self._slots, key=lambda slot: _slot_cost(slot, texts))
            slot.cached = texts
            slot.runs.append(run)
        return slot

    def _run_in_slot(self, slot: _Slot, run: _Run, request: JsonObject) -> None:
        try:
            if not run.stopped.is_set():
                self._complete(run, request)
        finally:
            with self._slots_lock:
                slot.runs.remove(run)
            run.put(None)

    def _complete(self, run: _Run, request: JsonObject) -> None:
        def take(chunk: object) -> bool:
            """Deliver a chunk; True makes the runtime stop."""
            for part in chunk if isinstance(chunk, list) else [chunk]:
                for delivery in _parse_chunk(part):
                    run.put(delivery)
            return run.stopped.is_set()

        try:
            self._server.handle_chat_completions(request, take)
        except (RuntimeError, ValueError) as error:
            run.put(SessionError(f"the language model failed: {error}", kind=ErrorKind.RETRY))


def _import_runtime() -> ModuleType:
    """Import llama.cpp with `SPIN_COUNT`, which OpenMP reads from the environment as it is loaded.

    The choice of the program, if it has made one, is respected.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return import_optional("xllamacpp", "local")
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    try:
        return import_optional("xllamacpp", "local")
    finally:
        del os.environ["GOMP_SPINCOUNT"]


def _slot_cost(slot: _Slot, texts: list[str]) -> int:
    """Return the characters to read, plus the cached characters lost, plus a cost for waiting.

    A request that was stopped (the person spoke on after all), or that only reads ahead, ends
    within about 50 ms, which is less than another slot takes to read the conversation from its
    beginning.
    """
    common = 0
    for mine, theirs in zip(texts, slot.cached, strict=False):
        common += shared_length(mine, theirs)
        if mine != theirs:
            break
    fresh = sum(map(len, texts)) - common
    lost = sum(map(len, slot.cached)) - common
    waits = sum(50 if run.stopped.is_set() or run.is_short else 500 for run in slot.runs)
    return fresh + lost + waits


def _parse_chunk(chunk: object) -> list[Chunk]:
    """Decode a chunk in OpenAI's format."""
    if not isinstance(chunk, dict):
        return []
    body = cast("JsonObject", chunk)
    error = body.get("error")
    if isinstance(error, dict):
        message = str(error.get("message"))
        return [SessionError(message, code=str(error.get("type", "")), kind=ErrorKind.RETRY)]
    found: list[Chunk] = []
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        text = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(text, str) and text:
            found.append(text)
    usage = body.get("usage")
    if isinstance(usage, dict):
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(output, int):
            found.append(TokenUsage(prompt, output))
    return found
