"""How audio frames and conversations look in a notebook."""

import base64
import io
import wave
from html.parser import HTMLParser

import numpy as np
import pytest

from duologue import AudioFrame, Conversation
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text by table row."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.rows, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def played(html):
    ((_, attributes),) = [(tag, found) for tag, found in Page(html).tags if tag == "audio"]
    kind, data = attributes["src"].split(",")
    assert kind == "data:audio/wav;base64"
    with wave.open(io.BytesIO(base64.b64decode(data))) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate()


def test_a_frame_can_be_played():
    samples = np.arange(-8000, 8000, dtype=np.int16)
    html = AudioFrame(samples, 16000)._repr_html_()
    audio, rate = played(html)
    assert np.array_equal(audio, samples)
    assert rate == 16000
    assert "1.00 s at 16000 Hz" in Page(html).text


@pytest.mark.parametrize("rate", [8000, 48000, 384000])
def test_a_long_frame_is_cut_and_says_so(rate):
    html = AudioFrame(np.ones(rate * 90, np.int16), rate)._repr_html_()
    assert len(html) < 8_100_000
    audio, _ = played(html)
    seconds = len(audio) / rate
    assert seconds <= 60
    assert f"the first {seconds:.0f} s of 90.00 s" in Page(html).text


@pytest.mark.parametrize("frame", [AudioFrame.silence(0, 16000), AudioFrame.silence(1, 10_000_000)])
def test_a_frame_that_no_browser_plays_is_text(frame):
    assert [tag for tag, _ in Page(frame._repr_html_()).tags] == ["span"]


ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp; \ud800"


def test_a_conversation_is_a_table_and_its_text_stays_text():
    conversation = Conversation()
    for item in (
        SystemItem("s", ATTACK),
        UserItem("u", ATTACK, ATTACK),
        UserItem("w", ATTACK, spoken=False),
        UserItem("n", None, "person"),
        AgentItem("a", ATTACK, "cut"),
        ToolCallItem("c", "c", ATTACK, ATTACK),
        ToolResultItem("r", "c", ATTACK),
    ):
        conversation.put(item)
    page = Page(conversation._repr_html_())
    safe = ATTACK.replace("\ud800", "?")
    assert page.rows[1:] == [
        ["system", safe, ""],
        [safe, safe, ""],
        ["person", safe, "written"],
        ["person", "", ""],
        ["agent", safe, "cut"],
        ["tool call", f"{safe}({safe})", ""],
        ["tool result", safe, ""],
    ]
    assert {tag for tag, _ in page.tags} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert all(set(attributes) <= {"style"} for _, attributes in page.tags)


def test_an_endless_conversation_shows_its_newest_part():
    conversation = Conversation()
    assert "empty" in conversation._repr_html_()
    for number in range(2000):
        conversation.put(UserItem(str(number), "x" * 100_000, "person"))
    html = conversation._repr_html_()
    assert len(html) < 1_200_000
    assert Page(html).rows[1][1] == "1500 older items"
    assert len(Page(html).rows) == 502
