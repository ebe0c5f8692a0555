import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.realtime.outputs import ReplyAudio, ReplyDone, ReplyInterrupted
from duologue.realtime.reply_slicer import ReplySlicer

LOUD = AudioFrame(np.full(480, 5000, np.int16), 24000)
QUIET = AudioFrame(np.full(480, 90, np.int16), 24000)


def play(slicer, frames):
    """Push ``#`` as loud and ``.`` as silent frames; return the output in the same signs."""
    out = ""
    for sign in frames:
        out += signs_of(slicer.push(LOUD if sign == "#" else QUIET))
    return out


def signs_of(outputs):
    signs = ""
    for output in outputs:
        match output:
            case ReplyAudio(frame=frame):
                signs += "#" if frame is LOUD else "."
            case ReplyDone(status=status):
                signs += f"({status})"
            case ReplyInterrupted():
                signs += "!"
    return signs


def done(status="completed", reply_id="r"):
    return ReplyDone(reply_id, status)


@pytest.fixture
def slicer():
    slicer = ReplySlicer()
    slicer.expect_audio("r", "item")
    return slicer


def test_silence_between_replies_is_dropped(slicer):
    assert play(slicer, "." * 50) == ""
    assert slicer.dropped_samples == 0


def test_audio_between_started_and_stopped_belongs_to_the_reply(slicer):
    assert signs_of(slicer.buffer_started("r")) == ""
    [audio] = slicer.push(LOUD)
    assert (audio.reply_id, audio.item_id) == ("r", "item")
    assert play(slicer, "#..#.") == "#..#."
    assert signs_of(slicer.response_done(done())) == ""
    assert signs_of(slicer.buffer_stopped("r")) == "(completed)"
    assert play(slicer, "#.#") == ""


def test_audio_before_started_belongs_to_the_reply_from_its_first_loud_frame(slicer):
    play(slicer, "......##.#")
    assert signs_of(slicer.buffer_started("r")) == "##.#"
    assert play(slicer, "#") == "#"


def test_at_most_240_ms_before_started_are_kept(slicer):
    play(slicer, "#" * 40)
    assert signs_of(slicer.buffer_started("r")) == "#" * 12
    assert slicer.dropped_samples == 28 * 480


def test_audio_after_stopped_continues_to_the_first_silence(slicer):
    slicer.buffer_started("r")
    play(slicer, "##")
    slicer.response_done(done())
    assert signs_of(slicer.buffer_stopped("r")) == ""
    assert play(slicer, "##.##") == "##(completed)"


def test_audio_after_stopped_ends_after_200_ms(slicer):
    slicer.buffer_started("r")
    play(slicer, "##")
    slicer.buffer_stopped("r")
    assert play(slicer, "#" * 30) == "#" * 10
    assert signs_of(slicer.response_done(done())) == "(completed)"


def test_cleared_drops_remaining_audio_and_audio_in_flight(slicer):
    slicer.buffer_started("r")
    play(slicer, "##")
    slicer.response_done(done())
    assert signs_of(slicer.buffer_cleared("r", by_client=False)) == "!(cancelled)"
    assert play(slicer, "###") == ""
    slicer.expect_audio("next", "item 2")
    assert signs_of(slicer.buffer_started("next")) == ""
    assert play(slicer, "#") == "#"


def test_cleared_by_the_client_is_no_interruption_and_waits_for_done(slicer):
    slicer.buffer_started("r")
    play(slicer, "#.")
    assert signs_of(slicer.buffer_cleared("r", by_client=True)) == ""
    assert signs_of(slicer.response_done(done("cancelled"))) == "(cancelled)"
    assert signs_of(slicer.buffer_cleared("r", by_client=False)) == ""


def test_done_without_audio_is_reported_at_once(slicer):
    assert signs_of(slicer.response_done(done(reply_id="tools only"))) == "(completed)"


def test_done_before_started_waits_for_the_audio(slicer):
    assert signs_of(slicer.response_done(done())) == ""
    slicer.buffer_started("r")
    assert play(slicer, "#.") == "#."
    assert signs_of(slicer.buffer_stopped("r")) == "(completed)"


def test_done_is_reported_after_2_s_of_silence_if_no_audio_starts(slicer):
    play(slicer, "." * 200)
    assert signs_of(slicer.response_done(done())) == ""
    assert play(slicer, "." * 99) == ""
    assert play(slicer, ".") == "(completed)"
    slicer.expect_audio("next", "item 2")
    assert signs_of(slicer.response_done(done(reply_id="next"))) == ""
    assert play(slicer, "." * 99) == ""
    slicer.buffer_started("next")
    assert play(slicer, "." * 200) == "." * 200


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_reply_cancelled_before_its_audio_has_ended(slicer, status):
    assert signs_of(slicer.response_done(done(status))) == f"({status})"
    assert signs_of(slicer.buffer_started("r")) == ""
    assert play(slicer, "###") == ""


def test_next_reply_ends_the_tail_of_the_previous_one(slicer):
    slicer.buffer_started("r")
    play(slicer, "##")
    slicer.response_done(done())
    slicer.buffer_stopped("r")
    slicer.expect_audio("next", "item 2")
    assert signs_of(slicer.buffer_started("next")) == "(completed)"
    assert [output.reply_id for output in slicer.push(LOUD)] == ["next"]


def test_reply_started_before_the_previous_one_stops_waits_for_it(slicer):
    slicer.buffer_started("r")
    play(slicer, "##")
    slicer.response_done(done())
    slicer.expect_audio("next", "item 2")
    assert signs_of(slicer.buffer_started("next")) == ""
    assert [output.reply_id for output in slicer.push(LOUD)] == ["r"]
    assert signs_of(slicer.response_done(done(reply_id="next"))) == ""
    assert signs_of(slicer.buffer_stopped("r")) == ""
    assert play(slicer, "#.") == "#(completed)"
    assert [output.reply_id for output in slicer.push(QUIET)] == ["next"]
    assert signs_of(slicer.buffer_stopped("next")) == "(completed)"


def test_stopped_for_a_queued_reply_ends_the_one_before_it(slicer):
    slicer.buffer_started("r")
    play(slicer, "#.")
    slicer.response_done(done())
    slicer.buffer_started("next")
    slicer.response_done(done("failed", "next"))
    slicer.expect_audio("third", "item 3")
    slicer.buffer_started("third")
    assert signs_of(slicer.response_done(done(reply_id="third"))) == ""
    assert signs_of(slicer.buffer_stopped("third")) == "(completed)(completed)"


def test_reply_cleared_before_it_starts_never_starts(slicer):
    slicer.buffer_started("r")
    play(slicer, "#")
    slicer.expect_audio("next", "item 2")
    slicer.buffer_started("next")
    slicer.buffer_cleared("next", by_client=True)
    slicer.buffer_cleared("r", by_client=True)
    assert play(slicer, "###") == ""


def test_replies_queued_behind_one_that_never_stops_are_bounded(slicer):
    slicer.buffer_started("r")
    slicer.response_done(done())
    out = [signs_of(slicer.buffer_started(f"next {index}")) for index in range(9)]
    assert out == [""] * 8 + ["(completed)"]
