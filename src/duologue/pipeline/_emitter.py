"""`Emitter`: pass outputs on, but never from inside of `Connection.transmit`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from duologue.realtime.outputs import Output


class Emitter:
    """Passes outputs to the receiver of a connection, in order.

    What is emitted while a command is handled is passed on later, by the event loop.
    """

    def __init__(self) -> None:
        self.receive: Callable[[Output], None] | None = None
        """The receiver; until there is one, outputs are dropped."""
        self._deferred: deque[Output] = deque()
        self._transmission = _Transmission()

    def transmitting(self) -> AbstractContextManager[None]:
        """Defer what is emitted within the block."""
        return self._transmission

    def emit(self, output: Output) -> None:
        """Pass on an output, now or behind those that are deferred."""
        if self._transmission.runs or self._deferred:
            self._deferred.append(output)
            if len(self._deferred) == 1:
                asyncio.get_running_loop().call_soon(self._emit_deferred)
        elif self.receive is not None:
            self.receive(output)

    def _emit_deferred(self) -> None:
        while self._deferred:
            output = self._deferred.popleft()
            if self.receive is not None:
                self.receive(output)


class _Transmission:
    """A block in which a command is handled.

    It is a class because each frame of input audio has such a block, and a generator would take
    several times as long.
    """

    __slots__ = ("runs",)

    def __init__(self) -> None:
        self.runs = False

    def __enter__(self) -> None:
        self.runs = True

    def __exit__(self, *error: object) -> None:
        self.runs = False
