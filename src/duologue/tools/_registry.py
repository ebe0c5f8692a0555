"""Register the functions that a model may call, and call them (contract C6)."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args, overload

from duologue._user_code import UserCodeError, call_plain, is_async, text_of, was_cancelled
from duologue.errors import ConfigError
from duologue.items import replace_surrogates
from duologue.realtime.commands import Scheduling, ToolSpec
from duologue.tools._schema import Signature, WrongArgumentsError, read_signature

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 30.0
"""Seconds that a tool may take by default."""

MAX_OUTPUT_BYTES = 32 * 1024
"""Bytes of result text that a tool may return to a model."""

MAX_THREADS = 64
"""Plain functions of one registry that may run at the same time, including timed-out ones."""

_MAX_ERROR_CHARS = 500


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """How one call ended: ``output`` is the result as text, or the error text for the model."""

    status: Literal["done", "failed", "timeout", "cancelled"]
    output: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Tool:
    """One registered function; ``timeout`` is in seconds, None for no limit."""

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
    """Functions by name, in the order of registration.

    Results are text of at most ``max_output`` bytes (UTF-8).
    """

    __slots__ = ("_in_threads", "_tools", "max_output")

    def __init__(self, *, max_output: int = MAX_OUTPUT_BYTES) -> None:
        self._tools: dict[str, Tool] = {}
        self._in_threads: set[object] = set()
        self.max_output = max_output

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def get(self, name: str) -> Tool | None:
        """Return the tool with that name; None without one."""
        return self._tools.get(name)

    def remove(self, name: str) -> None:
        """Remove a tool, also while a call of it runs, which ends as usual.

        A model that knows the tool learns of it by `Agent.update_tools`. Until then, and where a
        model cannot be updated, it gets an error text for each call. Raises `ConfigError` for an
        unknown name.
        """
        if self._tools.pop(name, None) is None:
            known = ", ".join(self._tools) or "none"
            raise ConfigError(f"there is no tool named {name!r}; registered: {known}")

    def specs(self) -> list[ToolSpec]:
        """Return every tool as the model sees it."""
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
        timeout: float | None = DEFAULT_TIMEOUT_S,
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
        timeout: float | None = DEFAULT_TIMEOUT_S,
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
        timeout: float | None = DEFAULT_TIMEOUT_S,
        cancel_on_interrupt: bool = False,
        scheduling: Scheduling | None = None,
    ) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
        """Register a function, sync or async, and return it unchanged; a decorator, bare or called.

        Argument types come from type hints, descriptions from ``Annotated`` or the docstring. The
        model does not see arguments that `functools.partial` binds by name. A plain function runs
        in a thread, at most `MAX_THREADS` at a time; a timeout abandons that thread because it
        cannot stop it. An async generator yields partial results to a model that accepts them; its
        last value is the result, and all that other models get.

        Args:
            function: The function.
            name: The tool's name; by default the function's.
            description: What the tool does; by default the function's docstring.
            timeout: Seconds until the call fails; None for no limit.
            cancel_on_interrupt: Cancel the call when the person interrupts.
            scheduling: Where the model supports it, the model keeps talking while the tool runs,
                and takes the result ``silent`` (knows it and does not mention it), ``when_idle`` or
                ``interrupt`` (at once). Other models wait for the result.

        Raises:
            ConfigError: For an argument without a type hint, ``*args``, or a name that is taken or
                that models do not accept.
        """

        def register(function: Callable[P, R]) -> Callable[P, R]:
            signature = read_signature(function, name, description)
            if signature.spec.name in self._tools:
                raise ConfigError(f"there is a tool named {signature.spec.name!r} already")
            if timeout is not None and not timeout > 0:
                raise ConfigError(f"a tool's timeout must be above 0 seconds, not {timeout}")
            if scheduling not in (None, *get_args(Scheduling.__value__)):
                raise ConfigError(
                    "a tool's scheduling must be silent, when_idle or interrupt, "
                    f"not {scheduling!r}"
                )
            self._tools[signature.spec.name] = Tool(
                function, signature, timeout, cancel_on_interrupt, scheduling
            )
            return function

        return register if function is None else register(function)

    async def call(
        self, name: str, arguments: str, on_partial: Callable[[str], None] | None = None
    ) -> ToolOutcome:
        """Run a tool; never raise, except when the caller is cancelled, which cancels the tool too.

        Args:
            name: The tool's name.
            arguments: JSON text as the model wrote it.
            on_partial: Called at once with each value that an async generator yields.

        Returns:
            The outcome. For any failure, its ``output`` tells the model what went wrong.
        """
        began = time.perf_counter()
        status, output = await self._outcome(name, arguments, on_partial)
        return ToolOutcome(status, output, time.perf_counter() - began)

    async def _outcome(
        self, name: str, arguments: str, on_partial: Callable[[str], None] | None
    ) -> tuple[Literal["done", "failed", "timeout", "cancelled"], str]:
        tool = self._tools.get(name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            return "failed", f"There is no tool named {name!r}. Tools: {names}."
        try:
            positional, keywords = tool.signature.bind(arguments)
        except WrongArgumentsError as error:
            return "failed", replace_surrogates(str(error))
        try:
            async with asyncio.timeout(tool.timeout) as limit:
                result = await self._run(tool.function, positional, keywords)
                if inspect.isasyncgen(result):
                    parts = cast("AsyncGenerator[object]", result)
                    return await self._last_partial(parts, on_partial)
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
            return _failure_outcome(name, error)
        return self._result_text(result)

    async def _run(
        self, function: Callable[..., object], positional: list[object], keywords: dict[str, object]
    ) -> object:
        """Call an ``async def`` function on the event loop, any other in a thread."""
        if is_async(function):
            return function(*positional, **keywords)
        if len(self._in_threads) >= MAX_THREADS:
            raise RuntimeError(f"{MAX_THREADS} earlier calls have not returned")
        place = object()
        self._in_threads.add(place)

        def work() -> object:
            try:
                return function(*positional, **keywords)
            finally:
                self._in_threads.discard(place)

        return await call_plain(work)

    async def _last_partial(
        self, parts: AsyncGenerator[object], on_partial: Callable[[str], None] | None
    ) -> tuple[Literal["done", "failed"], str]:
        """Return the last value of a generator; pass each value to ``on_partial`` at once."""
        last = self._result_text(None)
        async with aclosing(parts):
            async for value in parts:
                last = self._result_text(value)
                if last[0] == "failed":
                    break
                if on_partial is not None:
                    on_partial(last[1])
        return last

    def _result_text(self, result: object) -> tuple[Literal["done", "failed"], str]:
        if isinstance(result, str):
            text = replace_surrogates(result)
        elif result is None:
            text = "done"
        else:
            from pydantic_core import to_json

            try:
                text = to_json(result, inf_nan_mode="null", fallback=_to_builtin).decode()
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


def _failure_outcome(name: str, error: BaseException) -> tuple[Literal["failed"], str]:
    """Log the error of a tool, and return the outcome with a text for the model."""
    logger.warning("tool %s failed", name, exc_info=error)
    text = text_of(error)
    if not isinstance(error, UserCodeError):
        text = f"{type(error).__name__}: {text}".rstrip(": ")
    return "failed", replace_surrogates(f"The tool failed: {text}"[:_MAX_ERROR_CHARS])


def _to_builtin(value: object) -> object:
    """Convert arrays and numbers of NumPy and the like to lists and numbers."""
    plain = getattr(value, "tolist", None)
    if not callable(plain):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return plain()
