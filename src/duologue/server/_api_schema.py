"""The OpenAPI description of the server's REST API."""

from __future__ import annotations

from duologue.json_types import Json, JsonObject


def openapi_document(version: str, root: str, *, with_token: bool) -> JsonObject:
    """Return the description of the API in the form of OpenAPI 3.1.

    Args:
        version: Version of this library.
        root: Path under which the app is mounted.
        with_token: Whether requests must carry the token.
    """
    document: JsonObject = {
        "openapi": "3.1.0",
        "info": {
            "title": "duologue server",
            "version": version,
            "description": "Calls of this server: list, look, say, interrupt, end.",
        },
        "servers": [{"url": root}],
        "paths": {
            "/health": {
                "get": _operation(
                    "health",
                    "Whether the event loop turns, and the numbers of calls",
                    {"200": _json("The numbers of calls.", "Health")},
                    open_to_all=True,
                )
            },
            "/ready": {
                "get": {
                    **_operation(
                        "ready",
                        "Whether a call would be admitted now",
                        {
                            "200": _json("A call would be admitted.", "Ready"),
                            "503": _json("It would not; reason says why.", "Ready"),
                        },
                        open_to_all=True,
                    ),
                    "parameters": [
                        {
                            "name": "full",
                            "in": "query",
                            "description": "ok: a server that is full or late counts as ready.",
                            "schema": {"enum": ["ok"]},
                        }
                    ],
                }
            },
            "/metrics": {
                "get": _operation(
                    "metrics",
                    "Counters and times for Prometheus, if they are switched on",
                    {
                        "200": {
                            "description": "The metrics.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        },
                        "404": _failure("NoMetrics"),
                    },
                )
            },
            "/calls": {
                "get": _operation(
                    "list_calls", "List the running calls", {"200": _json("All calls.", "Calls")}
                )
            },
            "/calls/{call_id}": {
                "parameters": [{"$ref": "#/components/parameters/CallId"}],
                "get": _operation(
                    "show_call",
                    "State and counters of one call",
                    {"200": _json("The call.", "Call"), "404": _failure("NoCall")},
                ),
                "delete": _operation(
                    "end_call",
                    "End one call",
                    {"204": _empty("The call ends."), "404": _failure("NoCall")},
                ),
            },
            "/calls/{call_id}/changes": {
                "parameters": [{"$ref": "#/components/parameters/CallId"}],
                "get": {
                    **_operation(
                        "follow_call",
                        "What has been said and done in a call since the answer before",
                        {
                            "200": _json("What has changed.", "Changes"),
                            "404": _failure("NoCall"),
                            "409": _failure("NoAgent"),
                            "422": _failure("BadBody"),
                        },
                    ),
                    "parameters": [
                        {
                            "name": "after",
                            "in": "query",
                            "description": "The version of the answer before.",
                            "schema": {"type": "integer", "minimum": 0, "default": 0},
                        }
                    ],
                },
            },
            "/calls/{call_id}/say": {
                "parameters": [{"$ref": "#/components/parameters/CallId"}],
                "post": {
                    **_operation(
                        "say",
                        "Let the agent of a call speak exactly this text",
                        {
                            "204": _empty("The agent will say it."),
                            "404": _failure("NoCall"),
                            "409": _failure("NoAgent"),
                            "422": _failure("BadBody"),
                        },
                    ),
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Say"}}
                        },
                    },
                },
            },
            "/calls/{call_id}/interrupt": {
                "parameters": [{"$ref": "#/components/parameters/CallId"}],
                "post": _operation(
                    "interrupt",
                    "Stop what the agent of a call is saying",
                    {
                        "204": _empty("The agent is silent."),
                        "404": _failure("NoCall"),
                        "409": _failure("NoAgent"),
                    },
                ),
            },
        },
        "components": {
            "parameters": {
                "CallId": {
                    "name": "call_id",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "string"},
                }
            },
            "responses": {
                "NoCall": _json("There is no such call.", "Error"),
                "NoMetrics": _json("Metrics are not switched on.", "Error"),
                "NoAgent": _json("The call has no agent that can do this now.", "Error"),
                "BadBody": _json("The body can't be used; the error says what to send.", "Error"),
                "NoToken": _json("The token is missing or wrong.", "Error"),
            },
            "schemas": _SCHEMAS,
        },
    }
    if with_token:
        components = document["components"]
        assert isinstance(components, dict)  # noqa: S101 - made above
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _operation(
    name: str, summary: str, responses: JsonObject, *, open_to_all: bool = False
) -> JsonObject:
    operation: JsonObject = {"operationId": name, "summary": summary, "responses": responses}
    if open_to_all:
        return operation | {"security": []}
    return operation | {"responses": {**responses, "401": _failure("NoToken")}}


def _json(description: str, schema: str) -> JsonObject:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _empty(description: str) -> JsonObject:
    return {"description": description}


def _failure(name: str) -> JsonObject:
    return {"$ref": f"#/components/responses/{name}"}


def _object(required: list[Json] | None = None, **properties: Json) -> JsonObject:
    return {
        "type": "object",
        "required": list(properties) if required is None else required,
        "properties": properties,
    }


_COUNT: JsonObject = {"type": "integer", "minimum": 0}
_NUMBER: JsonObject = {"type": "number"}
_TEXT: JsonObject = {"type": "string"}

_SCHEMAS: JsonObject = {
    "Error": _object(error=_TEXT),
    "Health": _object(
        ["status", "sessions", "limit", "tick_delay_ms", "refused", "late"],
        status={"enum": ["ok", "draining", "loading"]},
        sessions=_COUNT,
        limit=_COUNT,
        tick_delay_ms=_NUMBER,
        refused=_COUNT,
        late={"type": "boolean", "description": "Calls are refused because ticks are late."},
        workers={"type": "array", "items": {"$ref": "#/components/schemas/Worker"}},
    ),
    "Worker": _object(pid=_COUNT, sessions=_COUNT, tick_delay_ms=_NUMBER),
    "Ready": _object(
        ready={"type": "boolean"},
        reason={"enum": ["draining", "loading", "full", "late", None]},
        sessions=_COUNT,
        limit=_COUNT,
    ),
    "Calls": _object(calls={"type": "array", "items": {"$ref": "#/components/schemas/Call"}}),
    "Call": _object(
        ["id", "pid", "started_at", "seconds"],
        id=_TEXT,
        pid=_COUNT,
        started_at={"type": "number", "description": "Unix time."},
        seconds={"type": "number", "description": "Length so far."},
        state={
            "type": "object",
            "description": "State and counters of the agent and its edge; only for one call.",
        },
        agent={**_TEXT, "description": "Name of the agent; this and the next if it is followed."},
        model=_TEXT,
        turns={**_COUNT, "description": "Turns of the person."},
        median_ms={"type": ["integer", "null"], "description": "Latency of replies."},
        worst_ms={"type": ["integer", "null"]},
        interruptions=_COUNT,
        errors=_COUNT,
        reconnects=_COUNT,
    ),
    "Changes": _object(
        ["version", "seconds"],
        version={**_COUNT, "description": "Ask with this as after next."},
        seconds={"type": "number", "description": "Length so far."},
        call={"type": "object", "description": "Numbers, marks and explanations."},
        turns={
            "type": "array",
            "description": "What was said, and tools, that have changed.",
            "items": {"type": "object"},
        },
    ),
    "Say": _object(
        ["text"],
        text={"type": "string", "minLength": 1, "maxLength": 4000},
        interrupt={"type": "boolean", "default": False},
    ),
}
