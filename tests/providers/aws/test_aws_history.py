import pytest

pytest.importorskip("orjson", reason="the aws extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.aws._capabilities import NOVA_1, NOVA_2
from duologue.providers.aws._history import (
    MAX_BYTES,
    MAX_PIECE_BYTES,
    history_messages,
    last_bytes,
    split_text,
)

TALK = [UserItem("u", "Hello."), AgentItem("a", "Hi.")]


def told(items, generation=NOVA_2):
    return [(one.role, one.text) for one in history_messages(items, generation)]


def test_conversation_is_sent_unchanged():
    assert told([*TALK, UserItem("u2", "Bye.")]) == [
        ("USER", "Hello."),
        ("ASSISTANT", "Hi."),
        ("USER", "Bye."),
    ]
    assert told([]) == []


def test_messages_of_one_role_are_joined_and_empty_ones_left_out():
    items = [*TALK, UserItem("n", None), AgentItem("e", " "), AgentItem("a2", "Still there?")]
    assert told(items) == [("USER", "Hello."), ("ASSISTANT", "Hi.\nStill there?")]


def test_note_precedes_a_conversation_that_the_agent_began():
    assert told([AgentItem("a", "Welcome!")]) == [
        ("USER", "[The conversation begins.]"),
        ("ASSISTANT", "Welcome!"),
    ]


def test_tools_and_guidance_are_notes():
    items = [
        SystemItem("s", "They like tea."),
        UserItem("u", "Weather?"),
        ToolCallItem("t1", "c1", "weather", '{"city":"Bonn"}'),
        ToolResultItem("r1", "c1", "sunny"),
        ToolCallItem("t2", "c2", "news", "{}"),
        ToolResultItem("r2", "c2", "no line", failed=True),
        ToolCallItem("t3", "c3", "slow", "{}"),
        ToolResultItem("r4", "c4", "lost"),
        AgentItem("a", "It is sunny."),
    ]
    ((role, notes), answer) = told(items)
    assert role == "USER"
    assert notes.splitlines() == [
        "[They like tea.]",
        "Weather?",
        '[The tool weather, called with {"city":"Bonn"}, answered: sunny]',
        "[The tool news, called with {}, failed: no line]",
        "[The tool slow, called with {}, is still at work.]",
    ]
    assert answer == ("ASSISTANT", "It is sunny.")


def long_talk(turns, size=20):
    items = []
    for index in range(turns):
        items.append(UserItem(f"u{index}", f"question {index} " + "x" * size))
        items.append(AgentItem(f"a{index}", f"answer {index} " + "y" * size))
    return items


def test_too_many_messages_become_a_transcript_in_front():
    found = told(long_talk(100))
    assert len(found) == 40
    first = found[0][1].splitlines()
    assert first[0] == "[What was said before:]"
    assert first[1].startswith("Person: question 0 ")
    assert first[2].startswith("You: answer 0 ")
    whole = "\n".join(text for _, text in found)
    for index in range(100):
        assert whole.count(f"question {index} ") == whole.count(f"answer {index} ") == 1
    assert found[-1][1].startswith("answer 99 ")


def test_transcript_is_the_persons_whoever_spoke_last():
    found = told([*long_talk(100), UserItem("last", "question 100")])
    assert [role for role, _ in found] == ["USER", "ASSISTANT"] * 19 + ["USER"]
    assert found[0][1].count("question") + found[0][1].count("answer") == 201 - 38


def test_oldest_messages_are_left_out_first():
    found = told(long_talk(100, size=500))
    whole = "\n".join(text for _, text in found)
    assert "[What was said before is left out.]" in found[0][1]
    assert "question 0 " not in whole
    assert found[-1][1].startswith("answer 99 ")
    assert MAX_BYTES - 2000 < len(whole) <= MAX_BYTES


def test_one_message_that_is_too_long_keeps_its_end():
    ((role, text),) = told([UserItem("u", "a" * 50_000 + " the end")])
    assert role == "USER"
    assert text.startswith("…aaa")
    assert text.endswith(" the end")
    assert len(text.encode()) <= MAX_BYTES


def test_nova_1_accepts_less():
    found = told(long_talk(100, size=2000), NOVA_1)
    assert len(found) <= 40
    assert max(len(text.encode()) for _, text in found) <= 1000


WORDS = st.text(max_size=400) | st.text(min_size=500, max_size=3000)
ITEMS = st.one_of(
    st.builds(UserItem, st.just("u"), WORDS | st.none()),
    st.builds(AgentItem, st.just("a"), WORDS),
    st.builds(SystemItem, st.just("s"), WORDS),
    st.builds(ToolCallItem, st.just("t"), st.sampled_from("ab"), st.just("x"), st.just("{}")),
    st.builds(ToolResultItem, st.just("r"), st.sampled_from("abc"), WORDS),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEMS, max_size=90), st.sampled_from([NOVA_1, NOVA_2]))
def test_any_history_is_one_that_the_service_accepts(items, generation):
    found = history_messages(items, generation)
    assert len(found) <= generation.max_messages
    assert [one.role for one in found] == ["USER", "ASSISTANT"] * (len(found) // 2) + ["USER"] * (
        len(found) % 2
    )
    assert sum(one.size_bytes for one in found) <= MAX_BYTES
    assert all(0 < one.size_bytes <= generation.max_message_bytes for one in found)


@given(st.text(max_size=5000), st.integers(4, 2000))
def test_pieces_are_the_whole_text_and_within_the_limit(text, most):
    found = split_text(text, most)
    assert "".join(found) == text
    assert all(len(one.encode()) <= most for one in found)
    assert all(found[:-1])


@given(st.text(max_size=500), st.integers(4, 600))
def test_last_bytes_of_a_text(text, most):
    end = last_bytes(text, most)
    assert len(end.encode()) <= most
    assert text.endswith(end.removeprefix("…"))
    assert end == text or len(text.encode()) > most


def test_limits_are_those_of_the_guide():
    assert MAX_PIECE_BYTES <= 1024
    assert MAX_BYTES <= 40 * 1024
