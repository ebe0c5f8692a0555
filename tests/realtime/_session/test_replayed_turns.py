from duologue.items import AgentItem, UserItem
from duologue.realtime._session.replayed_turns import MAX_REPLAY_DELAY_S, ReplayedTurns
from duologue.realtime._session.resume import reinsert_turn
from duologue.realtime.commands import AddItem, DeleteItem
from duologue.realtime.outputs import SpeechStarted, SpeechStopped, UserTranscript, UserTurnEnded


def replaying(*ids, length=1000, seconds=1.0, now=0.0):
    replayed = ReplayedTurns()
    replayed.begin(ids, length, seconds, now)
    return replayed


def turn(item_id, position=0):
    return [
        SpeechStarted(item_id, position=position),
        SpeechStopped(item_id),
        UserTurnEnded(item_id),
        UserTranscript(item_id, "some", final=False),
        UserTranscript(item_id, "some words", final=True),
    ]


def test_only_the_transcript_of_a_replayed_turn_is_passed_on_under_its_first_id():
    replayed = replaying("old")
    reported = [replayed.translate(signal, 0.1) for signal in turn("new")]
    assert reported == [None, None, None, None, UserTranscript("old", "some words", final=True)]
    new = SpeechStarted("next", position=10)
    assert replayed.translate(new, 0.2) is new


def test_a_transcript_may_come_before_the_end_and_turns_come_in_order():
    replayed = replaying("a", "b")
    first = turn("x")
    reported = [replayed.translate(first[i], 0.1) for i in (0, 4, 2)]
    assert reported[1].item_id == "a"
    assert (reported[0], reported[2]) == (None, None)
    assert [replayed.translate(s, 0.1) for s in turn("y")][-1].item_id == "b"


def test_a_manual_turn_has_no_beginning():
    replayed = replaying("old")
    assert replayed.translate(UserTurnEnded("new", reply_follows=False), 0.1) is None
    assert replayed.translate(UserTranscript("new", "words", final=True), 0.1).item_id == "old"


def test_a_turn_behind_the_replayed_audio_or_too_late_is_new():
    for signal, now in (
        (SpeechStarted("new", position=1000), 0.1),
        (SpeechStarted("new"), 2 + MAX_REPLAY_DELAY_S + 0.1),
    ):
        replayed = replaying("old")
        assert replayed.translate(signal, now) is signal
        again = SpeechStarted("other", position=0)
        assert replayed.translate(again, 0.1) is again


def test_the_transcript_of_a_turn_that_is_not_replayed_passes():
    replayed = replaying("old")
    transcript = UserTranscript("stranger", "words", final=True)
    assert replayed.translate(transcript, 0.1) is transcript


def test_a_second_loss_keeps_the_first_ids():
    replayed = replaying("a", "b", "c")
    for signal in turn("x"):
        replayed.translate(signal, 0.1)
    replayed.translate(SpeechStarted("y", position=5), 0.1)
    assert replayed.connection_lost(["y", "z"]) == (["b", "c"], ["z"])
    assert replayed.connection_lost(["z"]) == ([], ["z"])


def test_a_turn_is_inserted_before_its_reply():
    items = (UserItem("u", "hi"), UserItem("q", "what"), AgentItem("a", "that"))
    assert reinsert_turn("q", "new", items, {"u", "a"}) == [
        DeleteItem("new"),
        AddItem(items[1], before=("a",)),
    ]
    assert reinsert_turn("gone", "new", items, {"u", "a"}) == []
    # The items after it were added on this connection, behind it.
    assert reinsert_turn("q", "new", items, {"u"}) == []
