"""Send the spans of a conversation to OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from duologue._optional import optional
from duologue.agent.agent import Agent
from duologue.events.events import Event
from duologue.observe._call_spans import AddSpanEvent, CallSpans, EndSpan, StartSpan

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

_NS = 1_000_000_000


def trace(
    agent: Agent,
    tracer_provider: TracerProvider | None = None,
    *,
    conversation_id: str | None = None,
    agent_name: str = "agent",
    capture_content: bool = False,
) -> None:
    """Record each turn, reply, tool call and reconnect of an agent as a span; call before joining.

    Spans have the times of what they describe, to the sample where the model tells it, not those
    of their export. They are made on the event loop, about ten for a turn, and exported by the
    provider's own thread.

    Args:
        agent: The agent of one conversation.
        tracer_provider: Where the spans go; by default the one that the program has set globally.
            This library never sets one.
        conversation_id: ``gen_ai.conversation.id`` of all spans; by default a new id.
        agent_name: The name of the agent in ``invoke_agent NAME``.
        capture_content: Whether attributes may contain the words of both sides, and arguments and
            results of tools.

    Raises:
        MissingExtraError: opentelemetry-api is not installed (the extra ``otel``).
    """
    with optional("otel"):
        from opentelemetry import trace as otel
        from opentelemetry.trace import SpanKind, Status, StatusCode
    tracer = otel.get_tracer("duologue", tracer_provider=tracer_provider)
    kinds = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
    spans = CallSpans(
        conversation_id or uuid4().hex, agent_name=agent_name, capture_content=capture_content
    )
    open_spans: dict[int, Span] = {}

    def export(event: Event) -> None:
        for step in spans.receive(event):
            match step:
                case StartSpan():
                    parent = open_spans.get(step.parent) if step.parent is not None else None
                    # An explicit context: what runs now has nothing to do with this span.
                    context = otel.set_span_in_context(parent or otel.INVALID_SPAN)
                    open_spans[step.key] = tracer.start_span(
                        step.name,
                        context=context,
                        kind=kinds[step.kind],
                        attributes=step.attributes,
                        start_time=round(step.at * _NS),
                    )
                case AddSpanEvent():
                    span = open_spans[step.key]
                    span.add_event(step.name, step.attributes, timestamp=round(step.at * _NS))
                case EndSpan():
                    span = open_spans.pop(step.key)
                    span.set_attributes(step.attributes)
                    if step.error is not None:
                        span.set_attribute("error.type", step.error)
                        span.set_status(Status(StatusCode.ERROR, step.error))
                    span.end(end_time=round(step.at * _NS))

    agent.events.tap(export)
