"""Show recorded calls as pages: one file to send, a small server, or in a notebook."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from duologue.json_types import Json, JsonObject
from duologue.observe._call_story import AgentTurn
from duologue.observe._story_json import story_marks, story_summary, story_turns, why_json
from duologue.observe.call import RecordedCall, read_call
from duologue.observe.explanations import explain
from duologue.observe.recorder import AUDIO_FILE

_MAX_INLINE_BYTES = 60 * 1024 * 1024
"""Most bytes of audio in one page, about two hours."""


class CallView:
    """A recorded call that a notebook shows as its page."""

    def __init__(self, call: RecordedCall) -> None:
        self.call = call

    def _repr_html_(self) -> str:
        page = html.escape(call_page(self.call))
        return f'<iframe srcdoc="{page}" style="width:100%;height:44rem;border:0"></iframe>'


def view(path: str | Path) -> CallView:
    """Return what shows a recorded call in a notebook: its folder, or a file in it.

    Raises:
        ConfigError: There is no recorded call.
    """
    return CallView(read_call(path))


def call_page(call: RecordedCall, *, audio: str | None = None, back: str = "") -> str:
    """Return the page of one call.

    Args:
        call: The call.
        audio: Address of the audio; by default it is part of the page, if it is not too long.
        back: Address of the list of calls, if there is one.
    """
    person, agent = call.peaks()
    shown = dict(call_json(call))
    if not person:
        # The audio of a call that was killed at its beginning is empty; a disk may damage a file.
        unheard: Json = {"at": 0.0, "text": f"{AUDIO_FILE} is missing, empty or damaged."}
        why = shown["why"]
        shown["why"] = [unheard, *(why if isinstance(why, list) else [])]
        audio = ""
    data: dict[str, Json] = {
        "call": shown,
        "peaks": {"person": list(person), "agent": list(agent)},
        "audio": _inline_audio(call.path / AUDIO_FILE) if audio is None else audio,
        "back": back,
    }
    return _page(call.name, data)


def list_page(calls: Sequence[RecordedCall]) -> str:
    """Return the page with the list of calls."""
    rows: list[Json] = [dict(summary_json(call)) for call in calls]
    return _page("Calls", {"calls": rows})


def summary_json(call: RecordedCall) -> JsonObject:
    """Return the row of a call in the list: what it was, and what was unusual."""
    story, facts = call.story, call.facts
    return {
        "name": call.name,
        "started_at": facts.get("started_at", ""),
        "model": facts.get("model", ""),
        "seconds": round(call.seconds, 1),
        **story_summary(story),
        "lost": facts.get("failure") is not None or "seconds" not in facts,
        "text": " ".join(
            text for turn in (*story.person, *story.agent) if (text := _spoken(turn))
        ).lower()[:20_000],
    }


def call_json(call: RecordedCall) -> JsonObject:
    """Return what the page of a call shows, without audio."""
    turns: list[Json] = [*story_turns(call.story, call.seconds)]
    summary = dict(summary_json(call))
    del summary["text"]
    return {
        **summary,
        "agent": call.facts.get("agent") or "Agent",
        "turns": turns,
        "marks": story_marks(call.story),
        "why": why_json(explain(call)),
    }


def _spoken(turn: object) -> str:
    if isinstance(turn, AgentTurn):
        return turn.generated or turn.heard or ""
    text = getattr(turn, "text", None)
    return text if isinstance(text, str) else ""


def _inline_audio(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MAX_INLINE_BYTES:
        return ""
    return f"data:audio/ogg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def live_page() -> tuple[bytes, dict[str, str]]:
    """Return the page of running calls, and its headers; it asks the server for what it shows."""
    page = _page("Calls", {"live": True})
    hashes = {
        element: " ".join(
            f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        )
        for element in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page.encode(), {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "cache-control": "no-store",
    }


def _page(title: str, data: JsonObject) -> str:
    """Return a page that needs nothing else; the data is no code, whatever was said in the call."""
    static = files("duologue.observe").joinpath("static")
    style, script, body = (
        static.joinpath(name).read_text(encoding="utf-8")
        for name in ("view.css", "view.js", "view.html")
    )
    # "<" could end the script element, or begin a comment in it.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    parts = {"title": html.escape(title), "style": style, "data": text, "script": script}
    for name, value in parts.items():
        body = body.replace(f"<!--{name}-->", value, 1)
    return body
