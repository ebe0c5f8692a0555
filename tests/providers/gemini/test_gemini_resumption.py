"""Session resumption: which handles are kept, and what the server is sent that it lacks."""

import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Harness, texts
from hypothesis import given
from hypothesis import strategies as st

from duologue.items import AgentItem, SystemItem, ToolCallItem, UserItem
from duologue.providers.gemini._resumption import Handle, Resumption, ServerTranscript
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import AddItem, CancelReply, DeleteItem, RequestReply, Truncate
from duologue.realtime.outputs import ReplyAudio, Resumable, SessionStarted


def handle_of(harness):
    kept = harness.resumption.handle
    return None if kept is None else kept.value


def resumed(harness, **options):
    """Return the next connection of the session, with the current history."""
    model = options.pop("model", harness.codec._config.model)
    return Harness(
        model, resumption=harness.resumption, history=harness.history, live=False, **options
    )


def spoken(harness, text, item=None):
    """Complete a reply, and put it into the history with the text ``item``, or all of it."""
    harness.audio()
    harness.text(text)
    (audio,) = [o for o in harness.audio() if isinstance(o, ReplyAudio)]
    harness.generated()
    harness.completed()
    harness.history.append(AgentItem(audio.item_id, text if item is None else item))
    return audio.item_id


# Handles


def test_resumption_is_requested_from_the_first_setup_on():
    assert Harness().opening["setup"]["sessionResumption"] == {}


def test_a_handle_is_kept_only_while_the_session_can_be_resumed():
    harness = Harness()
    assert harness.handle("one") == [Resumable(True)]
    assert handle_of(harness) == "one"
    # Proto JSON leaves out false and empty values.
    for told in ({}, {"newHandle": "two"}, {"newHandle": "", "resumable": True}, {"resumable": 1}):
        assert harness.receive(sessionResumptionUpdate=told) == [Resumable(False)]
    assert handle_of(harness) == "one"
    harness.handle("three", lastConsumedClientMessageIndex="7")
    assert handle_of(harness) == "three"


def test_the_next_connection_uses_the_handle_and_gets_no_history():
    harness = Harness()
    harness.history.append(UserItem("u", "Hello."))
    harness.handle("h")
    following = resumed(harness)
    assert following.codec.awaits_resumption
    assert following.opening["setup"]["sessionResumption"] == {"handle": "h"}
    assert "historyConfig" not in following.opening["setup"]
    (started,) = following.receive(setupComplete={})
    assert isinstance(started, SessionStarted)
    assert started.restored
    assert not following.codec.awaits_resumption
    assert following.pending() == []


def test_without_a_handle_the_next_connection_gets_the_history():
    harness = Harness()
    harness.history.append(UserItem("u", "Hello."))
    following = resumed(harness)
    assert not following.codec.awaits_resumption
    (started,) = following.receive(setupComplete={})
    assert not started.restored
    assert texts(following.pending()[0]) == [("user", "Hello.")]


def test_a_handle_is_dropped_after_three_failed_connections():
    harness = Harness()
    harness.handle("h")
    for _ in range(3):
        assert resumed(harness).codec.awaits_resumption
    assert not resumed(harness).codec.awaits_resumption
    assert handle_of(harness) is None


def test_a_handle_that_worked_may_fail_again():
    harness = Harness()
    harness.handle("h")
    for _ in range(5):
        resumed(harness)
        resumed(harness).receive(setupComplete={})
    assert handle_of(harness) == "h"


# What the server does not know


def test_the_server_is_sent_what_was_said_since():
    harness = Harness()
    harness.history.append(UserItem("u", "Hello."))
    spoken(harness, "Hi.")
    harness.handle("h")
    harness.history.append(UserItem("v", "And now?", spoken=False))
    harness.history.append(AgentItem("tts", "By our own voice."))
    following = resumed(harness)
    following.receive(setupComplete={})
    (told,) = following.pending()
    assert texts(told) == [("user", "And now?"), ("model", "By our own voice.")]
    assert told["clientContent"]["turnComplete"] is False


def test_the_server_is_sent_what_was_not_heard():
    harness = Harness()
    item = spoken(harness, "One two three.", item="One two three.")
    harness.handle("h")
    harness.history[-1] = AgentItem(item, "One", "cut")
    harness.send(Truncate(item, 300, "One"))  # The connection is lost before it was sent.
    following = resumed(harness)
    following.receive(setupComplete={})
    ((_, text),) = texts(following.pending()[0])
    assert text.endswith('Of your last message only this was heard: "One"]')


def test_a_reply_that_was_not_played_yet_is_recognised_by_its_id():
    """A reply is generated, and the handle issued, before it is played."""
    harness = Harness()
    item = spoken(harness, "One two three.")
    heard = harness.history.pop()
    harness.handle("h")
    harness.history.append(heard)
    following = resumed(harness)
    following.receive(setupComplete={})
    assert following.pending() == []
    harness.history[-1] = AgentItem(item, "One", "cut")
    following = resumed(harness)
    following.receive(setupComplete={})
    ((_, text),) = texts(following.pending()[0])
    assert text.endswith('only this was heard: "One"]')
    # Not if truncation is not reported.
    quiet = resumed(harness, options={"report_truncation": False})
    quiet.receive(setupComplete={})
    assert quiet.pending() == []


def test_a_pending_truncation_is_sent_once_in_its_latest_form():
    harness = Harness(TEXT_ONLY)
    item = spoken(harness, "One two three.")
    harness.history[-1] = AgentItem(item, "One", "cut")
    harness.send(Truncate(item, 300, "One"))
    harness.handle("h")
    harness.history[-1] = AgentItem(item, "One two", "cut")  # It was corrected since.
    following = resumed(harness)
    following.receive(setupComplete={})
    (message,) = following.send(RequestReply("q"))
    text = message["realtimeInput"]["text"]
    assert text.count("was heard") == 1
    assert 'only this was heard: "One two"' in text


def test_a_note_that_no_handle_covers_is_sent_again():
    harness = Harness()
    item = spoken(harness, "One two three.")
    harness.handle("before")
    harness.history[-1] = AgentItem(item, "One", "cut")
    harness.send(Truncate(item, 300, "One"))
    assert len(harness.pending()) == 1  # Sent, but perhaps not received.
    harness.handle("after")
    assert handle_of(harness) == "before"
    following = resumed(harness)
    following.receive(setupComplete={})
    assert len(following.pending()) == 1
    # The model's next reply shows that it was received, so handles count again.
    harness.begin_reply()
    harness.completed()
    harness.handle("later")
    assert handle_of(harness) == "later"
    following = resumed(harness)
    following.receive(setupComplete={})
    assert following.pending() == []


def test_no_handle_covers_a_history_that_was_just_sent():
    harness = Harness(history=[UserItem("u", "Hello.")])
    harness.handle("empty")
    harness.pending()
    harness.handle("perhaps")
    assert handle_of(harness) is None
    harness.begin_reply()
    harness.completed()
    harness.handle("surely")
    assert handle_of(harness) == "surely"


@pytest.mark.parametrize("model", [MODEL, TEXT_ONLY])
def test_a_pending_item_is_not_known_to_the_server(model):
    harness = Harness(model)
    harness.history.append(UserItem("u", "Hello."))
    spoken(harness, "Hi.")
    harness.history.append(SystemItem("s", "Guests like tea."))
    harness.begin_reply()
    harness.send(AddItem(harness.history[-1]))
    harness.completed()
    harness.handle("h")
    following = resumed(harness)
    # Gemini 3.1 takes no turns in mid-session: it gets the history instead.
    assert following.codec.awaits_resumption is (model == MODEL)
    following.receive(setupComplete={})
    told = texts(following.pending()[0])
    assert told[-1] == ("user", "Guests like tea.")
    assert len(told) == (1 if model == MODEL else 3)


def test_a_truncation_waits_for_the_next_text_across_connections():
    harness = Harness(TEXT_ONLY)
    item = spoken(harness, "One two three.", item="One")
    harness.send(Truncate(item, 300, "One"))
    harness.handle("h")
    following = resumed(harness)
    assert following.codec.awaits_resumption
    following.receive(setupComplete={})
    assert following.pending() == []
    (message,) = following.send(RequestReply("q"))
    assert 'only this was heard: "One"' in message["realtimeInput"]["text"]


def test_an_unheard_message_is_reported_across_connections():
    harness = Harness(TEXT_ONLY)
    item = spoken(harness, "One two three.")
    del harness.history[-1]
    harness.send(DeleteItem(item))
    harness.handle("h")
    following = resumed(harness)
    following.receive(setupComplete={})
    (message,) = following.send(RequestReply("q"))
    assert "nothing was heard" in message["realtimeInput"]["text"]


def test_truncation_that_is_not_reported_is_not_a_change():
    options = {"report_truncation": False}
    harness = Harness(TEXT_ONLY, options=options)
    item = spoken(harness, "One two three.", item="One")
    harness.send(Truncate(item, 300, "One"))
    harness.handle("h")
    following = resumed(harness, options=options)
    assert following.codec.awaits_resumption
    following.receive(setupComplete={})
    assert following.pending() == []


def test_a_running_call_is_sent_with_its_result():
    harness = Harness()
    harness.history.append(UserItem("u", "How late is it?"))
    harness.handle("h")
    harness.history.append(ToolCallItem("t", "c", "time", "{}"))
    following = resumed(harness)
    following.receive(setupComplete={})
    assert following.pending() == []
    # While it runs, the next handle does not cover it.
    following.handle("i")
    third = resumed(following)
    assert third.codec.awaits_resumption
    third.receive(setupComplete={})
    assert third.pending() == []
    assert not third.codec._context.server_knows(harness.history[-1])


def test_a_late_transcript_of_a_turn_the_server_heard_is_not_sent():
    harness = Harness()
    item = spoken(harness, "Hi.")
    harness.handle("h")
    harness.history.insert(0, UserItem("u", "Hello."))  # Its transcript was late.
    following = resumed(harness)
    following.receive(setupComplete={})
    assert following.pending() == []
    # A turn written in between is sent.
    harness.history.insert(0, UserItem("w", "Written.", spoken=False))
    following = resumed(harness)
    following.receive(setupComplete={})
    assert texts(following.pending()[0]) == [("user", "Written.")]
    assert harness.history[-1].id == item


def test_two_connections_at_once_do_not_interfere():
    """The old connection continues while the next one opens."""
    harness = Harness()
    spoken(harness, "Hi.")
    harness.handle("h")
    following = resumed(harness)
    following.receive(setupComplete={})
    started, audio = harness.begin_reply()
    harness.text("One two three.")
    harness.send(CancelReply(started.reply_id))
    harness.send(Truncate(audio.item_id, 300, "One"))
    assert following.pending() == []
    assert following.send(Truncate(audio.item_id, 300, "One")) == []
    assert following.pending() == []


def test_remembered_texts_are_bounded():
    said = ServerTranscript()
    for index in range(400):
        said.append(f"i{index}", "word")
    assert len(said.texts) == 256
    assert said.differs("i399", "other")
    assert not said.differs("i0", "other")
    said.texts.clear()
    assert said.differs("i399", "other")


ITEMS = st.sampled_from("abcdef")


@given(
    st.lists(ITEMS, unique=True),
    st.lists(ITEMS, unique=True),
    st.booleans(),
    st.just(6) | st.integers(0, 6),
)
def test_changes_bring_the_server_up_to_date(before, after, cuts, shown):
    """Item by item the server gets the history, each item once and as far as it was heard."""
    before = [one for one in after if one in before] + [one for one in before if one not in after]
    said = dict.fromkeys(before, "one two")
    handle = Handle("h", [AgentItem(one, "one two") for one in before], said)
    heard = {one: ("one", "one two")[index % 2] for index, one in enumerate(after)}
    known = dict(said)
    handle = Handle("h", handle.history[:shown], said)  # Some had not been heard by then.
    for change in handle.changes_since(
        [AgentItem(one, heard[one]) for one in after], report_truncation=cuts
    ):
        match change:
            case AddItem(item=AgentItem(id=item_id, text=text)):
                assert item_id not in known
                known[item_id] = text
            case Truncate(item_id=item_id, heard_text=text):
                assert known[item_id] != text
                known[item_id] = text
            case DeleteItem(item_id=item_id):
                del known[item_id]
    if cuts:
        # A message that was not in the history yet cannot have been removed from it.
        assert known == heard | {one: said[one] for one in before[shown:] if one not in after}
    else:
        assert known.keys() == {*before, *after}
    assert Resumption(lambda: ()).next_handle() is None


def test_an_older_model_is_resumed_like_the_newest():
    harness = Harness(OLD)
    harness.handle("h")
    codec = resumed(harness).codec
    assert codec.awaits_resumption
    assert SessionSetup().history == ()
