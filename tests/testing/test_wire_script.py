"""The wire journal of one session as a script, from made records."""

import pytest

from duologue.testing._wire_script import Script

BEGIN = {
    "k": "begin",
    "subject": "session",
    "input_rate": 24000,
    "setup": {},
    "zero": 1.5,
    "unix": 1000.0,
}


def record(kind, t, **fields):
    return {"k": kind, "t": t, "b": 1, **fields}


def test_inputs_within_a_report_belong_to_it():
    script = Script(
        [
            BEGIN,
            record("tell", 0.1, n="transmit", a=[]),
            record("ask", 0.2, n="agent.tool", a=[1]),
            record("tell", 0.2, n="transmit", a=[], d=1),
            record("ret", 0.3, v={"ok": True}, d=1),
            record("tell", 0.4, n="leave", a=[]),
        ]
    )
    (asked,) = [one for asks in script.asks.values() for one in asks]
    assert [one.at for one in script.inputs] == [0.1, 0.4]
    assert [one.at for one in asked.inputs] == [0.2]
    assert asked.result == {"ok": True}
    assert (script.zero, script.unix, script.cut_at) == (1.5, 1000.0, float("inf"))


def test_what_a_connection_did_is_found_by_its_number():
    script = Script(
        [
            BEGIN,
            record("dial", 0.1, w=1),
            record("up", 0.2, w=1),
            record("out", 0.3, w=1, m={"type": "a"}),
            record("full", 0.3, w=1, i=0),
            record("full", 0.3, w=1, i=0),
            record("sent", 0.4, w=1, i=0),
            record("unix", 0.4, v=1001),
            record("voice", 0.5, i=3, v=[[0.5, 0.02, 0.5]]),
            record("fire", 0.6, n="timer", i=2),
            record("end", 0.7, w=1),
        ]
    )
    assert script.dials == 1
    assert [one.raw["m"] for one in script.sent[1]] == [{"type": "a"}]
    assert script.full == {(1, 0): 2}
    assert script.sends[1, 0].at == 0.4
    assert list(script.unix_readings) == [1001.0]
    assert script.verdicts == {3: [(0.5, 0.02, 0.5)]}
    assert script.fires["timer", 2].at == 0.6
    assert script.by_wire["up", 1].at == 0.2
    assert script.cut_at == 0.7


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([{"k": "tell"}], "beginning is missing"),
        ([{**BEGIN, "subject": "x"}], "beginning is missing"),
        ([{**BEGIN, "input_rate": "24000"}], "no input_rate or no setup"),
        ([{**BEGIN, "options": 1}], "options are no object"),
        ([BEGIN, record("out", 0.1, w="1", m={})], "record out has no valid w"),
        ([BEGIN, record("tell", 0.1, n="transmit")], "record tell has no valid a"),
        ([BEGIN, {**record("dial", 0.1, w=1), "b": "x"}], "no valid b"),
    ],
)
def test_a_damaged_journal_says_what_is_wrong(log, words):
    with pytest.raises(ValueError, match=words):
        Script(log)
