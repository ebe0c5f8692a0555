"""Parts of a pipeline are tried before anybody talks."""

import asyncio

import pytest

from duologue.cli.agent_source import ModelSource
from duologue.cli.options import ModelOptions
from duologue.cli.part_check import check_connection, check_llm
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.pipeline.interfaces import TextDelta
from duologue.testing import CartesiaSimulator, DeepgramSimulator, virtual_time


class Part:
    """A part that connects after a while, and may fail after another."""

    def __init__(self, connects_s=0.1, fails_s=1e9, kind=ErrorKind.FATAL):
        self.connections = 0
        self.ended = False
        self._connects_s, self._fails_s, self._kind = connects_s, fails_s, kind

    async def run(self):
        try:
            await asyncio.sleep(self._connects_s)
            self.connections = 1
            await asyncio.sleep(self._fails_s)
            raise SessionError("no such key", kind=self._kind)
        finally:
            self.ended = True

    async def check(self):
        result = await check_connection("--stt acme", self.run(), lambda: self.connections > 0)
        assert self.ended
        return result


@virtual_time
async def test_a_connection_that_stays_is_good():
    assert await Part().check() == ""


@virtual_time
async def test_a_refused_key_is_an_error_with_the_option():
    part = Part(fails_s=0.1)
    with pytest.raises(ConfigError, match=r"^--stt acme: no such key$"):
        await part.check()
    assert part.ended


@virtual_time
async def test_what_may_pass_is_a_warning():
    assert await Part(fails_s=0.1, kind=ErrorKind.RETRY).check() == "--stt acme: no such key"
    assert await Part(connects_s=60).check() == "--stt acme: no connection within 10 s"


@virtual_time
async def test_a_failure_before_the_connection_is_reported_at_once():
    async def run():
        raise SessionError("no such model", kind=ErrorKind.FATAL)

    with pytest.raises(ConfigError, match="no such model"):
        await check_connection("--tts acme", run(), lambda: False)


class TextModel:
    """A text model that replies after a while, or fails."""

    def __init__(self, seconds=0.1, error=None):
        self.closed = False
        self._seconds, self._error = seconds, error

    async def generate(self, instructions, history, tools):
        try:
            await asyncio.sleep(self._seconds)
            if self._error is not None:
                raise self._error
            for _ in range(1000):
                yield TextDelta("OK")
        finally:
            self.closed = True


@virtual_time
async def test_a_text_model_is_asked_for_one_word():
    model = TextModel()
    assert await check_llm("--llm acme", model) == ""
    assert model.closed
    assert await check_llm("--llm acme", TextModel(60)) == "--llm acme: no reply within 10 s"
    busy = TextModel(error=SessionError("busy"))
    assert await check_llm("--llm acme", busy) == "--llm acme: busy"
    refused = TextModel(error=SessionError("no such key", kind=ErrorKind.FATAL))
    with pytest.raises(ConfigError, match=r"^--llm acme: no such key$"):
        await check_llm("--llm acme", refused)


@pytest.mark.parametrize("key", ["deepgram-key", "wrong"])
async def test_services_are_tried_with_the_options_of_their_parts(monkeypatch, key):
    async def answers(option, llm):
        return ""

    monkeypatch.setattr("duologue.cli.part_check.check_llm", answers)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("DEEPGRAM_API_KEY", key)
    monkeypatch.setenv("CARTESIA_API_KEY", "cartesia-key")
    async with (
        DeepgramSimulator(key="deepgram-key") as deepgram,
        CartesiaSimulator(key="cartesia-key") as cartesia,
    ):
        options = ModelOptions(
            llm="openai:gpt-5-mini",
            stt="deepgram",
            tts="cartesia",
            voice="some-voice",
            settings=(f"stt.base_url={deepgram.url}", f"tts.base_url={cartesia.url}"),
        )
        source = ModelSource(options)
        assert source.extras == ["openai", "deepgram", "cartesia"]
        assert source.description == "openai:gpt-5-mini with stt deepgram and tts cartesia"
        if key == "wrong":
            with pytest.raises(ConfigError, match=r"^--stt deepgram: Deepgram: Invalid"):
                await source.prepare()
        else:
            assert await source.prepare() == ""
