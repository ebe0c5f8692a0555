import asyncio
from pathlib import Path

import pytest
import pytest_asyncio
from page import CallScene, chromium, open_page, talk
from server_fixture import served, until

from duologue.events import (
    AgentHeardEvent,
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    ToolEndEvent,
    ToolStartEvent,
    TurnMetricsEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser


TRANSCRIPT = """You: What is that?

Ada: A tower, built [not heard: in 1519 by a king.]

(weather(city: "Rome") done · 0.3 s)

Ada: Sunny. And warm.

(you ended the conversation)
"""

CONNECTED = RealtimeConnectedEvent("s", {}, {"video": True, "model": "scripted"})


async def test_the_transcript_follows_the_events_of_a_conversation(browser):
    stage = CallScene()
    async with (
        served(stage, page={"agent": "Ada"}) as server,
        open_page(browser, server.url) as page,
    ):
        turns, status = page.locator("#turns > li"), page.locator("#status-text")
        await talk(page, stage)
        assert await status.inner_text() == "Waking the model"
        stage.send_events(CONNECTED)
        await page.wait_for_selector('body[data-turn="listening"]')

        stage.send_events(UserTurnStartedEvent("p"), UserTranscriptEvent("What is", False, "p"))
        await page.wait_for_selector(".person.open")
        assert await turns.nth(0).locator(".words").inner_text() == "What is"
        assert await status.inner_text() == "Hearing you"
        stage.send_events(UserTranscriptEvent("What is that?", True, "p"))
        stage.send_events(UserTurnEndedEvent("p", "What is that?"))
        await page.wait_for_selector('body[data-turn="thinking"]')
        assert await page.locator(".person.open").count() == 0

        stage.send_events(AgentTranscriptEvent("A tower, ", False, "a"), AgentTurnStartedEvent("a"))
        stage.send_events(TurnMetricsEvent("a", 180.0, 200.0, 250.0, 380.0, 410.0))
        stage.send_events(AgentTranscriptEvent("built in 1519 ", False, "a"))
        stage.send_events(AgentTranscriptEvent("by a king. ", False, "a"))
        await page.wait_for_selector('body[data-turn="agent"]')
        words = turns.nth(1).locator(".words")
        assert await words.inner_text() == "A tower, built in 1519 by a king. "
        ahead = words.locator(".ahead")
        assert await ahead.inner_text() == "A tower, built in 1519 by a king. "
        stage.send_events(AgentHeardEvent("A tower, ", "a"), AgentHeardEvent("built", "a"))
        await page.wait_for_selector('.ahead:text-is("in 1519 by a king.")')
        assert await ahead.inner_text() == " in 1519 by a king. "
        colour = "(e) => getComputedStyle(e).color"
        assert await ahead.evaluate(colour) != await words.evaluate(colour)

        stage.send_events(SpeechHeldEvent("a"))
        await page.wait_for_selector('body[data-turn="held"]')
        stage.send_events(SpeechResumedEvent("a", 300))
        await page.wait_for_selector('body[data-turn="agent"]')

        stage.send_events(InterruptionEvent(1, "a", 1234, "A tower, built", "confirmed"))
        stage.send_events(AgentTranscriptEvent("A tower, built", True, "a"))
        stage.send_events(AgentTurnEndedEvent("a", True))
        struck = turns.nth(1).locator("s")
        await struck.wait_for()
        assert await struck.text_content() == "Not heard: in 1519 by a king."
        assert await words.text_content() == "A tower, built Not heard: in 1519 by a king."
        assert await turns.nth(1).locator(".note").inner_text() == "Interrupted after 1.2 s"

        bar = turns.nth(1).locator(".track")
        label = await bar.get_attribute("aria-label")
        for part in ("turn over after 180", "first word after 250", "first sound after 410 ms"):
            assert part in label
        assert await page.locator("#pace").inner_text() == "replies after 410 ms"

        stage.send_events(UserTurnStartedEvent("p"), UserTranscriptEvent("hm", False, "p"))
        stage.send_events(UserTurnEndedEvent("p", None, empty=True))
        stage.send_events(ToolStartEvent("c", "weather", '{"city": "Rome"}'))
        stage.send_events(ToolEndEvent("c", "weather", "done", "{}", 0.31))
        stage.send_events(AgentTranscriptEvent("Sunny.", False, "b"), AgentTurnStartedEvent("b"))
        stage.send_events(
            AgentTranscriptEvent("Sunny.", True, "b"), AgentTurnEndedEvent("b", False)
        )
        stage.send_events(AgentTranscriptEvent("late words", False, "a"))
        stage.send_events(AgentTranscriptEvent(" And warm.", False, "b"))
        await page.wait_for_selector('body[data-turn="listening"]')
        assert await page.locator(".tool").inner_text() == 'weather(city: "Rome") done · 0.3 s'
        assert await turns.count() == 4  # the cough left nothing
        await page.wait_for_selector("text=Sunny. And warm.")
        assert await turns.nth(3).locator("s").count() == 0
        assert "late words" not in await turns.nth(1).inner_text()
        assert await turns.nth(3).locator(".who").inner_text() == "Ada"

        spoken = await page.locator("#spoken > p").all_inner_texts()
        assert spoken == ["You: What is that?", "Ada: A tower, built (interrupted)", "Ada: Sunny."]

        stage.send_events(ErrorEvent("model", "the model had a hiccup"))
        await page.wait_for_selector("#notice:not([hidden])")
        assert await page.locator("#notice-text").inner_text() == "the model had a hiccup"
        await page.click("#notice-close")
        assert await page.locator("#notice").is_hidden()

        assert await page.title() == "Listening · Ada"
        await page.click("#talk")
        await page.wait_for_selector('body[data-call="idle"]')
        await until(lambda: server.calls.sessions == 0)
        assert await page.locator("s").count() == 1  # the end changes nothing above
        assert await turns.last.inner_text() == "you ended the conversation"
        assert await status.inner_text() == "Conversation over"
        assert await page.locator("#call-state").text_content() == "Conversation over"
        assert await page.title() == "Ada · duologue"

        await page.click("#more")
        async with page.expect_download() as downloading:
            await page.click("#download")
        download = await downloading.value
        assert download.suggested_filename.startswith("conversation-")
        assert Path(await download.path()).read_text() == TRANSCRIPT
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.click("#more")
        await page.click("#copy")
        await page.wait_for_selector("text=The transcript was copied")
        assert await page.evaluate("navigator.clipboard.readText()") == TRANSCRIPT


async def test_text_of_a_speech_that_was_not_heard_is_struck_through(browser):
    stage = CallScene()
    async with served(stage) as server, open_page(browser, server.url) as page:
        await talk(page, stage)
        stage.send_events(CONNECTED, AgentTranscriptEvent("<b>Never</b> said", False, "a"))
        stage.send_events(InterruptionEvent(1, None, 0, "", "confirmed"))
        await page.wait_for_selector("s")
        assert await page.locator("s").text_content() == "Not heard: <b>Never</b> said"
        stage.send_events(RealtimeDisconnectedEvent("quota used up", False))
        await page.wait_for_selector("#notice:not([hidden])")
        assert "quota used up" in await page.locator("#notice-text").inner_text()


async def test_voices_camera_and_keys_work(browser):
    stage = CallScene()
    async with served(stage) as server, open_page(browser, server.url) as page:
        await talk(page, stage)
        stage.send_events(CONNECTED)
        await page.wait_for_selector('body[data-turn="listening"]')
        await until(lambda: stage.loudness > 500)
        await until(lambda: stage.played_samples > 24000)
        assert stage.edge.quality == "confirmed"
        assert stage.edge.counters["reports_ignored"] == 0
        painted = """(up) => {
            const c = document.getElementById("waves"), p = c.getContext("2d");
            const half = c.height / 2, top = up ? 0 : half + 4;
            const data = p.getImageData(c.width / 2, top, c.width / 2 - 20, half - 4).data;
            return data.filter((v, i) => i % 4 === 3 && v > 0).length;
        }"""
        assert await page.evaluate(painted, False) > 1000
        assert await page.evaluate(painted, True) > 100

        await page.keyboard.press("m")
        await until(lambda: stage.loudness == 0)
        announced = page.locator("#call-state")
        assert await announced.text_content() == "Microphone muted"
        assert await page.locator("#mute").get_attribute("aria-pressed") == "true"
        assert await page.locator("#status-text").inner_text() == "Muted"
        await page.click("#mute")
        await until(lambda: stage.loudness > 500)
        assert await announced.text_content() == "Microphone on"

        await page.fill("#text", "say m")
        await page.locator("#text").press("m")
        assert await page.locator("#mute").get_attribute("aria-pressed") == "false"
        await page.locator("#text").press("Enter")
        await until(lambda: stage.texts == ["say mm"])
        assert await page.locator(".person .words").inner_text() == "say mm"
        assert await page.locator("#text").input_value() == ""

        await page.click("#camera")
        await until(lambda: stage.video_frames > 2)
        assert await page.locator("#preview").is_visible()
        await page.click("#camera")
        assert await page.locator("#preview").is_hidden()
        seen = stage.video_frames
        await asyncio.sleep(0.5)
        assert stage.video_frames <= seen + 3

        await page.fill("#text", "half a sen")
        await page.locator("#text").press("Escape")
        assert await page.locator("#notice").is_hidden()
        await page.fill("#text", "")
        await page.locator("#text").press("Escape")
        await page.wait_for_selector("text=Press Escape again")
        assert await page.get_attribute("body", "data-call") == "live"
        await page.keyboard.press("Escape")
        await page.wait_for_selector('body[data-call="idle"]')
        assert await page.locator("#notice").is_hidden()
        await until(lambda: server.calls.sessions == 0)
        stopped = "document.getElementById('voice').srcObject === null"
        assert await page.evaluate(stopped)


async def test_key_shortcuts_can_be_switched_off_for_good(browser):
    stage = CallScene()
    async with served(stage) as server, open_page(browser, server.url) as page:
        await page.click("#more")
        await page.uncheck("#shortcuts")
        assert await page.locator("#copy").is_disabled()
        await page.keyboard.press("Escape")
        assert await page.locator("#menu").is_hidden()
        assert await page.locator("#keys").is_hidden()
        await page.reload()
        await talk(page, stage)
        for key in ("m", "Escape", "Escape"):
            await page.keyboard.press(key)
        assert await page.get_attribute("body", "data-call") == "live"
        assert await page.locator("#mute").get_attribute("aria-pressed") == "false"
        assert await page.locator("#mute").get_attribute("aria-keyshortcuts") is None
        await page.click("#more")
        await page.check("#shortcuts")
        await page.keyboard.press(
            "Escape"
        )  # closes the menu, and does not count as one of the two that end the call
        await page.keyboard.press("Escape")
        await page.wait_for_selector("text=Press Escape again")
        assert await page.get_attribute("body", "data-call") == "live"


async def test_a_camera_is_offered_only_if_the_model_can_see(browser):
    stage = CallScene()
    async with served(stage) as server, open_page(browser, server.url) as page:
        await talk(page, stage)
        assert await page.locator("#camera").is_hidden()
        stage.send_events(RealtimeConnectedEvent("s", {}, {"video": False, "model": "tiny"}))
        await page.wait_for_selector('body[data-turn="listening"]')
        assert await page.locator("#camera").is_hidden()
        stage.send_events(CONNECTED)
        await page.click("#camera")
        await page.wait_for_selector("#preview:not([hidden])")
        stage.send_events(RealtimeConnectedEvent("s", {}, {"video": False, "model": "tiny"}))
        await page.wait_for_selector("#camera", state="hidden")
        assert await page.locator("#preview").is_hidden()


async def test_a_person_without_a_microphone_can_write(browser):
    stage = CallScene()
    refused = REFUSE % "NotFoundError"
    async with served(stage) as server, open_page(browser, server.url, refused) as page:
        await page.click("#talk")
        await page.wait_for_selector("text=Or write instead")
        await page.click("#write")
        await page.wait_for_selector('body[data-call="live"]')
        await asyncio.wait_for(stage.live.wait(), 5)
        assert await page.locator("#mute").is_hidden()
        assert await page.locator("#person-name").inner_text() == "You, writing"
        await page.keyboard.type("Hello there")
        await page.keyboard.press("Enter")
        await until(lambda: stage.texts == ["Hello there"])
        await until(lambda: stage.played_samples > 24000)  # the person still hears the agent
        assert stage.loudness == 0
        await page.click("#talk")
        await page.wait_for_selector('body[data-call="idle"]')


REFUSE = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', '%s'); };"


async def test_the_page_says_why_a_call_can_not_begin(browser):
    stage = CallScene()
    async with served(stage) as server:
        for script, says in [
            (REFUSE % "NotAllowedError", "may not use the microphone: allow it by the icon"),
            (REFUSE % "NotFoundError", "No microphone was found: plug one in"),
            (REFUSE % "NotReadableError", "another program uses it: close that"),
            ("delete window.RTCPeerConnection;", "use a current Chrome"),
        ]:
            async with open_page(browser, server.url, script) as page:
                await page.click("#talk")
                await page.wait_for_selector("#notice:not([hidden])")
                assert says in await page.locator("#notice-text").inner_text()
                assert await page.get_attribute("body", "data-call") == "idle"
    assert stage.calls == 0


async def test_the_page_says_that_the_server_is_full(browser):
    stage = CallScene()
    async with (
        served(stage, max_sessions=1) as server,
        open_page(browser, server.url) as page,
        open_page(browser, server.url) as other,
    ):
        await talk(page, stage)
        await other.click("#talk")
        await other.wait_for_selector("#notice:not([hidden])")
        assert "All places are taken" in await other.locator("#notice-text").inner_text()
        assert await other.get_attribute("body", "data-call") == "idle"


async def test_the_token_is_accepted_and_removed_from_the_address(browser):
    token = "correct-horse-battery"  # noqa: S105
    stage = CallScene()
    async with served(stage, token=token) as server, open_page(browser, server.url) as page:
        assert server.url.endswith(f"#token={token}")
        assert page.url == f"http://localhost:{server.port}/"
        await page.reload()
        await talk(page, stage)
        async with open_page(browser, f"http://localhost:{server.port}/?token={token}") as page:
            assert page.url == f"http://localhost:{server.port}/"
            await talk(page, stage)
        async with open_page(browser, f"http://localhost:{server.port}/") as page:
            await page.click("#talk")
            await page.wait_for_selector("#notice:not([hidden])")
            assert "needs the right token" in await page.locator("#notice-text").inner_text()


async def test_the_page_calls_again_after_the_server_has_restarted(browser):
    stage = CallScene()
    async with served(stage) as server:
        port = server.port
        context = open_page(browser, server.url)
        page = await context.__aenter__()
        await talk(page, stage)
        stage.send_events(CONNECTED, AgentTranscriptEvent("Old words, and more", False, "a"))
        stage.send_events(AgentHeardEvent("Old words", "a"))
        await page.wait_for_selector('.ahead:text-is(", and more")')
    await page.wait_for_selector('body[data-call="retrying"]')
    said = await page.locator("#notice-text").inner_text()
    assert "The server is gone; calling again in 1 s (1 of 6)" in said
    async with served(stage, port=port) as server:
        await page.wait_for_selector('body[data-call="live"]')
        stage.send_events(CONNECTED, AgentTranscriptEvent("New words", False, "a"))
        await page.wait_for_selector("text=New words")
        lines = await page.locator("#turns > li").all_inner_texts()
        words = await page.locator(".agent .words").first.text_content()
        assert words == "Old words Not heard: , and more"
        assert [line.split("\n")[-1] for line in lines] == [
            ", and more",
            "a new conversation",
            "New words",
        ]
        assert await page.locator("#notice").is_hidden()
        await page.click("#talk")
        await page.wait_for_selector('body[data-call="idle"]')
    await page.click("#talk")
    await page.wait_for_selector("#notice:not([hidden])")
    assert "does not answer" in await page.locator("#notice-text").inner_text()
    page.complaints.clear()  # Chromium itself reports the refused connection
    await context.__aexit__(None, None, None)


async def test_the_page_calls_again_when_its_first_call_reaches_a_server_that_restarts(browser):
    stage = CallScene()
    async with served(stage) as server, open_page(browser, server.url) as page:
        server.calls.draining = True
        await page.click("#talk")
        await page.wait_for_selector('body[data-call="retrying"]')
        server.calls.draining = False
        await page.wait_for_selector('body[data-call="live"]')


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_a_phone_and_is_readable(browser, scheme):
    stage = CallScene()
    small = {"width": 320, "height": 568}
    async with served(stage) as server:
        options = {"viewport": small, "color_scheme": scheme, "reduced_motion": "reduce"}
        async with open_page(browser, server.url, **options) as page:
            await talk(page, stage)
            stage.send_events(CONNECTED, AgentTranscriptEvent("long" * 60, False, "a"))
            stage.send_events(TurnMetricsEvent("a", 180.0, 200.0, 250.0, 380.0, 410.0))
            stage.send_events(InterruptionEvent(1, "a", 900, "long" * 10, "confirmed"))
            await page.wait_for_selector("s")
            wide = "document.documentElement.scrollWidth"
            assert await page.evaluate(wide) <= small["width"]
            for button in await page.locator("button:visible").all():
                box = await button.bounding_box()
                assert min(box["width"], box["height"]) >= 44
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= small["width"]
            await page.click("#more")
            box = await page.locator("#menu").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= small["width"]
            assert await page.evaluate(_POOR_CONTRAST) == []
            await page.keyboard.press("Escape")
            await page.click("#mute")
            await page.click("#camera")
            await page.wait_for_selector("#preview:not([hidden])")
            poor = await page.evaluate(_POOR_CONTRAST)
            assert poor == []
            animated = await page.evaluate("document.getAnimations().length")
            assert animated == 0


_POOR_CONTRAST = """() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const light = (colour) => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => {
            v /= 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!/, 0\\)$|transparent/.test(colour)) return colour;
        }
    };
    const poor = [];
    for (const e of document.querySelectorAll("p, s, button, h1, b, input, .legend span")) {
        if (!e.checkVisibility() || !(e.textContent.trim() || e.value || e.placeholder)) continue;
        const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) poor.push([e.className || e.tagName, ratio]);
    }
    return poor;
}"""


async def test_the_page_splits_a_text_into_heard_and_unheard(browser):
    async with served(CallScene()) as server, open_page(browser, server.url) as page:
        split = """async ([made, heard]) => {
            const { splitHeard } = await import("/static/heard.js");
            const parts = splitHeard(made, heard);
            return [parts.heard, parts.rest];
        }"""
        for made, heard, expected in [
            ("one two three", "one two", ["one two", " three"]),
            ("one  two\nthree", "one two", ["one  two", "\nthree"]),
            ("one two", "one two", ["one two", ""]),
            ("one two", "", ["", "one two"]),
            ("one two three", "One two", ["One two", " three"]),
            ("été 🎈 fin", "été 🎈", ["été 🎈", " fin"]),
            ("short", "longer than it", ["longer than it", ""]),
        ]:
            assert await page.evaluate(split, [made, heard]) == expected
