"""Options that are declared once: tables in the documentation, and the same spelling everywhere."""

import asyncio
import inspect
import sys
from pathlib import Path

import pytest

pytest.importorskip("websockets", reason="the openai extra is not installed")
pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import options_page

import duologue
from duologue import ManualTurns, ReconnectPolicy, SemanticVAD, ServerVAD, Transcription
from duologue.clock import LoopClock
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.providers import aws, gemini, openai, qwen
from duologue.testing import GeminiSimulator, OpenAISimulator, QwenSimulator
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, join_agent

PROVIDERS = {"openai": openai, "gemini": gemini, "qwen": qwen}
SIMULATORS = {"openai": OpenAISimulator, "gemini": GeminiSimulator, "qwen": QwenSimulator}

by_provider = pytest.mark.parametrize("name", PROVIDERS)


def common_options():
    """Options that openai, gemini and qwen share."""
    return {
        "turn_detection": ServerVAD(prefix_padding_ms=200, silence_duration_ms=400),
        "transcription": Transcription(language="de"),
        "max_output_tokens": 500,
        "video": "images",
        "fps": 0.5,
        "extra": {},
        "headers": {"X-Trace": "1"},
        "vad": EnergyVAD(),
        "reconnect": ReconnectPolicy(base_s=0.1),
        "clock": LoopClock(),
    }


@pytest.mark.parametrize(
    "path", sorted(options_page.PAGES.glob("*.md")), ids=lambda path: path.stem
)
def test_tables_of_options_are_up_to_date(path):
    expected = options_page.page(path)
    assert path.read_text("utf-8") == expected, "run: python scripts/options_page.py"


@by_provider
async def test_providers_are_swapped_by_one_word(name):
    async with SIMULATORS[name](replies=["Hello."]) as simulator:
        model = PROVIDERS[name].Realtime(
            base_url=simulator.url, api_key=simulator.key, **common_options()
        )
        async with asyncio.timeout(20), join_agent(model, FakeEdge()) as agent:
            speech = agent.simple_response("Say hello.")
            await speech
    assert speech.text == "Hello."
    assert (model.fps, model.headers) == (0.5, {"X-Trace": "1"})


def test_nova_takes_the_common_options_that_it_supports():
    options = common_options()
    for name in ("fps", "video"):
        del options[name]
    options |= {"turn_detection": ServerVAD(), "transcription": Transcription()}
    assert aws.Realtime(**options).headers == {"X-Trace": "1"}


@pytest.mark.parametrize("module", [*PROVIDERS.values(), aws], ids=lambda one: one.__name__)
def test_model_and_voice_are_the_first_arguments(module):
    parameters = list(inspect.signature(module.Realtime).parameters.values())
    assert [one.name for one in parameters[:2]] == ["model", "voice"]
    assert {one.kind for one in parameters[2:]} == {inspect.Parameter.KEYWORD_ONLY}
    names = {one.name for one in parameters}
    assert {"base_url", "headers", "proxy", "ssl_context", "extra", "vad", "clock"} <= names


def test_classes_of_options_are_the_same_everywhere():
    for module in PROVIDERS.values():
        assert module.ServerVAD is ServerVAD
        assert module.ManualTurns is ManualTurns
        assert module.Transcription is Transcription
    assert openai.SemanticVAD is qwen.SemanticVAD is aws.SemanticVAD is SemanticVAD
    assert {"ReconnectPolicy", "Endpointing", "IceServer"} <= set(duologue.__all__)


@by_provider
def test_unknown_option_is_a_type_error_that_names_it(name):
    with pytest.raises(TypeError, match=r"Realtime.*'sped'"):
        PROVIDERS[name].Realtime(api_key="k", sped=1)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: openai.Realtime(turn_detection=SemanticVAD(threshold=0.5)), "OpenAI.*threshold"),
        (lambda: qwen.Realtime(turn_detection=SemanticVAD("low")), "Qwen.*eagerness"),
        (lambda: qwen.Realtime(transcription=Transcription(prompt="x")), "Qwen.*prompt"),
        (lambda: gemini.Realtime(turn_detection=ServerVAD(threshold=0.5)), "Gemini.*threshold"),
        (lambda: gemini.Realtime(turn_detection=SemanticVAD()), "turn_detection must be"),
        (lambda: gemini.Realtime(transcription=Transcription("m")), "Gemini.*model"),
        (lambda: aws.Realtime(turn_detection=ServerVAD(threshold=0.5)), "Nova Sonic.*threshold"),
        (lambda: aws.Realtime(transcription=None), "always transcribes"),
        (lambda: ServerVAD(threshold=float("nan")), "between -1 and 1, not nan"),
        (lambda: ServerVAD(create_response="no"), "True or False, not 'no'"),
        (lambda: SemanticVAD("soon"), "low, medium, high, auto, not 'soon'"),
        (lambda: Transcription(languages="de"), "languages must be a list of strings"),
    ],
)
def test_option_that_a_provider_lacks_is_refused(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


@by_provider
@pytest.mark.parametrize("is_async", [True, False])
async def test_key_function_is_called_for_each_connection(name, is_async):
    keys = []
    async with SIMULATORS[name](replies=["Hello."] * 3) as simulator:

        def key():
            keys.append(simulator.key)
            return simulator.key

        async def key_later():
            return key()

        model = PROVIDERS[name].Realtime(
            base_url=simulator.url,
            api_key=key_later if is_async else key,
            reconnect=ReconnectPolicy(base_s=0.05),
        )
        async with asyncio.timeout(20), join_agent(model, FakeEdge()):
            assert len(keys) == 1
            model.roll_over(0.0)
            while len(keys) < 2:
                await asyncio.sleep(0.02)


@by_provider
async def test_failing_key_function_is_retried_and_an_invalid_key_is_not(name):
    def fail():
        raise OSError("no network")

    failing = PROVIDERS[name].Realtime(api_key=fail)
    with pytest.raises(SessionError, match=r"api_key.*no network") as caught:
        await failing.make_headers()
    assert caught.value.kind is ErrorKind.RETRY
    invalid = PROVIDERS[name].Realtime(api_key=lambda: "secret\nkey")
    with pytest.raises(SessionError, match="printable ASCII") as caught:
        await invalid.make_headers()
    assert caught.value.kind is ErrorKind.FATAL
    assert "secret" not in str(caught.value)
