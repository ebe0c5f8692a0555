"""Surrogates are joined where both halves come, and replaced where one is alone, on every way."""

import asyncio
import json

from fake_connection import FakeModel, live_session
from hypothesis import given
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.items import (
    AgentItem,
    SurrogateJoiner,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
    replace_surrogates,
    replace_surrogates_in_item,
)
from duologue.realtime._session.surrogates import (
    SurrogateFilter,
    replace_surrogates_in_command,
    replace_surrogates_in_setup,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    ToolSpec,
    UpdateSession,
)
from duologue.realtime.outputs import (
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    ToolCall,
    UserTranscript,
)
from duologue.testing import virtual_time

HIGH, LOW, WHOLE = "\ud83d", "\ude00", "\U0001f600"
texts = st.text(st.sampled_from(["a", "\xe9", WHOLE, HIGH, LOW]))


def test_pairs_are_joined_and_lone_surrogates_are_replaced():
    assert replace_surrogates(f"a{HIGH}{LOW}b") == f"a{WHOLE}b"
    assert replace_surrogates(f"{HIGH}a{LOW}\xe9") == "?a?\xe9"
    assert replace_surrogates("plain") == "plain"


@given(st.lists(texts))
def test_text_in_pieces_is_equal_to_the_whole_text(pieces):
    halves = SurrogateJoiner()
    joined = "".join([halves.push(piece) for piece in pieces] + [halves.flush()])
    assert joined == replace_surrogates("".join(pieces))
    joined.encode()


@given(texts)
def test_every_item_can_be_written(text):
    for item in (
        SystemItem("i", text),
        UserItem("i", text, text),
        UserItem("i", None),
        AgentItem("i", text),
        ToolCallItem("i", "c", text, text),
        ToolResultItem("i", "c", text),
    ):
        clean = replace_surrogates_in_item(item)
        json.dumps(repr(clean), ensure_ascii=False).encode()
        assert replace_surrogates_in_item(clean) is clean


@given(st.lists(texts), st.booleans())
def test_the_text_of_a_reply_is_joined_over_its_pieces(pieces, planned):
    outputs, reported = SurrogateFilter(), []
    for piece in pieces:
        reported += outputs.clean(ReplyText("r", "i", piece, planned=planned))
        reported += outputs.clean(ReplyText("r", "other", "plain"))
    reported += outputs.clean(ReplyDone("r"))
    mine = [one for one in reported if isinstance(one, ReplyText) and one.item_id == "i"]
    assert "".join(one.text for one in mine) == replace_surrogates("".join(pieces))
    assert all(one.planned == planned for one in mine)
    assert reported[-1] == ReplyDone("r")


def test_every_other_output_is_clean():
    outputs = SurrogateFilter()
    bad = f"x{HIGH}"
    for output, wanted in [
        (ToolCall("r", "c", bad, f'"{HIGH}{LOW}"'), ToolCall("r", "c", "x?", f'"{WHOLE}"')),
        (ReplyDone("r", "failed", bad), ReplyDone("r", "failed", "x?")),
        (SayMismatch("r", bad, bad), SayMismatch("r", "x?", "x?")),
        (
            ProviderError(ErrorKind.RETRY, bad, bad),
            ProviderError(ErrorKind.RETRY, "x?", "x?"),
        ),
    ]:
        assert list(outputs.clean(output)) == [wanted]


def test_every_command_is_clean():
    bad = f"x{HIGH}"
    tool = ToolSpec(bad, bad, {bad: [bad, {"a": bad}, 1, None]})
    clean = ToolSpec("x?", "x?", {"x?": ["x?", {"a": "x?"}, 1, None]})
    assert replace_surrogates_in_setup(
        SessionSetup(bad, (tool,), (UserItem("i", bad),))
    ) == SessionSetup("x?", (clean,), (UserItem("i", "x?"),))
    for command, wanted in [
        (AddItem(UserItem("i", bad)), AddItem(UserItem("i", "x?"))),
        (Say("q", bad), Say("q", "x?")),
        (RequestReply("q", bad), RequestReply("q", "x?")),
        (RequestReply("q"), RequestReply("q")),
        (SendToolResult("c", "f", bad), SendToolResult("c", "f", "x?")),
        (UpdateSession(bad, (tool,)), UpdateSession("x?", (clean,))),
        (UpdateSession(), UpdateSession()),
    ]:
        assert replace_surrogates_in_command(command) == wanted


@virtual_time
async def test_a_session_joins_text_and_cleans_what_it_sends():
    model = FakeModel()
    async with live_session(model, history=(UserItem("u", HIGH),)) as observer:
        assert model.latest.setup.history == (UserItem("u", "?"),)
        model.say("q", f"Hello {HIGH}")
        assert model.latest.commands[-1].text == "Hello ?"
        model.latest.emit(ReplyStarted("r", "q"))
        for piece in (f"Hello {HIGH}", f"{LOW} there", HIGH):
            model.latest.emit(ReplyText("r", "i", piece))
        model.latest.emit(ReplyDone("r"))
        assert [one.text for one in observer.of(ReplyText)] == ["Hello ", f"{WHOLE} there", "?"]
        model.latest.emit(UserTranscript("t", f"so {HIGH}", final=False))
        model.latest.emit(UserTranscript("t", f"so {HIGH}{LOW}", final=True))
        assert [one.text for one in observer.of(UserTranscript)] == ["so ?", f"so {WHOLE}"]
        await asyncio.sleep(0)


def test_audio_and_clean_items_pass_unchanged():
    audio = SendAudio(AudioFrame.silence(0.1, 16000))
    assert replace_surrogates_in_command(audio) is audio
    added = AddItem(UserItem("u", "plain"))
    assert replace_surrogates_in_command(added) is added
    output = ReplyAudio("r", "i", AudioFrame.silence(0.1, 16000))
    assert SurrogateFilter().clean(output) == (output,)
