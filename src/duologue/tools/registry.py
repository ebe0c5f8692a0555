"""The functions that a model may call, and the one way to call them (contract C6)."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args, overload

from duologue.items import sendable
from duologue.realtime.commands import Scheduling, ToolSpec
from duologue.realtime.errors import ConfigError
from duologue.tools.schema import Signature, WrongArgumentsError, read_signature
from duologue.user_code import UserCodeError, call_plain, is_async, text_of, was_cancelled

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = 30.0
"""Seconds that a tool may take, unless it says otherwise."""

MAX_OUTPUT = 32 * 1024
"""Bytes of result text that a tool may give to a model."""

MAX_THREADS = 64
"""Plain functions of one registry that may run at the same time, including timed-out ones."""

_MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """How one call ended: ``output`` is the result as text, or what went wrong, for the model."""

    status: Literal["done", "failed", "timeout", "cancelled"]
    output: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Tool:
    """One registered function; ``timeout`` is in s, None for no limit."""

    function: Callable[..., object]
    signature: Signature
    timeout: float | None
    cancel_on_interrupt: bool
    scheduling: Scheduling | None = None

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model sees it."""
        return replace(self.signature.spec, scheduling=self.scheduling)


class ToolRegistry:
    """Functions by name, in the order they were added.

    Results are text of at most ``max_output`` bytes (UTF-8).
    """

    __slots__ = ("_in_threads", "_tools", "max_output")

    def __init__(self, *, max_output: int = MAX_OUTPUT) -> None:
        self._tools: dict[str, Tool] = {}
        self._in_threads: set[object] = set()
        self.max_output = max_output

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def get(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def specs(self) -> list[ToolSpec]:
        """Every tool as the model sees it."""
        return [tool.spec for tool in self._tools.values()]

    @overload
    def add[**P, R](self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def add[**P, R](
        self,
        function: Callable[P, R],
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        cancel_on_interrupt: bool = False,
        scheduling: Scheduling | None = None,
    ) -> Callable[P, R]: ...

    @overload
    def add[**P, R](
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        cancel_on_interrupt: bool = False,
        scheduling: Scheduling | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    def add[**P, R](
        self,
        function: Callable[P, R] | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        cancel_on_interrupt: bool = False,
        scheduling: Scheduling | None = None,
    ) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
        """Register a function, sync or async; returns it unchanged. A decorator, bare or called.

        ``timeout`` is in s, None for no limit. ``cancel_on_interrupt``: a barge-in cancels it.
        ``scheduling``: the model goes on talking while the tool runs, and takes the result
        ``silent`` (knows it, does not speak of it), ``when_idle`` or ``interrupt`` (at once), where
        it can do that; other models wait for the result. An async generator gives parts of its
        result to a model that takes them; the last one is the result, and all that others get.
        Argument types come from type hints, texts from ``Annotated`` or the docstring. Sync
        functions run in a thread of their own, which a time-out leaves behind but can't stop; at
        most `MAX_THREADS` at a time. What `functools.partial` binds by name, the model does not
        see. Raises `ConfigError` for an argument without a type hint, ``*args``, a name that is
        taken or that models don't take.
        """

        def register(function: Callable[P, R]) -> Callable[P, R]:
            signature = read_signature(function, name, description)
            if signature.spec.name in self._tools:
                raise ConfigError(f"there is a tool named {signature.spec.name!r} already")
            if timeout is not None and not timeout > 0:
                raise ConfigError(f"a tool's timeout is in seconds above 0, not {timeout}")
            if scheduling not in (None, *get_args(Scheduling.__value__)):
                raise ConfigError(
                    f"a tool's scheduling is silent, when_idle or interrupt, not {scheduling!r}"
                )
            self._tools[signature.spec.name] = Tool(
                function, signature, timeout, cancel_on_interrupt, scheduling
            )
            return function

        return register if function is None else register(function)

    async def call(
        self, name: str, arguments: str, part: Callable[[str], None] | None = None
    ) -> ToolOutcome:
        """Run a tool with ``arguments`` (JSON text as the model wrote it), and never raise.

        ``part`` is given what an async generator yields, at once. Whatever goes wrong is an outcome
        whose ``output`` tells the model. Only cancelling the caller raises, as ever; the tool is
        then cancelled too.
        """
        began = time.perf_counter()
        status, output = await self._outcome(name, arguments, part)
        return ToolOutcome(status, output, time.perf_counter() - began)

    async def _outcome(
        self, name: str, arguments: str, part: Callable[[str], None] | None
    ) -> tuple[Literal["done", "failed", "timeout", "cancelled"], str]:
        tool = self._tools.get(name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            return "failed", f"There is no tool named {name!r}. Tools: {names}."
        try:
            positional, keywords = tool.signature.bind(arguments)
        except WrongArgumentsError as error:
            return "failed", sendable(str(error))
        try:
            async with asyncio.timeout(tool.timeout) as limit:
                result = await self._run(tool.function, positional, keywords)
                if inspect.isasyncgen(result):
                    parts = cast("AsyncGenerator[object]", result)
                    return await self._last(parts, part)
                if inspect.isawaitable(result):
                    result = await result
        except BaseException as error:
            if was_cancelled(error):
                raise
            if isinstance(error, asyncio.CancelledError):
                return "cancelled", "The tool was cancelled."
            if limit.expired() and isinstance(error, TimeoutError):
                logger.warning("tool %s took longer than %g s", name, tool.timeout)
                return "timeout", f"The tool took longer than {tool.timeout:g} seconds."
            return _failed(name, error)
        return self._text(result)

    async def _run(
        self, function: Callable[..., object], positional: list[object], keywords: dict[str, object]
    ) -> object:
        """Call an ``async def`` function on the event loop, any other in a thread."""
        if is_async(function):
            return function(*positional, **keywords)
        if len(self._in_threads) >= MAX_THREADS:
            raise RuntimeError(f"{MAX_THREADS} earlier calls have not come back")
        place = object()
        self._in_threads.add(place)

        def work() -> object:
            try:
                return function(*positional, **keywords)
            finally:
                self._in_threads.discard(place)

        return await call_plain(work)

    async def _last(
        self, parts: AsyncGenerator[object], part: Callable[[str], None] | None
    ) -> tuple[Literal["done", "failed"], str]:
        """The last that a generator yields; all that it yields goes to ``part`` at once."""
        last = self._text(None)
        async with aclosing(parts):
            async for value in parts:
                last = self._text(value)
                if last[0] == "failed":
                    break
                if part is not None:
                    part(last[1])
        return last

    def _text(self, result: object) -> tuple[Literal["done", "failed"], str]:
        if isinstance(result, str):
            text = sendable(result)
        elif result is None:
            text = "done"
        else:
            from pydantic_core import to_json

            try:
                text = to_json(result, inf_nan_mode="null", fallback=_plain).decode()
            except Exception as error:
                kind = type(result).__name__
                logger.warning("the result of a tool has no JSON form", exc_info=error)
                return "failed", f"The tool's result ({kind}) can't be written as JSON."
        size = len(text.encode())
        if size > self.max_output:
            return "failed", (
                f"The tool's result is too long: {size} bytes, at most {self.max_output}. "
                "Ask it for less."
            )
        return "done", text


def _failed(name: str, error: BaseException) -> tuple[Literal["failed"], str]:
    """Log the error of a tool, and return the outcome with a text for the model."""
    logger.warning("tool %s failed", name, exc_info=error)
    text = text_of(error)
    if not isinstance(error, UserCodeError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return "failed", sendable(f"The tool failed: {text}"[:_MAX_ERROR])


def _plain(value: object) -> object:
    """Convert arrays and numbers of NumPy and the like to lists and numbers."""
    plain = getattr(value, "tolist", None)
    if not callable(plain):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return plain()
