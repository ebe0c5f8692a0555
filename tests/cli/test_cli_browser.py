"""One command talks with OpenAI in a browser: Chromium, the page, the CLI, and a simulator."""

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager

import httpx
import pytest
from page import SPEECH, chromium, open_page, talk

from duologue.observe import read_calls
from duologue.testing import OpenAISimulator, Reply

pytestmark = pytest.mark.browser


@asynccontextmanager
async def serving(*args, **environment):
    """Run ``duologue serve`` as a process; yield the address that it prints."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "duologue", "serve", "--port", "0", *args),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(30):
            while line := (await running.stdout.readline()).decode():
                if found := re.search(r"Talk at (\S+)", line):
                    break
            else:
                pytest.fail("the server ended")
        yield found[1]
    finally:
        running.terminate()
        await running.communicate()


async def test_one_command_talks_with_openai_in_the_browser_and_is_observed(tmp_path):
    transcripts = ["He might even have been made amiable himself."]
    async with (
        OpenAISimulator(replies=["Perhaps he might."], transcripts=transcripts) as simulator,
        serving(
            *("--llm", "openai", "--voice", "marin", "--set", f"base_url={simulator.url}"),
            *("--metrics", "--record", str(tmp_path / "calls")),
            OPENAI_API_KEY=simulator.key,
        ) as address,
        chromium(SPEECH / "austen-0930.wav") as browser,
        open_page(browser, address) as page,
    ):
        await talk(page)
        await page.get_by_text("Perhaps he might.").first.wait_for(timeout=20_000)
        await page.get_by_text("made amiable himself").first.wait_for(timeout=20_000)
        async with httpx.AsyncClient() as client:
            figures = (await client.get(f"{address}metrics")).text
        assert 'duologue_sessions_active{transport="webrtc"} 1.0' in figures
        assert 'duologue_response_latency_seconds_count{provider="openai"}' in figures
        await page.get_by_role("button", name="End", exact=True).click()
        await page.wait_for_selector('body[data-call="idle"]')
    (call,) = read_calls(tmp_path / "calls")
    assert any("amiable" in (turn.text or "") for turn in call.story.person)
    assert any("Perhaps" in turn.generated for turn in call.story.agent)
    person, agent = call.peaks()
    assert max(person) > 20
    assert max(agent) > 20


async def test_answers_in_text_are_shown_as_read_even_if_interrupted_by_typing():
    answers = ["Perhaps he might.", "It is a long story, which began in spring.", "Then be brief."]
    replies = [answers[0], Reply(answers[1], seconds=60.0, pace=1.0), answers[2]]
    async with (
        OpenAISimulator(replies=replies) as simulator,
        serving(
            *("--llm", "openai", "--set", "output=text"),
            *("--set", f"base_url={simulator.url}"),
            OPENAI_API_KEY=simulator.key,
        ) as address,
        chromium(SPEECH / "austen-0930.wav") as browser,
        open_page(browser, address) as page,
    ):
        turns = page.locator("#turns .agent")
        await talk(page)
        await page.locator("#turns .agent:not(.open)").wait_for(timeout=20_000)
        await page.fill("#text", "And then?")
        await page.press("#text", "Enter")
        await turns.nth(1).get_by_text("began in spring").wait_for()
        assert "open" in (await turns.nth(1).get_attribute("class")).split()
        assert (await turns.nth(1).locator(".ahead").text_content()).strip() == ""
        await page.fill("#text", "Stop.")
        await page.press("#text", "Enter")
        await turns.nth(2).get_by_text(answers[2]).wait_for()
        await page.wait_for_function("!document.querySelector('#turns .open')")
        assert await turns.locator(".words").all_text_contents() == answers
        assert await page.locator("#turns s, #turns .cut, #turns .ahead").count() == 0
        events = [event for session in simulator.sessions for event in session.events_in]
        assert "response.cancel" in [event["type"] for event in events]
