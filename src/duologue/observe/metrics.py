"""Count and time what happens in calls, for Prometheus.

Names follow Prometheus' own rules: base units, counters end in ``_total``, and labels have few
values. No label names a person, a session or a call. Costs are per event, about ten for a turn,
and nothing for audio: what counts audio is read from `Agent.stats` when a scrape asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakSet

from duologue._optional import optional
from duologue.agent.agent import Agent
from duologue.clock import Clock, LoopClock
from duologue.events.events import (
    USAGE_PARTS,
    ErrorEvent,
    Event,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    ToolEndEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTurnStartedEvent,
)
from duologue.ticker import Subscription, ticker_for

with optional("prometheus"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from duologue.observe.stalls import Stall

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `Metrics.render`."""

_LATENCY_S = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
_STOP_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0)
_LAG_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_DURATION_S = (5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)
_MAX_FUNCTIONS = 50
"""Functions that are counted by name; each is a time series."""
_TURN_PARTS = ("endpoint", "transcript", "first_text", "first_audio")


class Metrics:
    """The metrics of all calls of one process.

    `watch` each agent before it joins, and serve what `render` returns at ``/metrics``. Several
    instances may exist: each has a registry of its own, unless ``registry`` is given.

    Args:
        registry: Where the metrics are registered, such as ``prometheus_client.REGISTRY``, which a
            program serves already.
        clock: Clock of the event loop's lag.

    Raises:
        MissingExtraError: prometheus-client is not installed (the extra ``prometheus``).
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, clock: Clock | None = None
    ) -> None:
        own = registry if registry is not None else CollectorRegistry()
        self.registry = own
        self._clock = clock or LoopClock()
        self._agents: WeakSet[Agent] = WeakSet()
        self._lag_ticks: Subscription | None = None
        self._live = 0
        self._ended = _Totals()
        self._active = Gauge(
            "duologue_sessions_active", "Sessions with a model now.", ["transport"], registry=own
        )
        self._sessions = Counter(
            "duologue_sessions",
            "Sessions by how they ended.",
            ["transport", "outcome"],
            registry=own,
        )
        self._duration = Histogram(
            "duologue_session_duration_seconds",
            "Length of sessions.",
            ["transport"],
            buckets=_DURATION_S,
            registry=own,
        )
        self._latency = Histogram(
            "duologue_response_latency_seconds",
            "From the end of the person's speech to the first audio that is played.",
            ["provider"],
            buckets=_LATENCY_S,
            registry=own,
        )
        self._latency_parts = Histogram(
            "duologue_response_part_seconds",
            "From the end of the person's speech to a step of the reply.",
            ["provider", "part"],
            buckets=_LATENCY_S,
            registry=own,
        )
        self._interruptions = Counter(
            "duologue_interruptions",
            "Speeches of agents that were interrupted.",
            ["provider"],
            registry=own,
        )
        self._stop = Histogram(
            "duologue_interruption_stop_seconds",
            "From the beginning of the person's speech to the end of the agent's audio.",
            ["provider"],
            buckets=_STOP_S,
            registry=own,
        )
        self._reconnects = Counter(
            "duologue_reconnects",
            "Replaced connections by what the model still knew.",
            ["provider", "outcome"],
            registry=own,
        )
        self._errors = Counter(
            "duologue_errors",
            "Errors that a call survived, by the part that failed.",
            ["source"],
            registry=own,
        )
        self._tools = Counter(
            "duologue_tool_calls", "Tool calls by outcome.", ["tool", "outcome"], registry=own
        )
        self._tool_time = Histogram(
            "duologue_tool_duration_seconds",
            "Time that tools took.",
            ["tool"],
            buckets=_LATENCY_S,
            registry=own,
        )
        self._tokens = Counter(
            "duologue_tokens",
            "Tokens by direction and modality, each counted once.",
            ["provider", "direction", "kind"],
            registry=own,
        )
        self._lag = Histogram(
            "duologue_event_loop_lag_seconds",
            "How late the 20 ms ticks ran, while a session was live.",
            buckets=_LAG_S,
            registry=own,
        )
        self._stalls = Counter(
            "duologue_event_loop_stalls",
            "Times that a function blocked the event loop, as StallWatchdog has seen.",
            ["function"],
            registry=own,
        )
        self._stalled: set[str] = set()
        self._refused: Mapping[str, int] = {}
        self._limit = Gauge(
            "duologue_sessions_limit", "Most calls that a server admits at once.", registry=own
        )
        self._draining = Gauge(
            "duologue_draining",
            "1 while no new calls are admitted because the process will end.",
            registry=own,
        )
        own.register(_AudioCollector(self))

    def watch(self, agent: Agent, *, transport: str = "other") -> None:
        """Measure the conversation of an agent that has not joined yet.

        Args:
            agent: The agent.
            transport: How the person is connected: ``webrtc``, ``telephone``, ``websocket``, ...;
                few values, because each is a time series.
        """
        self._agents.add(agent)
        watch = _Watch(transport)
        agent.events.tap(lambda event: self._record(agent, watch, event))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def set_admission(self, *, limit: int, refused: Mapping[str, int]) -> None:
        """Report how many calls a server admits at once.

        Args:
            limit: Most calls at once.
            refused: How many calls were refused so far, by the reason.
        """
        self._limit.set(limit)
        self._refused = dict(refused)

    def count_stall(self, stall: Stall) -> None:
        """Count what blocked the event loop: ``StallWatchdog(on_stall=metrics.count_stall)``."""
        name = stall.function or "a C function"
        if name not in self._stalled and len(self._stalled) >= _MAX_FUNCTIONS:
            name = "other"
        self._stalled.add(name)
        self._stalls.labels(name).inc()

    def set_draining(self, draining: bool) -> None:
        """Report whether the process admits no more calls."""
        self._draining.set(1 if draining else 0)

    def _record(self, agent: Agent, watch: _Watch, event: Event) -> None:
        provider = watch.provider
        match event:
            case RealtimeConnectedEvent(at=at, capabilities=capabilities):
                watch.provider = str(capabilities.get("provider", "other"))
                watch.connected_at = at
                self._active.labels(watch.transport).inc()
                self._session_began()
            case RealtimeDisconnectedEvent():
                self._session_ended(agent, watch, event)
            case RealtimeReconnectedEvent(outcome=outcome):
                self._reconnects.labels(provider, outcome).inc()
            case UserTurnStartedEvent(at=at, speech_ms=speech_ms):
                watch.speech_began_at = at - (speech_ms or 0.0) / 1000
            case InterruptionEvent(speech_id=None):
                pass
            case InterruptionEvent(at=at):
                self._interruptions.labels(provider).inc()
                if watch.speech_began_at is not None:
                    self._stop.labels(provider).observe(max(0.0, at - watch.speech_began_at))
            case TurnMetricsEvent(first_played_ms=first_played_ms):
                if first_played_ms is not None:
                    self._latency.labels(provider).observe(first_played_ms / 1000)
                for part in _TURN_PARTS:
                    value: float | None = getattr(event, f"{part}_ms")
                    if value is not None:
                        self._latency_parts.labels(provider, part).observe(value / 1000)
            case ToolEndEvent(name=name, status=status, seconds=seconds):
                self._tools.labels(name, status).inc()
                self._tool_time.labels(name).observe(seconds)
            case UsageEvent():
                for direction, counts in (("input", event.input), ("output", event.output)):
                    for kind, count in counts.items():
                        if kind not in USAGE_PARTS:
                            self._tokens.labels(provider, direction, kind).inc(count)
            case ErrorEvent(source="event loop", code="stall"):
                pass  # All agents are told; `count_stall` counts it once.
            case ErrorEvent(source=source, code=code):
                watch.is_lost = watch.is_lost or (source == "edge" and code == "ended")
                # "tool NAME", "handler NAME": the part, because a name may be anything.
                self._errors.labels(source.partition(" ")[0]).inc()
            case _:
                pass

    def _session_began(self) -> None:
        self._live += 1
        if self._lag_ticks is None:
            clock, observe = self._clock, self._lag.observe
            self._lag_ticks = ticker_for(clock).subscribe(
                lambda when: observe(max(0.0, clock.now() - when))
            )

    def _session_ended(self, agent: Agent, watch: _Watch, event: RealtimeDisconnectedEvent) -> None:
        outcome = "failed" if not event.clean else "lost" if watch.is_lost else "ok"
        self._sessions.labels(watch.transport, outcome).inc()
        if watch.connected_at is None:
            return
        self._active.labels(watch.transport).dec()
        self._duration.labels(watch.transport).observe(max(0.0, event.at - watch.connected_at))
        watch.connected_at = None
        if agent in self._agents:
            self._agents.discard(agent)
            self._ended.add(agent)
        self._live -= 1
        if not self._live and self._lag_ticks is not None:
            self._lag_ticks.cancel()
            self._lag_ticks = None


@dataclass(slots=True)
class _Watch:
    """What is known of one conversation between two events."""

    transport: str
    provider: str = "other"
    connected_at: float | None = None
    is_lost: bool = False
    """Whether the connection to the person has failed."""
    speech_began_at: float | None = None


@dataclass(slots=True)
class _Totals:
    """Sums of `Agent.stats`, in seconds."""

    starved: float = 0.0
    lost: float = 0.0
    caught_up: float = 0.0
    waiting: float = 0.0

    def add(self, agent: Agent) -> None:
        """Add the counters of an agent."""
        stats = agent.stats()
        self.starved += stats.starved_s
        self.lost += stats.lost_input_s + stats.dropped_input_s
        self.caught_up += stats.caught_up_audio_s
        self.waiting += stats.waiting_audio_s


class _AudioCollector:
    """Reads the counters of audio of all live agents when they are asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the sums over all sessions, ended ones included."""
        ended = self._metrics._ended
        totals = _Totals(ended.starved, ended.lost, ended.caught_up)
        for agent in list(self._metrics._agents):
            totals.add(agent)
        counters: Iterable[tuple[str, str, Callable[[_Totals], float]]] = (
            (
                "duologue_audio_starved_seconds",
                "Time in which an agent had begun to speak and had no audio to play.",
                lambda totals: totals.starved,
            ),
            (
                "duologue_audio_lost_seconds",
                "Audio of persons that no model received.",
                lambda totals: totals.lost,
            ),
            (
                "duologue_audio_caught_up_seconds",
                "Time by which late audio was shortened to be on time again.",
                lambda totals: totals.caught_up,
            ),
        )
        for name, text, value in counters:
            yield CounterMetricFamily(name, text, value=value(totals))
        refusals = CounterMetricFamily(
            "duologue_refused_calls", "Calls that a server refused.", labels=["reason"]
        )
        for reason, count in self._metrics._refused.items():
            refusals.add_metric([reason], count)
        yield refusals
        yield GaugeMetricFamily(
            "duologue_audio_waiting_seconds",
            "Agent audio that waits to be played, over all sessions.",
            value=totals.waiting,
        )
