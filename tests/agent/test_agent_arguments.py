import pathlib

import pytest

from duologue import Agent, ConfigError, JsonlStore, Processor
from duologue.events import ToolEndEvent
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, FakeTTS, events_of, join_agent


def make(**options):
    return Agent(**{"edge": FakeEdge(), "llm": ScriptedRealtime(), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"llm": "openai/gpt-realtime"},
            r"llm=duologue\.providers\.openai\.Realtime\('gpt-realtime'\)",
        ),
        ({"llm": "gemini-live-2.5"}, r"duologue\.providers\.gemini\.Realtime\('gemini-live-2.5'\)"),
        ({"llm": "amazon.nova-sonic-v1:0"}, r"duologue\.providers\.aws\.Realtime\("),
        ({"llm": "qwen/qwen-omni"}, r"duologue\.providers\.qwen\.Realtime\('qwen-omni'\)"),
        ({"llm": None}, "llm must be a Realtime, such as .*, not None"),
        (
            {"llm": ScriptedRealtime},
            r"the class ScriptedRealtime: write ScriptedRealtime\(",
        ),
        ({"edge": ScriptedRealtime(), "llm": FakeEdge()}, "the wrong way round: swap them"),
        (
            {"edge": FakeEdge},
            r"edge must be an object, not the class FakeEdge: write FakeEdge\(\.\.\.\)",
        ),
        ({"edge": "microphone"}, "edge must be an Edge, such as .*, not 'microphone'"),
        ({"edge": None}, "edge must be an Edge"),
        ({"tts": "alloy"}, "tts must be a TTS .*, not 'alloy'"),
        ({"tools": print}, "tools must be a list of functions, not a builtin_function_or_method"),
        ({"tools": "look"}, "tools must be a list of functions, not 'look'"),
        ({"tools": ["look"]}, "tools must be functions, not 'look'"),
        (
            {"processors": Processor()},
            "must be a list of Processor objects, not a Processor",
        ),
        ({"processors": [Processor]}, "not the class Processor: write Processor"),
        ({"processors": [print]}, "processors must be Processor objects"),
        ({"conversation": JsonlStore("h.jsonl")}, r"not a JsonlStore: write Conversation\(store\)"),
        ({"conversation": []}, "conversation must be a Conversation, not a list"),
        ({"barge_in": True}, "barge_in must be a BargeInPolicy, not True"),
        ({"person": "Robin"}, r"person must be User\(name, id\), not 'Robin'"),
        ({"instructions": ["Be kind."]}, "instructions must be a text or a Path, not list"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_argument_raises_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["stt", "turn_detection", "vad"])
def test_wrong_pipeline_component_raises_one_sentence(part):
    class Text:
        model, tools_reliable, prepare, generate = "m", True, print, print

    with pytest.raises(ConfigError, match=f"{part} must be a.*, not 'whisper'"):
        make(**{"llm": Text(), "tts": FakeTTS(), part: "whisper"})


def test_error_names_the_missing_attributes():
    class Text:
        model, generate = "m", print

    class Voice:
        synthesize = print

    with pytest.raises(ConfigError, match=r"llm \(a Text\) lacks tools_reliable and prepare"):
        make(llm=Text())
    with pytest.raises(ConfigError, match=r"tts \(a Voice\) lacks rate"):
        make(tts=Voice())


def test_positional_arguments_raise():
    with pytest.raises(ConfigError, match=r"by name: Agent\(edge=\.\.\., llm=\.\.\.\)"):
        Agent(FakeEdge(), ScriptedRealtime())


async def test_join_used_as_a_coroutine_or_plain_block_explains_itself():
    agent = make()
    with pytest.raises(ConfigError, match=r"write 'async with agent.join\(\):'"):
        await agent.join()
    with (
        pytest.raises(ConfigError, match=r"'async with agent.join\(\):', not 'with'"),
        agent.join(),
    ):
        pytest.fail("it started")
    async with agent.join() as joined:
        assert joined is agent


@virtual_time
async def test_tools_may_be_passed_as_an_argument():
    def look(where: str) -> str:
        """Look there."""
        return f"{where}: nothing"

    model = ScriptedRealtime([Reply("", tools=[ToolUse("look", {"where": "here"})]), "Nothing."])
    async with join_agent(model, tools=[look]) as agent:
        assert (await agent.simple_response("Look.")).heard_text == "Nothing."
        assert [event.output for event in events_of(agent, ToolEndEvent)] == ["here: nothing"]


def test_instructions_may_be_a_file(tmp_path: pathlib.Path):
    path = tmp_path / "agent.md"
    path.write_text("Be kind. @more.md")
    (tmp_path / "more.md").write_text("Be brief.")
    assert make(instructions=path).instructions == "Be kind. Be brief."
    assert make(instructions="@more.md", root=tmp_path).instructions == "Be brief."
    assert make(instructions="We are @acme.io.").instructions == "We are @acme.io."
