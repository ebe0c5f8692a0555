"""The comparison of a replay with its wire journal, without a call."""

from pathlib import Path

import pytest

from duologue.testing._wire_comparison import LOOK_AHEAD, Channel, Names, Replay
from duologue.testing._wire_script import Record

ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "fedcba9876543210fedcba9876543210"


def channel(*messages, cut_at=float("inf")):
    found = Replay(Path("call"))
    records = [Record({"m": message}, "out", float(at), at) for at, message in enumerate(messages)]
    return Channel("here", records, Names(), found, cut_at), found


def compare(then, now):
    compared, found = channel(then)
    compared.push(now, 0.0)
    compared.finish()
    return [str(difference) for difference in found.differences]


@pytest.mark.parametrize(
    ("then", "now", "path"),
    [
        ({"type": "a", "n": [1, {"x": 2}]}, {"type": "a", "n": [1, {"x": 3}]}, "$.n[1].x was 2"),
        ({"type": "a", "n": [1, 2]}, {"type": "a", "n": [1]}, "$.n[1] was 2, is None"),
        ({"type": "a", "n": 1}, {"type": "a"}, "$.n was 1, is None"),
        ({"type": "a"}, {"type": "a", "n": 1}, "$.n was None, is 1"),
        ({"type": "a", "at": 1.0}, {"type": "a", "at": 1.1}, "$.at was 1.0"),
        ({"type": "a", "event_id": "e1", "x": 1}, {"type": "a", "event_id": "e2", "x": 2}, "$.x"),
        (
            {"type": "a", "d": {"$": "audio", "h": ID, "n": 1}},
            {"type": "a", "d": {"$": "audio", "h": ID, "n": 2}},
            "$.d.n was 1",
        ),
        ({"event": {"promptStart": {"a": 1}}}, {"event": {"promptStart": {"a": 2}}}, "promptStart"),
        ({"setup": 1}, {"setup": 2}, "(setup)"),
        (
            {"report": "tell", "args": [{"$": "ReplyDone", "s": 1}]},
            {"report": "tell", "args": [{"$": "ReplyDone", "s": 2}]},
            "(tell ReplyDone): $.args[0].s was 1, is 2",
        ),
    ],
)
def test_the_first_difference_is_named_by_its_path(then, now, path):
    (line,) = compare(then, now)
    assert line.startswith("0.000 s, here, message 0 ")
    assert path in line


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"type": "a", "at": 1.0}, {"type": "a", "at": 1.001}),
        ({"type": "a", "event_id": "e1"}, {"type": "a", "event_id": "e2"}),
        ({"type": "a", "text": f"item_{ID}"}, {"type": "a", "text": f"item_{OTHER_ID}"}),
        ({"type": "a", "i": {"$": "image", "h": ID}}, {"type": "a", "i": {"$": "image", "h": "x"}}),
        (
            {"type": "a", "d": {"$": "audio", "h": ID, "p": "x"}},
            {"type": "a", "d": {"$": "audio", "h": OTHER_ID, "p": "y"}},
        ),
        (["a", 1, None], ["a", 1, None]),
    ],
)
def test_what_may_differ_is_no_difference(then, now):
    assert compare(then, now) == []


def test_the_hash_of_the_same_audio_stays_the_same():
    def audio(name):
        return {"type": "a", "d": {"$": "audio", "h": name}}

    compared, found = channel(audio(ID), audio(ID))
    compared.push(audio(OTHER_ID), 0.0)
    compared.push(audio("f" * 32), 1.0)
    (difference,) = found.differences
    assert difference.path == "$.d.h"


def test_messages_of_other_kinds_are_missing_and_unexpected():
    compared, found = channel({"type": "a"}, {"type": "b"})
    assert compared.push({"type": "new", "text": "x" * 200}, 0.5) is None
    compared.push({"type": "b"}, 1.0)
    compared.finish()
    unexpected, missing = map(str, found.differences)
    assert unexpected.endswith("unexpected new")
    assert missing.endswith("missing {'type': 'a'}")
    assert str(found).splitlines()[0] == "call: 2 differences in 2 messages"


def test_a_journal_that_was_cut_says_nothing_of_what_follows():
    compared, found = channel({"type": "a"}, cut_at=1.0)
    compared.push({"type": "a"}, 0.0)
    assert compared.push({"type": "b"}, 2.0) is None
    assert (found.differences, found.compared) == ([], 1)


def test_what_lies_too_far_ahead_is_not_looked_for():
    compared, found = channel(*({"type": f"t{number}"} for number in range(LOOK_AHEAD + 1)))
    compared.push({"type": f"t{LOOK_AHEAD}"}, 0.0)
    assert "unexpected" in str(found.differences[0])


def test_names_translate_the_journal_into_the_ids_of_the_replay():
    names = Names()
    assert names.translate(ID) == ID
    learned = {}
    assert names.match(ID, OTHER_ID, learned)
    names.learn(learned)
    value = {"id": f"item_{ID}", "all": [ID, 1, {"$": "audio", "h": ID}]}
    assert names.translate_json(value) == {
        "id": f"item_{OTHER_ID}",
        "all": [OTHER_ID, 1, {"$": "audio", "h": ID}],
    }
    assert not names.match("f" * 32, OTHER_ID, {})
    assert names.first_difference(ID, "f" * 32, {}) == "$"
