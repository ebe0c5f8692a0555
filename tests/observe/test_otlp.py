"""The exporter of the OpenTelemetry SDK sends our spans to a server for OTLP over HTTP."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from duologue import ConfigError
from duologue.observe import trace
from duologue.observe.otlp import tracer_provider
from duologue.testing import Reply, ScriptedRealtime, run_virtual
from fake_edge import join_agent


class Sink(BaseHTTPRequestHandler):
    """Keeps what is exported to it."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_):
        pass


@pytest.fixture
def sink():
    with HTTPServer(("127.0.0.1", 0), Sink) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_spans_arrive_with_their_times_and_parents(sink, monkeypatch):
    endpoint = f"http://127.0.0.1:{sink.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    provider = tracer_provider("my-agent")

    async def talk():
        model = ScriptedRealtime([Reply("Hello.", seconds=2.0)])
        async with join_agent(model, prepare=lambda agent: trace(agent, provider)) as agent:
            await agent.simple_response("hi")
            await asyncio.sleep(0.1)

    run_virtual(talk())
    provider.shutdown()
    ((path, request),) = sink.received
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    names = {
        attribute.key: attribute.value.string_value for attribute in resource.resource.attributes
    }
    assert names["service.name"] == "my-agent"
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    turn, reply = spans["invoke_agent agent"], spans["realtime_inference script"]
    assert reply.parent_span_id == turn.span_id
    # Two seconds of virtual time, which took no real time.
    assert (turn.end_time_unix_nano - turn.start_time_unix_nano) / 1e9 == pytest.approx(2, abs=0.2)


def test_without_an_endpoint_it_says_what_to_set(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        tracer_provider()
