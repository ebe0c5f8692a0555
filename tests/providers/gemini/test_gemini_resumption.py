"""Going on by a handle: which are kept, and what the server is told that it does not know."""

import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Line, texts
from hypothesis import given
from hypothesis import strategies as st

from duologue.items import AgentItem, SystemItem, ToolCallItem, UserItem
from duologue.providers.gemini._resumption import Handle, Resumption, ServerTranscript
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import AddItem, CancelReply, DeleteItem, RequestReply, Truncate
from duologue.realtime.outputs import ReplyAudio, Resumable, SessionStarted


def handle_of(line):
    kept = line.resumption.handle
    return None if kept is None else kept.value


def resumed(line, **options):
    """The next connection of that session, with its history as it is now."""
    model = options.pop("model", line.codec._config.model)
    return Line(model, resumption=line.resumption, history=line.history, live=False, **options)


def spoken(line, text, item=None):
    """A reply that is said and complete; it is in the history as far as ``item`` says."""
    line.sound()
    line.words(text)
    (audio,) = [o for o in line.sound() if isinstance(o, ReplyAudio)]
    line.generated()
    line.completed()
    line.history.append(AgentItem(audio.item_id, text if item is None else item))
    return audio.item_id


# Handles


def test_resumption_is_asked_for_from_the_first_setup_on():
    assert Line().opening["setup"]["sessionResumption"] == {}


def test_a_handle_is_kept_only_when_the_session_can_be_resumed_by_it():
    line = Line()
    assert line.handle("one") == [Resumable(True)]
    assert handle_of(line) == "one"
    # Proto JSON leaves out what is false or empty.
    for told in ({}, {"newHandle": "two"}, {"newHandle": "", "resumable": True}, {"resumable": 1}):
        assert line.get(sessionResumptionUpdate=told) == [Resumable(False)]
    assert handle_of(line) == "one"
    line.handle("three", lastConsumedClientMessageIndex="7")
    assert handle_of(line) == "three"


def test_the_next_connection_goes_on_by_it_and_is_given_no_history():
    line = Line()
    line.history.append(UserItem("u", "Hello."))
    line.handle("h")
    following = resumed(line)
    assert following.codec.awaits_resumption
    assert following.opening["setup"]["sessionResumption"] == {"handle": "h"}
    assert "historyConfig" not in following.opening["setup"]
    (started,) = following.get(setupComplete={})
    assert isinstance(started, SessionStarted)
    assert started.restored
    assert not following.codec.awaits_resumption
    assert following.pending() == []


def test_without_a_handle_it_is_given_the_history_and_says_so():
    line = Line()
    line.history.append(UserItem("u", "Hello."))
    following = resumed(line)
    assert not following.codec.awaits_resumption
    (started,) = following.get(setupComplete={})
    assert not started.restored
    assert texts(following.pending()[0]) == [("user", "Hello.")]


def test_a_handle_that_leads_to_no_connection_is_given_up():
    line = Line()
    line.handle("h")
    for _ in range(3):
        assert resumed(line).codec.awaits_resumption
    assert not resumed(line).codec.awaits_resumption
    assert handle_of(line) is None


def test_a_handle_that_leads_to_one_is_good_again():
    line = Line()
    line.handle("h")
    for _ in range(5):
        resumed(line)
        resumed(line).get(setupComplete={})
    assert handle_of(line) == "h"


# What the server does not know


def test_what_was_said_since_is_told_the_server():
    line = Line()
    line.history.append(UserItem("u", "Hello."))
    spoken(line, "Hi.")
    line.handle("h")
    line.history.append(UserItem("v", "And now?", spoken=False))
    line.history.append(AgentItem("tts", "By our own voice."))
    following = resumed(line)
    following.get(setupComplete={})
    (told,) = following.pending()
    assert texts(told) == [("user", "And now?"), ("model", "By our own voice.")]
    assert told["clientContent"]["turnComplete"] is False


def test_what_was_not_heard_of_what_the_server_has_said_is_told_it():
    line = Line()
    item = spoken(line, "One two three.", item="One two three.")
    line.handle("h")
    line.history[-1] = AgentItem(item, "One", "cut")
    line.send(Truncate(item, 300, "One"))  # And the connection is gone before it was told.
    following = resumed(line)
    following.get(setupComplete={})
    ((_, text),) = texts(following.pending()[0])
    assert text.endswith('Of your last message only this was heard: "One"]')


def test_what_the_server_has_said_before_anybody_heard_it_is_known_by_its_id():
    """A reply is made, and the handle given, before it is played."""
    line = Line()
    item = spoken(line, "One two three.")
    heard = line.history.pop()
    line.handle("h")
    line.history.append(heard)
    following = resumed(line)
    following.get(setupComplete={})
    assert following.pending() == []
    line.history[-1] = AgentItem(item, "One", "cut")
    following = resumed(line)
    following.get(setupComplete={})
    ((_, text),) = texts(following.pending()[0])
    assert text.endswith('only this was heard: "One"]')
    # Not where that is not to be told.
    quiet = resumed(line, options={"report_truncation": False})
    quiet.get(setupComplete={})
    assert quiet.pending() == []


def test_what_was_to_be_told_is_told_once_and_as_it_is_by_now():
    line = Line(TEXT_ONLY)
    item = spoken(line, "One two three.")
    line.history[-1] = AgentItem(item, "One", "cut")
    line.send(Truncate(item, 300, "One"))
    line.handle("h")
    line.history[-1] = AgentItem(item, "One two", "cut")  # It was healed since.
    following = resumed(line)
    following.get(setupComplete={})
    (message,) = following.send(RequestReply("q"))
    text = message["realtimeInput"]["text"]
    assert text.count("was heard") == 1
    assert 'only this was heard: "One two"' in text


def test_a_note_that_no_handle_has_seen_is_told_again():
    line = Line()
    item = spoken(line, "One two three.")
    line.handle("before")
    line.history[-1] = AgentItem(item, "One", "cut")
    line.send(Truncate(item, 300, "One"))
    assert len(line.pending()) == 1  # Told, but who knows whether it has arrived.
    line.handle("after")
    assert handle_of(line) == "before"
    following = resumed(line)
    following.get(setupComplete={})
    assert len(following.pending()) == 1
    # What the model says next shows that it has: handles are good again.
    line.began()
    line.completed()
    line.handle("later")
    assert handle_of(line) == "later"
    following = resumed(line)
    following.get(setupComplete={})
    assert following.pending() == []


def test_a_history_that_was_just_given_is_in_no_handle_yet():
    line = Line(history=[UserItem("u", "Hello.")])
    line.handle("empty")
    line.pending()
    line.handle("perhaps")
    assert handle_of(line) is None
    line.began()
    line.completed()
    line.handle("surely")
    assert handle_of(line) == "surely"


@pytest.mark.parametrize("model", [MODEL, TEXT_ONLY])
def test_what_waits_to_be_told_is_not_known(model):
    line = Line(model)
    line.history.append(UserItem("u", "Hello."))
    spoken(line, "Hi.")
    line.history.append(SystemItem("s", "Guests like tea."))
    line.began()
    line.send(AddItem(line.history[-1]))
    line.completed()
    line.handle("h")
    following = resumed(line)
    # Gemini 3.1 could not be told it any more: it gets the history instead.
    assert following.codec.awaits_resumption is (model == MODEL)
    following.get(setupComplete={})
    told = texts(following.pending()[0])
    assert told[-1] == ("user", "Guests like tea.")
    assert len(told) == (1 if model == MODEL else 3)


def test_cuts_wait_for_the_next_text_also_over_a_new_connection():
    line = Line(TEXT_ONLY)
    item = spoken(line, "One two three.", item="One")
    line.send(Truncate(item, 300, "One"))
    line.handle("h")
    following = resumed(line)
    assert following.codec.awaits_resumption
    following.get(setupComplete={})
    assert following.pending() == []
    (message,) = following.send(RequestReply("q"))
    assert 'only this was heard: "One"' in message["realtimeInput"]["text"]


def test_a_message_of_which_nothing_was_heard_is_told_over_a_new_connection_too():
    line = Line(TEXT_ONLY)
    item = spoken(line, "One two three.")
    del line.history[-1]
    line.send(DeleteItem(item))
    line.handle("h")
    following = resumed(line)
    following.get(setupComplete={})
    (message,) = following.send(RequestReply("q"))
    assert "nothing was heard" in message["realtimeInput"]["text"]


def test_cuts_that_are_not_to_be_told_are_no_news():
    options = {"report_truncation": False}
    line = Line(TEXT_ONLY, options=options)
    item = spoken(line, "One two three.", item="One")
    line.send(Truncate(item, 300, "One"))
    line.handle("h")
    following = resumed(line, options=options)
    assert following.codec.awaits_resumption
    following.get(setupComplete={})
    assert following.pending() == []


def test_a_call_under_way_is_told_with_its_result():
    line = Line()
    line.history.append(UserItem("u", "How late is it?"))
    line.handle("h")
    line.history.append(ToolCallItem("t", "c", "time", "{}"))
    following = resumed(line)
    following.get(setupComplete={})
    assert following.pending() == []
    # While it runs, the next handle does not know of it.
    following.handle("i")
    third = resumed(following)
    assert third.codec.awaits_resumption
    third.get(setupComplete={})
    assert third.pending() == []
    assert not third.codec._context.server_knows(line.history[-1])


def test_words_of_a_turn_that_the_server_has_heard_are_not_told_again():
    line = Line()
    item = spoken(line, "Hi.")
    line.handle("h")
    line.history.insert(0, UserItem("u", "Hello."))  # Its words came late.
    following = resumed(line)
    following.get(setupComplete={})
    assert following.pending() == []
    # One that was written in between is.
    line.history.insert(0, UserItem("w", "Written.", spoken=False))
    following = resumed(line)
    following.get(setupComplete={})
    assert texts(following.pending()[0]) == [("user", "Written.")]
    assert line.history[-1].id == item


def test_two_connections_at_once_do_not_disturb_each_other():
    """While the next connection is made, the one before goes on."""
    line = Line()
    spoken(line, "Hi.")
    line.handle("h")
    following = resumed(line)
    following.get(setupComplete={})
    started, audio = line.began()
    line.words("One two three.")
    line.send(CancelReply(started.reply_id))
    line.send(Truncate(audio.item_id, 300, "One"))
    assert following.pending() == []
    assert following.send(Truncate(audio.item_id, 300, "One")) == []
    assert following.pending() == []


def test_what_is_remembered_is_bounded():
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
def test_since_leads_from_what_the_server_knew_to_what_is(before, after, cuts, shown):
    """Told item by item, the server knows the history: each once, as far as it was heard."""
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
        # Of a message that was not in the history yet nobody has said that it is gone.
        assert known == heard | {one: said[one] for one in before[shown:] if one not in after}
    else:
        assert known.keys() == {*before, *after}
    assert Resumption(lambda: ()).next_handle() is None


def test_an_older_model_is_resumed_like_the_newest():
    line = Line(OLD)
    line.handle("h")
    codec = resumed(line).codec
    assert codec.awaits_resumption
    assert SessionSetup().history == ()
