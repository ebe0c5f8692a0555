"""Read and write a server's JSON, whose strings may end within a character."""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson

from duologue.items import replace_surrogates_in_json
from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import MalformedError


def decode_object(message: bytes | str) -> JsonObject:
    """Parse a JSON object. Keep a lone surrogate, because its other half is in another message.

    Raises:
        MalformedError: The message is not a JSON object.
    """
    try:
        # orjson takes no subclass of bytes, which a message of a binary frame is.
        if isinstance(message, str) or type(message) is bytes:
            value: Json = orjson.loads(message)
        else:
            value = orjson.loads(memoryview(message))
    except orjson.JSONDecodeError as error:
        text = message if isinstance(message, str) else message.decode(errors="replace")
        if "\\ud" not in text.lower():
            raise MalformedError(str(error)) from error
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as failure:
            raise MalformedError(str(failure)) from failure
    if not isinstance(value, dict):
        raise MalformedError("not an object")
    return value


def encode_object(value: Mapping[str, Json]) -> bytes:
    """Encode a JSON object; replace a lone surrogate by "?"."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(replace_surrogates_in_json(dict(value)))
