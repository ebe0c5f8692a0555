"""Render a conversation or an audio frame as HTML, for notebooks."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem

if TYPE_CHECKING:
    from duologue.audio import AudioFrame

MAX_AUDIO_S = 60.0
"""Seconds of audio that are embedded."""

MAX_AUDIO_BYTES = 6_000_000
"""Bytes of audio that are embedded: 60 s at 48 kHz."""

MAX_ITEMS = 500
"""Newest items of a conversation that are shown."""

MAX_TEXT = 2_000
"""Characters of one item that are shown."""

_RATES = range(1, 384_001)
"""Rates that a browser may be able to play, in Hz."""


def audio_html(frame: AudioFrame) -> str:
    """Return a player for the first `MAX_AUDIO_S` seconds, and the length of the whole frame."""
    length = f"{frame.duration:.2f} s at {frame.rate} Hz"
    most = min(int(MAX_AUDIO_S * frame.rate), MAX_AUDIO_BYTES // 2)
    samples = frame.samples[:most]
    if not len(samples) or frame.rate not in _RATES:
        return f"<span>AudioFrame: {length}</span>"
    if len(samples) < len(frame):
        length = f"the first {len(samples) / frame.rate:.0f} s of {length}"
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(frame.rate)
        wav.writeframes(samples.astype("<i2", copy=False).tobytes())
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<audio controls preload="none" src="data:audio/wav;base64,{data}"></audio> '
        f"<span>{length}</span>"
    )


def conversation_html(items: Sequence[Item]) -> str:
    """Return a table of who said what; all text is escaped, so it can't add markup to the page."""
    rows = [_row(*_shown(item)) for item in items[-MAX_ITEMS:]]
    if len(items) > MAX_ITEMS:
        rows.insert(0, _row("", f"{len(items) - MAX_ITEMS} older items", ""))
    if not rows:
        return "<span>Conversation: empty</span>"
    return (
        "<table><thead><tr><th>who</th><th>what</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _shown(item: Item) -> tuple[str, str, str]:
    """Return whose item it is, its text, and a note."""
    match item:
        case UserItem(text=text, participant=participant, spoken=spoken):
            return participant or "person", text or "", "" if spoken else "written"
        case AgentItem(text=text, state=state):
            return "agent", text, "" if state == "heard" else state
        case ToolCallItem(name=name, arguments=arguments):
            return "tool call", f"{name}({arguments})", ""
        case ToolResultItem(output=output):
            return "tool result", output, ""
        case SystemItem(text=text):
            return "system", text, ""


def _row(*cells: str) -> str:
    shown = "".join(f'<td style="text-align: left">{_cell(cell)}</td>' for cell in cells)
    return f"<tr>{shown}</tr>"


def _cell(text: str) -> str:
    short = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."
    # Lone surrogates become question marks, because no file and no socket accepts them.
    return escape(short.encode("utf-8", "replace").decode())
