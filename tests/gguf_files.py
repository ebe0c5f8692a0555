"""Make GGUF files: small ones without a model, and real ones with another chat template."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from duologue.weights import check_chat_model

type Array = tuple[str, Sequence[object]]
"""The form of the members, for `struct`, or ``s``; and the members."""

_NUMBERS = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11}
_NUMBERS["d"] = 12
_STRING, _ARRAY = 8, 9

CHAT = {
    "general.architecture": "toy",
    "toy.context_length": 2048,
    "tokenizer.chat_template": "{{ messages }}",
}
"""The keys of a chat model."""


def gguf(
    values: dict[str, object] | None = None,
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = (),
    *,
    version: int = 3,
    data: bytes = b"",
) -> bytes:
    """Return a GGUF file.

    Args:
        values: Its keys, by default `CHAT`.
        tensors: Name, shape, type and offset of each.
        version: The version of the format.
        data: What follows the header and its padding.
    """
    values = CHAT if values is None else values
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    head += b"".join(_string(key) + _value(value) for key, value in values.items())
    for name, shape, kind, offset in tensors:
        head += _string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", number) for number in shape)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32) + data


def with_chat_template(source: Path, target: Path, template: str) -> Path:
    """Copy a model to ``target`` with another chat template."""
    old = str(check_chat_model(source).values["tokenizer.chat_template"])
    content = source.read_bytes()
    key = _string("tokenizer.chat_template")
    start = content.index(key + struct.pack("<I", _STRING) + _string(old))
    behind = start + len(key) + 4 + len(_string(old))
    # The data begin at a multiple of 32 bytes: keep them there by spaces behind the template.
    longer = template + " " * (-(len(template.encode()) - len(old.encode())) % 32)
    target.write_bytes(content[:start] + key + _value(longer) + content[behind:])
    return target


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    match value:
        case str():
            return struct.pack("<I", _STRING) + _string(value)
        case bool():
            return struct.pack("<I?", _NUMBERS["?"], value)
        case int():
            return struct.pack("<IQ", _NUMBERS["Q"], value)
        case float():
            return struct.pack("<If", _NUMBERS["f"], value)
        case tuple():
            return struct.pack("<I", _ARRAY) + _array(value)
    raise TypeError(value)


def _array(array: Array) -> bytes:
    form, members = array
    count = struct.pack("<Q", len(members))
    if form == "s":
        return struct.pack("<I", _STRING) + count + b"".join(_string(str(m)) for m in members)
    if form == "[":
        inner = [member for member in members if isinstance(member, tuple)]
        return struct.pack("<I", _ARRAY) + count + b"".join(_array(member) for member in inner)
    packed = b"".join(struct.pack("<" + form, member) for member in members)
    return struct.pack("<I", _NUMBERS[form]) + count + packed
