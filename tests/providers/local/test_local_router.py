from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.local import _prompt, _router
from duologue.realtime.commands import ToolSpec

TOOL = ToolSpec("light", "Switch a light.", {"type": "object", "properties": {"on": {}}})


def pieces(text: str, cuts: list[int]) -> list[str]:
    at = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(at)]


@given(st.text(), st.lists(st.integers(0, 10**6)), st.booleans())
def test_spoken_text_streams_completely_however_it_is_split(
    text: str, cuts: list[int], ascii_only: bool
) -> None:
    written = json.dumps({"action": "say", "text": text}, ensure_ascii=ascii_only)
    reader = _router.TurnReader()
    spoken = "".join(reader.push(piece) for piece in pieces(written, cuts))
    assert spoken == text
    assert reader.call() is None


@given(st.dictionaries(st.text(max_size=5), st.text()), st.lists(st.integers(0, 10**6)))
def test_a_call_is_never_spoken(arguments: dict[str, str], cuts: list[int]) -> None:
    written = json.dumps({"action": "light", "arguments": arguments | {"text": "say"}})
    reader = _router.TurnReader()
    assert all(reader.push(piece) == "" for piece in pieces(written, cuts))
    call = reader.call()
    assert call is not None
    assert call[0] == "light"
    assert json.loads(call[1]) == arguments | {"text": "say"}


def test_an_incomplete_turn_calls_nothing() -> None:
    reader = _router.TurnReader()
    reader.push('{"action": "light", "arguments": {"on"')
    assert reader.call() is None


def test_without_tools_a_turn_can_only_speak() -> None:
    assert _router.turn_schema([])["properties"] == {
        "action": {"const": "say"},
        "text": {"type": "string"},
    }
    choices = _router.turn_schema([TOOL])["anyOf"]
    assert isinstance(choices, list)
    assert len(choices) == 2


def test_history_becomes_messages() -> None:
    history = [
        UserItem("1", " Hello. "),
        AgentItem("2", "Hi there", state="cut"),
        UserItem("3", None),
        SystemItem("4", "Be kind."),
        ToolCallItem("5", "a", "light", '{"on": true}'),
        ToolResultItem("6", "a", "done"),
    ]
    messages = _prompt.chat_messages(history)
    assert [(m["role"], m["content"]) for m in messages[:3]] == [
        ("user", "Hello."),
        ("assistant", "Hi there"),
        ("system", "Be kind."),
    ]
    assert str(messages[3]["content"]).startswith('light({"on": true}) returned: done')


@given(st.integers(0, 200), st.integers(1, 800))
def test_long_history_is_dropped_from_the_front_in_steps(count: int, size: int) -> None:
    history = [UserItem(str(n), f"{n:0{size}}") for n in range(count)]
    messages = _prompt.chat_messages(history)
    kept = [str(message["content"]) for message in messages]
    assert kept == [item.text for item in history[len(history) - len(kept) :]]
    dropped = count - len(kept)
    assert dropped % 8 == 0
    assert sum(map(len, kept)) <= _prompt.MAX_CHARACTERS
    if dropped:
        before = [item.text or "" for item in history[dropped - 8 :]]
        assert sum(map(len, before)) > _prompt.MAX_CHARACTERS


def test_instructions_come_first_and_the_rules_of_speaking_follow() -> None:
    text = _prompt.system_text("You are Ava.\n")
    assert text.startswith("You are Ava.\n\n")
    assert "markdown" in text
