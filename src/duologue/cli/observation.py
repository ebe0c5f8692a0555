"""What ``--metrics``, ``--otel``, ``--record`` and ``--live`` attach to each agent of a server."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from duologue.cli.extras import require_extras

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from duologue.agent.agent import Agent
    from duologue.observe import Metrics, StallWatchdog

_NAMES = ("metrics", "otel", "record", "record_wire", "live")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What to observe of every call.

    Args:
        metrics: Count and time calls for Prometheus.
        otel: Send traces by OTLP.
        record: The folder of the recordings; None records nothing.
        record_wire: Record the model's messages, too.
        live: Whether the page of running calls shows what is said; None is as `create_app` has it.
    """

    metrics: bool = False
    otel: bool = False
    record: Path | None = None
    record_wire: bool = False
    live: bool | None = None

    def require_extras(self, command: str) -> None:
        """Raise `MissingExtraError` if something that is observed needs another package."""
        needed = {"prometheus": self.metrics, "otel": self.otel, "wav": self.record is not None}
        require_extras(command, *(extra for extra, is_needed in needed.items() if is_needed))

    @contextmanager
    def begin(self) -> Generator[Observers]:
        """Make what observes, on the event loop; what waits to be sent is sent at the end.

        Raises:
            ConfigError: There is no address for traces, or no folder for recordings.
        """
        from duologue.observe import Metrics, StallWatchdog
        from duologue.observe.otlp import tracer_provider

        provider = tracer_provider() if self.otel else None
        metrics = Metrics() if self.metrics else None
        try:
            if metrics is None and provider is None:
                yield Observers(folder=self.record, wire=self.record_wire)
                return
            # It costs a thread, so only a server that is observed has it.
            counted = metrics.count_stall if metrics is not None else None
            with StallWatchdog(on_stall=counted) as watchdog:
                yield Observers(metrics, provider, self.record, watchdog, self.record_wire)
        finally:
            if provider is not None:
                provider.shutdown()


@dataclass(frozen=True, slots=True)
class Observers:
    """What observes the calls of a server."""

    metrics: Metrics | None = None
    provider: TracerProvider | None = None
    folder: Path | None = None
    watchdog: StallWatchdog | None = None
    wire: bool = False

    def attach(self, agent: Agent, transport: str) -> None:
        """Observe an agent that has not joined; one that has a recorder keeps it."""
        if self.metrics is not None:
            self.metrics.watch(agent, transport=transport)
        if self.watchdog is not None:
            self.watchdog.watch(agent)
        if self.provider is not None:
            from duologue.observe import trace

            trace(agent, self.provider, agent_name=agent.agent_user.name)
        if self.folder is not None and agent.recorder is None:
            from duologue.observe import Recorder

            agent.recorder = Recorder(self.folder, wire=self.wire)


def transport_of(edge: object) -> str:
    """Return how a person is connected: ``webrtc`` or ``telephone``."""
    from duologue.edges import rtvi
    from duologue.edges.webrtc import CallEdge

    return "webrtc" if isinstance(edge, CallEdge | rtvi.Edge) else "telephone"


def observation_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of what is observed to a command.

    It gets an `Observation`.
    """

    @functools.wraps(function)
    def command(**params: Any) -> None:
        taken = {name: params.pop(name) for name in _NAMES}
        function(**params, observation=Observation(**taken))

    options = (
        click.option(
            "--metrics",
            is_flag=True,
            help="Serve figures for Prometheus at /metrics, behind the token.",
        ),
        click.option(
            "--otel",
            is_flag=True,
            help="Send traces by OTLP to OTEL_EXPORTER_OTLP_ENDPOINT; they have no words.",
        ),
        click.option(
            "--record",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="FOLDER",
            help="Record each call into a folder of its own; see duologue view.",
        ),
        click.option(
            "--record-wire",
            is_flag=True,
            help="Record the model's messages, too; see duologue replay.",
        ),
        click.option(
            "--live/--no-live",
            default=None,
            help="Show what is said in running calls at /calls, behind the token; by default only "
            "where just this machine can look.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
