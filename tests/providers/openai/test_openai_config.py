import subprocess
import sys
from dataclasses import replace

import pytest

from duologue.errors import ConfigError
from duologue.providers import openai
from duologue.providers.openai._capabilities import capabilities_of
from duologue.providers.openai._config import RealtimeConfig
from duologue.providers.openai._session_json import OpenAISession
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import ToolSpec


def build_session(config, setup, *, transport="websocket", extra=None):
    return OpenAISession(replace(config, transport=transport, extra=extra)).build(setup)


TOOL = ToolSpec("time", "Tells the time", {"type": "object", "properties": {}})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: openai.ServerVAD(threshold=1.5), "threshold must be between -1 and 1, not 1.5"),
        (
            lambda: RealtimeConfig(turn_detection=openai.ServerVAD(threshold=-0.5)),
            "threshold must be between 0 and 1, not -0.5",
        ),
        (
            lambda: RealtimeConfig(turn_detection=openai.ServerVAD(idle_timeout_ms=1)),
            "5000 and 30000",
        ),
        (lambda: openai.SemanticVAD(eagerness="very"), "low, medium, high, auto, not 'very'"),
        (lambda: openai.Transcription(""), "gpt-transcribe"),
        (
            lambda: RealtimeConfig(transcription=openai.Transcription(delay="long")),
            "minimal, low",
        ),
        (lambda: openai.Transcription(keywords="cat"), "a list of strings"),
        (lambda: openai.NoiseReduction("middle"), "near_field, far_field"),
        (lambda: openai.RetentionRatio(2), "retention_ratio must be between 0 and 1"),
        (lambda: openai.CustomVoice(""), "voice_1234"),
        (lambda: RealtimeConfig(voice=""), "alloy, .* or CustomVoice"),
        (lambda: RealtimeConfig(speed=2), "speed must be between 0.25 and 1.5"),
        (
            lambda: openai.ServerVAD(threshold="high"),
            "threshold must be between -1 and 1, not 'high'",
        ),
        (lambda: RealtimeConfig(max_output_tokens=0), "1 and 32000"),
        (lambda: RealtimeConfig(max_output_tokens="all"), "a number or 'inf'"),
        (lambda: RealtimeConfig(reasoning_effort="huge"), "minimal, low"),
        (lambda: RealtimeConfig(model="gpt-realtime", reasoning_effort="low"), "gpt-realtime-2"),
        (
            lambda: RealtimeConfig(model="gpt-realtime-2025-08-28", parallel_tool_calls=True),
            "gpt-realtime-2 and later",
        ),
        (lambda: RealtimeConfig(truncation="some"), "auto, disabled or RetentionRatio"),
        (lambda: RealtimeConfig(tool_choice=""), "name of a function"),
        (lambda: RealtimeConfig(tool_choice=5), "name of a function, not 5"),
        (lambda: RealtimeConfig(model=None), "gpt-realtime-2.1, not None"),
        (lambda: RealtimeConfig(voice=None), r"alloy, .* or CustomVoice\(id\), not None"),
        (lambda: RealtimeConfig(speed="fast"), "speed must be between 0.25 and 1.5, not 'fast'"),
        (lambda: RealtimeConfig(truncation=0.8), r"RetentionRatio\(ratio\), not 0.8"),
        (lambda: RealtimeConfig(transcription="gpt-transcribe"), r"Transcription\(model\) or None"),
        (lambda: RealtimeConfig(noise_reduction="near_field"), r"NoiseReduction\(type\) or None"),
        (lambda: RealtimeConfig(max_output_tokens=True), "a number or 'inf', not True"),
        (lambda: RealtimeConfig(turn_detection=None), "ServerVAD, SemanticVAD or ManualTurns"),
        (lambda: openai.Realtime(api_key="k", transport="smoke"), "one of webrtc, websocket"),
        (lambda: openai.Realtime(api_key="k", video="film"), "one of images, track, off"),
        (
            lambda: openai.Realtime(api_key="k", video="track", transport="websocket"),
            "needs transport='webrtc'",
        ),
        (lambda: openai.Realtime(api_key="k", base_url="127.0.0.1"), "base_url must be"),
        (lambda: openai.Realtime(api_key="k", images_kept=0), "between 1 and"),
    ],
)
def test_invalid_value_raises_one_line_that_names_valid_values(make, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_missing_key_raises_at_construction(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        openai.Realtime()
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert openai.Realtime().capabilities.model == "gpt-realtime-2.1"


async def test_key_is_stripped_of_its_line_end():
    model = openai.Realtime(api_key=" sk-secret\r\n")
    assert (await model.make_headers())["Authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize("key", ["sk-secret\u2026", "sk-secret\r\nHost: evil", "sk secret", "\x00"])
def test_invalid_key_is_not_shown_in_the_error(key):
    with pytest.raises(ConfigError, match="printable ASCII without spaces") as caught:
        openai.Realtime(api_key=key)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_session_json_contains_every_option():
    config = RealtimeConfig(
        voice=openai.CustomVoice("voice_1"),
        turn_detection=openai.SemanticVAD("low", interrupt_response=False),
        transcription=openai.Transcription(language="de", keywords=["Katze"]),
        noise_reduction=openai.NoiseReduction("far_field", 0.5),
        speed=1.2,
        reasoning_effort="low",
        max_output_tokens="inf",
        tool_choice="time",
        truncation=openai.RetentionRatio(0.8, 5000),
        parallel_tool_calls=False,
    )
    session = build_session(
        config,
        SessionSetup("be kind", [TOOL]),
        extra={"audio": {"output": {"speed": 1.0}}},
    )
    assert session == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "be kind",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "turn_detection": {
                    "type": "semantic_vad",
                    "eagerness": "low",
                    "create_response": True,
                    "interrupt_response": False,
                },
                "transcription": {
                    "model": "gpt-transcribe",
                    "language": "de",
                    "keywords": ["Katze"],
                },
                "noise_reduction": {"type": "far_field", "strength": 0.5},
            },
            "output": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "voice": {"id": "voice_1"},
                "speed": 1.0,
            },
        },
        "tools": [
            {
                "type": "function",
                "name": "time",
                "description": "Tells the time",
                "parameters": {"type": "object", "properties": {}},
            }
        ],
        "tool_choice": {"type": "function", "name": "time"},
        "max_output_tokens": "inf",
        "truncation": {
            "type": "retention_ratio",
            "retention_ratio": 0.8,
            "token_limits": {"post_instructions": 5000},
        },
        "reasoning": {"effort": "low"},
        "parallel_tool_calls": False,
    }


def test_model_is_sent_over_webrtc_and_audio_format_over_a_websocket():
    by_call = build_session(RealtimeConfig(), SessionSetup(), transport="webrtc")
    assert by_call["model"] == "gpt-realtime-2.1"
    assert "format" not in by_call["audio"]["input"]
    by_socket = build_session(RealtimeConfig(), SessionSetup())
    assert "model" not in by_socket
    assert "instructions" not in by_socket
    assert by_socket["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert by_socket["audio"]["input"]["transcription"] == {"model": "gpt-transcribe"}


def test_disabled_options_are_sent_as_null():
    config = RealtimeConfig(turn_detection=openai.ManualTurns(), transcription=None)
    heard = build_session(config, SessionSetup())["audio"]["input"]
    assert heard["turn_detection"] is None
    assert heard["transcription"] is None
    profile = capabilities_of(config)
    assert profile.manual_turns
    assert profile.speech_detection == "none"
    assert profile.user_transcripts == "none"


def test_unknown_model_gets_the_newest_capabilities():
    profile = capabilities_of(RealtimeConfig(model="gpt-realtime-9"), video=False)
    assert (profile.say, profile.turn_reply, profile.user_transcripts, profile.video) == (
        "instructed", "requested", "final", False,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["gpt-realtime-2.1", "gpt-realtime-3", "my-deployment"])
def test_unknown_model_accepts_the_newest_options(model):
    config = RealtimeConfig(model=model, reasoning_effort="low", parallel_tool_calls=False)
    assert build_session(config, SessionSetup())["reasoning"] == {"effort": "low"}


@pytest.mark.parametrize("model", ["gpt-realtime-mini-2025-12-15", "gpt-4o-realtime-preview"])
def test_non_reasoning_model_rejects_reasoning_effort(model):
    with pytest.raises(ConfigError, match="gpt-realtime-2 and later"):
        RealtimeConfig(model=model, reasoning_effort="low")


def test_import_loads_no_client_and_no_transport():
    code = (
        "import sys; from duologue.providers import openai; openai.Realtime; openai.ServerVAD\n"
        "print(*{'openai', 'websockets', 'aiortc', 'av', 'httpx'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == ""


def output_without(modules, code):
    """Run ``code`` in a Python that lacks some modules; return what it prints."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({modules}))\n"
    command = [sys.executable, "-c", hide + "from duologue.providers import openai\n" + code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_missing_dependency_names_the_extra_to_install():
    code = (
        "from duologue.errors import MissingExtraError\n"
        "try: openai.Realtime\n"
        "except MissingExtraError as error: print(error)"
    )
    missing = output_without(["orjson"], code)
    assert missing == "orjson is not installed: pip install 'duologue[openai]'"


CALL_PACKAGES = ["aiortc", "aioice", "av", "pylibsrtp", "PIL", "openai"]


def test_default_transport_is_webrtc_where_its_packages_are_installed():
    pytest.importorskip("aiortc", reason="needs duologue[webrtc]")
    assert RealtimeConfig().transport == "webrtc"


def test_default_transport_without_the_webrtc_packages_is_the_websocket():
    code = (
        "import asyncio\n"
        "from duologue.errors import SessionError\n"
        "from duologue.realtime.codec import SessionSetup\n"
        "async def main():\n"
        "    model = openai.Realtime(api_key='k', base_url='http://127.0.0.1:1/v1')\n"
        "    await model.prepare(SessionSetup())\n"
        "    try: await model.open(SessionSetup()).run(print)\n"
        "    except SessionError as error: print(error.code)\n"
        "asyncio.run(main())\n"
        "print('websockets' in sys.modules)"
    )
    assert output_without(CALL_PACKAGES, code).split() == ["connection", "True"]


def test_webrtc_without_its_packages_is_one_line_that_says_what_to_install():
    code = (
        "from duologue.errors import MissingExtraError\n"
        "try: openai.Realtime(api_key='k', transport='webrtc')\n"
        "except MissingExtraError as error: print(error)"
    )
    assert output_without(CALL_PACKAGES, code) == (
        "transport='webrtc' needs aiortc: pip install 'duologue[openai,webrtc]'"
    )


def test_llm_needs_no_package_of_openai():
    code = (
        "import asyncio\n"
        "from duologue.errors import SessionError\n"
        "async def main():\n"
        "    llm = openai.LLM('m', base_url='http://127.0.0.1:1/v1')\n"
        "    await llm.prepare('', [])\n"
        "    try: await anext(llm.generate('', [], []))\n"
        "    except SessionError as error: print(error.code)\n"
        "asyncio.run(main())"
    )
    assert output_without(CALL_PACKAGES, code) == "connection"
