"""An exporter for traces, configured by OpenTelemetry's environment variables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from duologue._optional import optional
from duologue.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def tracer_provider(service_name: str = "duologue") -> TracerProvider:
    """Return a provider that sends spans by OTLP over HTTP, in a thread of its own.

    Call its ``shutdown`` at the end of the program: it sends what waits, and takes at most the
    exporter's timeout (``OTEL_EXPORTER_OTLP_TIMEOUT``, 10 s by default) if nobody answers.

    Args:
        service_name: ``service.name`` of all spans, if ``OTEL_SERVICE_NAME`` is not set.

    Raises:
        ConfigError: Neither ``OTEL_EXPORTER_OTLP_ENDPOINT`` nor the variable for traces is set.
        MissingExtraError: The extra ``otel`` is not installed.
    """
    with optional("otel"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        raise ConfigError(
            "traces have nowhere to go: set OTEL_EXPORTER_OTLP_ENDPOINT, for example to "
            "http://localhost:4318"
        )
    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
