import subprocess
import sys

import pytest

pytest.importorskip("orjson", reason="the qwen extra is not installed")
pytest.importorskip("pybase64", reason="the qwen extra is not installed")

from duologue.errors import ConfigError
from duologue.providers import qwen
from duologue.providers.qwen._capabilities import capabilities_of
from duologue.providers.qwen._config import QwenConfig
from duologue.providers.qwen._endpoints import session_url
from duologue.providers.qwen._models import traits_of
from duologue.providers.qwen._session_json import QwenSession
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import ToolSpec

NEW = "qwen3.8-omni-flash-realtime"
PLUS = "qwen3.5-omni-plus-realtime"
FLASH = "qwen3.5-omni-flash-realtime"
OLD = "qwen3-omni-flash-realtime"
TURBO = "qwen-omni-turbo-realtime"
TOOL = ToolSpec("time", "Tells the time", {"type": "object", "properties": {}})


def session(extra=None, setup=None, **config):
    return QwenSession(QwenConfig(**config, extra=extra)).build(setup or SessionSetup("be kind"))


def detecting(turn_detection):
    return QwenConfig(turn_detection=turn_detection)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("API_KEY", "WORKSPACE", "REGION"):
        monkeypatch.delenv(f"DASHSCOPE_{name}", raising=False)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: qwen.ServerVAD(threshold=-1.5), "threshold must be between -1 and 1, not -1.5"),
        (
            lambda: detecting(qwen.ServerVAD(silence_duration_ms=100)),
            "200 and 6000",
        ),
        (
            lambda: detecting(qwen.ServerVAD(silence_duration_ms=6001)),
            "200 and 6000",
        ),
        (lambda: qwen.ServerVAD(prefix_padding_ms=-1), "0 and 60000"),
        (
            lambda: detecting(qwen.ServerVAD(prefix_padding_ms=10001)),
            "0 and 10000",
        ),
        (lambda: detecting(qwen.ServerVAD(idle_timeout_ms=4999)), "5000 and 30000"),
        (lambda: qwen.SemanticVAD(threshold=2), "threshold must be between -1 and 1"),
        (
            lambda: detecting(qwen.SemanticVAD(silence_duration_ms=1)),
            "200 and 6000",
        ),
        (lambda: qwen.Transcription(""), "or None for the default"),
        (lambda: QwenConfig(model=""), "qwen3.5-omni-plus-realtime"),
        (lambda: QwenConfig(model="qwen-audio-3.0-realtime-plus"), "not an Omni model"),
        (lambda: QwenConfig(model="qwen3.8-livetranslate-flash"), "not an Omni model"),
        (lambda: QwenConfig(voice=""), "voice must be"),
        (lambda: QwenConfig(temperature=2), "at least 0 and less than 2, not 2"),
        (lambda: QwenConfig(temperature=float("nan")), "at least 0 and less than 2"),
        (lambda: QwenConfig(top_p=0), "more than 0 and at most 1, not 0"),
        (lambda: QwenConfig(top_k=-1), "top_k must be 0 or more"),
        (lambda: QwenConfig(max_output_tokens=0), "max_output_tokens must be 1 or more"),
        (lambda: QwenConfig(repetition_penalty=0), "more than 0, not 0"),
        (lambda: QwenConfig(presence_penalty=3), "presence_penalty must be between -2 and 2"),
        (lambda: QwenConfig(seed=-1), "seed must be 0 or more"),
        (lambda: QwenConfig(seed=2**31), "seed must be less than 2"),
        (lambda: QwenConfig(output_rate=44100), "8000, 16000, 24000, 48000, not 44100"),
        (lambda: QwenConfig(model=OLD, output_rate=16000), "qwen3.5-omni and later"),
        (lambda: QwenConfig(model=OLD, turn_detection=qwen.SemanticVAD()), "SemanticVAD is for"),
        (
            lambda: QwenConfig(model=OLD, turn_detection=qwen.ServerVAD(idle_timeout_ms=6000)),
            "idle_timeout_ms is for qwen3.5",
        ),
        (lambda: QwenConfig(model=OLD, enable_search=True), "enable_search is for qwen3.5"),
        (lambda: QwenConfig(model=PLUS, smooth_output=True), "smooth_output is for qwen3-omni"),
        (lambda: QwenConfig(model=TURBO, temperature=1), "its own temperature"),
        (lambda: QwenConfig(turn_detection=None), "ServerVAD, SemanticVAD or ManualTurns"),
        (lambda: qwen.Realtime(api_key="k", video="track"), "one of images, off"),
        (lambda: qwen.Realtime(api_key="k", idle="wait"), "one of silence, roll_over"),
        (lambda: qwen.Realtime(api_key="k", max_image_side=4000), "16 and 1920"),
        (lambda: qwen.Realtime(api_key="k", base_url="127.0.0.1"), "base_url must be"),
        (lambda: qwen.Realtime(api_key="k", region="mars-1"), "region must be one of cn-beijing"),
        (lambda: qwen.Realtime(api_key="k", workspace="evil.host/"), "workspace must be an id"),
        (lambda: qwen.Realtime(NEW, api_key="k"), "needs workspace, or DASHSCOPE_WORKSPACE"),
    ],
)
def test_invalid_value_raises_one_line_that_names_valid_values(make, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_missing_key_raises_at_construction(monkeypatch):
    with pytest.raises(ConfigError, match="DASHSCOPE_API_KEY"):
        qwen.Realtime()
    monkeypatch.setenv("DASHSCOPE_API_KEY", "k")
    assert qwen.Realtime().capabilities.model == PLUS


async def test_key_is_stripped_and_an_invalid_one_is_not_shown():
    model = qwen.Realtime(api_key="sk-secret\n", workspace="ws-1")
    assert (await model.make_headers())["Authorization"] == "Bearer sk-secret"
    with pytest.raises(ConfigError, match="printable ASCII without spaces") as caught:
        qwen.Realtime(api_key="sk-secret\u2026", workspace="ws-1")
    assert "secret" not in str(caught.value)


def test_older_session_has_top_level_fields():
    made = session(
        voice="Ethan",
        turn_detection=qwen.ServerVAD(0.2, interrupt_response=False, idle_timeout_ms=6000),
        transcription=qwen.Transcription(language="de"),
        temperature=0.3,
        top_k=0,
        max_output_tokens=100,
        seed=7,
        enable_search=True,
        extra={"turn_detection": {"threshold": 0.1}, "search_options": {"enable_source": True}},
    )
    assert made == {
        "modalities": ["text", "audio"],
        "voice": "Ethan",
        "input_audio_format": "pcm",
        "output_audio_format": "pcm",
        "instructions": "be kind",
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.1,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 800,
            "create_response": True,
            "interrupt_response": False,
            "idle_timeout_ms": 6000,
        },
        "input_audio_transcription": {"model": "qwen3-asr-flash-realtime", "language": "de"},
        "temperature": 0.3,
        "top_k": 0,
        "max_tokens": 100,
        "seed": 7,
        "enable_search": True,
        "search_options": {"enable_source": True},
    }


def test_newer_session_has_audio_fields_in_one_object():
    made = session(
        model=NEW,
        voice="Tina",
        turn_detection=qwen.SemanticVAD(threshold=0.3, silence_duration_ms=500),
    )
    assert made["audio"] == {
        "input": {"format": {"type": "pcm", "sample_rate": 16000}},
        "output": {"format": {"type": "pcm", "sample_rate": 24000}, "voice": "Tina"},
    }
    assert not {"voice", "input_audio_format", "output_audio_format"} & made.keys()
    assert made["turn_detection"] == {
        "type": "semantic_vad",
        "create_response": True,
        "interrupt_response": False,
        "threshold": 0.3,
        "silence_duration_ms": 500,
    }


def test_chosen_rate_is_never_combined_with_old_format_fields():
    made = session(voice="Tina", output_rate=48000)
    assert made["audio"]["output"] == {"format": {"type": "pcm", "sample_rate": 48000}}
    assert made["audio"]["input"] == {"format": {"type": "pcm", "sample_rate": 16000}}
    assert made["voice"] == "Tina"
    assert not {"input_audio_format", "output_audio_format"} & made.keys()


@pytest.mark.parametrize(
    ("model", "formats"),
    [(PLUS, ("pcm", "pcm")), (OLD, ("pcm16", "pcm24")), (TURBO, ("pcm16", "pcm16"))],
)
def test_formats_have_the_names_of_the_model(model, formats):
    made = session(model=model)
    assert (made["input_audio_format"], made["output_audio_format"]) == formats


def test_omitted_options_are_left_to_the_service():
    made = session(setup=SessionSetup())
    assert made.keys() == {
        "modalities",
        "input_audio_format",
        "output_audio_format",
        "turn_detection",
        "input_audio_transcription",
    }
    off = session(turn_detection=qwen.ManualTurns(), transcription=None)
    assert off["turn_detection"] is off["input_audio_transcription"] is None


def test_tools_are_sent_in_their_shape_and_exclude_search():
    setup = SessionSetup("", [TOOL])
    function = {"name": "time", "description": "Tells the time", "parameters": TOOL.parameters}
    assert session(setup=setup)["tools"] == [{"type": "function", "function": function}]
    words = "tools and enable_search exclude each other"
    with pytest.raises(ConfigError, match=words):
        session(setup=setup, enable_search=True)
    with pytest.raises(ConfigError, match=words):
        session(setup=setup, extra={"enable_search": True})
    with pytest.raises(ConfigError, match=words):
        session(enable_search=True, extra={"tools": [{"type": "mcp"}]})
    assert session(setup=setup, enable_search=True, extra={"enable_search": False})["tools"]


@pytest.mark.parametrize(
    ("model", "text", "tools", "rates"),
    [
        (NEW, True, "reliable", (16000, 24000)),
        (PLUS, True, "reliable", (16000, 24000)),
        (FLASH, True, "reliable", (16000, 24000)),
        (f"{PLUS}-2026-03-15", True, "reliable", (16000, 24000)),
        (OLD, False, "none", (16000, 24000)),
        (f"{OLD}-2025-12-01", False, "none", (16000, 24000)),
        (TURBO, False, "none", (16000, 24000)),
        ("qwen4-omni-max-realtime", True, "reliable", (16000, 24000)),
        ("my-own-deployment", True, "reliable", (16000, 24000)),
    ],
)
def test_every_model_has_its_capabilities(model, text, tools, rates):
    profile = capabilities_of(QwenConfig(model=model))
    assert (profile.provider, profile.model) == ("qwen", model)
    assert (profile.input_rate, profile.output_rate) == rates
    assert profile.accepts_history is text
    assert profile.truncation == ("as_text" if text else "none")
    assert profile.tools == tools
    assert profile.mutable_tools is (tools == "reliable")
    assert (profile.say, profile.tool_reply, profile.turn_reply) == (
        "instructed", "requested", "requested",
    )  # fmt: skip
    assert profile.video
    assert profile.user_transcripts == "final"


def test_manual_turns_and_transcription():
    manual = {"turn_detection": qwen.ManualTurns()}
    for model, words in ((PLUS, "final"), (FLASH, "none")):
        profile = capabilities_of(QwenConfig(model=model, **manual), video=False)
        assert (profile.manual_turns, profile.speech_detection) == (True, "none")
        assert profile.user_transcripts == words
        assert not profile.video
    assert capabilities_of(QwenConfig(transcription=None)).user_transcripts == "none"


def test_future_model_is_treated_as_the_newest():
    assert traits_of("qwen3.9-omni-flash-realtime").family == "qwen3.8-omni"
    assert traits_of("qwen3.10-omni-flash-realtime").family == "qwen3.8-omni"
    assert traits_of("qwen3.6-omni-flash-realtime").family == "qwen3.5-omni-flash"


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ({}, "wss://dashscope.aliyuncs.com/api-ws/v1/realtime?model=m"),
        (
            {"region": "ap-southeast-1"},
            "wss://dashscope-intl.aliyuncs.com/api-ws/v1/realtime?model=m",
        ),
        (
            {"workspace": "llm-1", "region": "us-east-1"},
            "wss://llm-1.us-east-1.maas.aliyuncs.com/api-ws/v1/realtime?model=m",
        ),
        (
            {"workspace": "llm-1"},
            "wss://llm-1.cn-beijing.maas.aliyuncs.com/api-ws/v1/realtime?model=m",
        ),
        ({"base_url": "http://127.0.0.1:9"}, "ws://127.0.0.1:9/api-ws/v1/realtime?model=m"),
        ({"base_url": "wss://h/x/"}, "wss://h/x?model=m"),
        ({"base_url": "https://h/x?a=1&model=old"}, "wss://h/x?a=1&model=m"),
    ],
)
def test_session_url_follows_base_url_workspace_and_region(where, url):
    places = {"base_url": None, "workspace": None, "region": None, **where}
    assert session_url("m", **places) == url


async def test_region_and_workspace_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("DASHSCOPE_WORKSPACE", "llm-1")
    monkeypatch.setenv("DASHSCOPE_REGION", "eu-central-1")
    model = qwen.Realtime(NEW, api_key="k", headers={"X-Trace": "1"})
    assert model.base_url.startswith("wss://llm-1.eu-central-1.maas.aliyuncs.com/")
    assert await model.make_headers() == {
        "Authorization": "Bearer k",
        "X-DashScope-WorkSpace": "llm-1",
        "X-Trace": "1",
    }


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://dashscope-intl.aliyuncs.com/api/v1", "wss://dashscope-intl.aliyuncs.com/"),
        ("wss://dashscope.aliyuncs.com/api-ws/v1/inference", "wss://dashscope.aliyuncs.com/"),
        ("https://llm-1.us-east-1.maas.aliyuncs.com/x", "wss://llm-1.us-east-1.maas.aliyuncs.com/"),
        ("https://llm-1.mars-1.maas.aliyuncs.com/x", "wss://dashscope.aliyuncs.com/"),
        ("https://gateway.example/v1", "wss://dashscope.aliyuncs.com/"),
        ("http://[::1", "wss://dashscope.aliyuncs.com/"),
    ],
)
def test_region_follows_the_host_in_the_environment(host, url, monkeypatch):
    for name in ("DASHSCOPE_REGION", "DASHSCOPE_WORKSPACE", "DASHSCOPE_WEBSOCKET_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", host)
    assert qwen.Realtime(api_key="k").base_url.startswith(url)
    given = qwen.Realtime(api_key="k", region="eu-central-1", workspace="llm-2")
    assert given.base_url.startswith("wss://llm-2.eu-central-1.maas.aliyuncs.com/")
    assert qwen.Realtime(api_key="k", base_url="ws://h").base_url.startswith("ws://h/")


def test_import_loads_no_client_and_no_transport():
    code = (
        "import sys; from duologue.providers import qwen; qwen.Realtime; qwen.ServerVAD\n"
        "print(*{'openai', 'dashscope', 'websockets', 'aiortc', 'av', 'httpx'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("missing", ["orjson", "pybase64"])
def test_missing_dependency_names_the_extra_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from duologue.providers import qwen\n"
        "from duologue.errors import MissingExtraError\n"
        "try: qwen.Realtime\n"
        "except MissingExtraError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == f"{missing} is not installed: pip install 'duologue[qwen]'"
