"""Options of a Gemini session and their JSON, compared with what Google's package writes."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from gemini_codec_harness import MODEL, OLD, TEXT_ONLY, Harness, types, validated
from google import genai
from google.genai import _common, _live_converters

from duologue.errors import ConfigError, UnsupportedError
from duologue.items import UserItem
from duologue.providers import gemini, openai, qwen
from duologue.providers.gemini._capabilities import capabilities_of
from duologue.providers.gemini._config import LiveConfig
from duologue.providers.gemini._models import model_traits
from duologue.providers.gemini._setup_json import deep_merge, setup_message
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import ToolSpec
from duologue.simulators.gemini._schema import read_message
from duologue.simulators.gemini._setup import validate_setup

TIME = ToolSpec("time", "Tells the time", {"type": "object", "properties": {}})
BOOK = ToolSpec("book", "Books", {"type": "object", "properties": {}}, scheduling="when_idle")
EXTENDED = "gemini-3.8-live-extended-thinking"
VERTEX = "gemini-live-2.5-flash-native-audio"
VERTEX_PATH = f"projects/p/locations/l/publishers/google/models/{VERTEX}"


def realtime(**options):
    return gemini.Realtime(**{"api_key": "k", **options})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: gemini.AutomaticActivity(start_sensitivity="middle"),
            "start_sensitivity must be one of high, low, not",
        ),
        (
            lambda: gemini.AutomaticActivity(end_sensitivity="x"),
            "end_sensitivity must be one of high, low",
        ),
        (
            lambda: gemini.AutomaticActivity(prefix_padding_ms=-1),
            "prefix_padding_ms must be between 0 and",
        ),
        (
            lambda: gemini.AutomaticActivity(silence_duration_ms=60_001),
            "must be between 0 and 60000, not",
        ),
        (lambda: gemini.AutomaticActivity(coverage="some"), "activity, all, activity_and_all"),
        (lambda: gemini.Transcription(languages="de"), "languages must be a list of strings"),
        (lambda: gemini.Transcription(keywords="cat"), "keywords must be a list"),
        (
            lambda: gemini.Thinking("huge"),
            "thinking level must be one of minimal, low, medium, high",
        ),
        (lambda: gemini.Thinking(), "needs either a level or a budget"),
        (lambda: gemini.Thinking("low", budget=1), "needs either a level or a budget"),
        (lambda: gemini.Thinking(budget=-2), "thinking budget must be between -1 and 65536"),
        (lambda: gemini.Proactivity(audio=False, video=True), "needs audio=True"),
        (lambda: gemini.Compression(trigger_tokens=0), "trigger_tokens must be 1 or more"),
        (lambda: gemini.Compression(target_tokens=-5), "target_tokens must be 1 or more"),
        (lambda: gemini.Compression(100, 101), "can't be above trigger_tokens"),
        (lambda: gemini.Vertex(""), "a project and a location"),
        (lambda: gemini.Vertex("p", "../x"), "project and location must be ids"),
        (lambda: LiveConfig(model=""), "gemini-3.8-live"),
        (lambda: LiveConfig(voice=""), "Kore, Laomedeia"),
        (lambda: LiveConfig(media_resolution="4k"), "low, medium, high"),
        (lambda: LiveConfig(turn_detection=None), "AutomaticActivity or ManualTurns"),
        (lambda: LiveConfig(temperature=2.1), "temperature must be between 0 and 2"),
        (lambda: LiveConfig(top_p=-0.1), "top_p must be between 0 and 1"),
        (lambda: LiveConfig(top_k=0), "top_k must be between 1 and 1000"),
        (lambda: LiveConfig(max_output_tokens=0), "max_output_tokens must be between 1 and 65536"),
        # What each model supports.
        (lambda: LiveConfig(thinking=gemini.Thinking("low")), "does not support thinking"),
        (lambda: LiveConfig(EXTENDED, thinking=gemini.Thinking(budget=1)), r"level=\.\.\."),
        (lambda: LiveConfig(TEXT_ONLY, thinking=gemini.Thinking(budget=1)), r"level=\.\.\."),
        (lambda: LiveConfig(OLD, thinking=gemini.Thinking("low")), r"budget=\.\.\."),
        (lambda: LiveConfig(proactivity=gemini.Proactivity(False)), "audio=False is an error"),
        (
            lambda: LiveConfig(TEXT_ONLY, proactivity=gemini.Proactivity()),
            "does not support proactivity",
        ),
        (lambda: LiveConfig(affective_dialog=True), "does not support affective dialog"),
        (lambda: LiveConfig(TEXT_ONLY, affective_dialog=True), "does not support affective dialog"),
        # Fields with an option of their own.
        (lambda: realtime(extra={"model": "models/x"}), "give it as model"),
        (lambda: realtime(extra={"sessionResumption": {}}), "sets it itself"),
        (lambda: realtime(extra={"session_resumption": {}}), "sets it itself"),
        (
            lambda: realtime(
                extra={"realtime_input_config": {"automaticActivityDetection": {"disabled": True}}}
            ),
            r"turn_detection=ManualTurns\(\)",
        ),
        (
            lambda: realtime(extra={"generationConfig": {"responseModalities": ["TEXT"]}}),
            "Gemini answers in audio only: leave it out",
        ),
        (
            lambda: gemini.Realtime(vertex=gemini.Vertex("p"), labels={"a": "b"}),
            "Vertex AI does not support labels",
        ),
    ],
)
def test_an_invalid_value_is_one_line_that_says_what_is_valid(make, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_what_each_model_supports():
    LiveConfig(proactivity=gemini.Proactivity(video=True))
    LiveConfig(EXTENDED, thinking=gemini.Thinking("high"))
    LiveConfig(TEXT_ONLY, thinking=gemini.Thinking("minimal"))
    for model in (OLD, VERTEX, f"models/{OLD}", f"publishers/google/models/{VERTEX}"):
        LiveConfig(
            model,
            thinking=gemini.Thinking(budget=-1),
            proactivity=gemini.Proactivity(False),
            affective_dialog=True,
        )


PROFILES = [
    # model, changes in mid-session, partial results, async tools, turns at any time, turn follows
    (MODEL, True, True, "default", True, True),
    (EXTENDED, True, True, "default", True, True),
    ("gemini-9-live", True, True, "default", True, True),
    (TEXT_ONLY, False, False, "none", False, False),
    (OLD, False, True, "declared", True, False),
    (VERTEX, False, True, "declared", True, False),
    (
        VERTEX_PATH,
        False,
        True,
        "declared",
        True,
        False,
    ),
]


@pytest.mark.parametrize(("model", "mutable", "updates", "tools", "free", "status"), PROFILES)
def test_every_model_has_its_own_capabilities(model, mutable, updates, tools, free, status):
    config = LiveConfig(model)
    profile = capabilities_of(config, video=True, report_truncation=True, vertex=False)
    assert (profile.provider, profile.model) == ("gemini", model)
    assert (profile.mutable_instructions, profile.mutable_tools) == (mutable, mutable)
    assert profile.tool_updates is updates
    assert (profile.input_rate, profile.output_rate) == (16000, 24000)
    assert profile.truncation == "as_text"
    assert profile.speech_detection == "local"
    traits = model_traits(model)
    assert (traits.async_tools, traits.free_context, traits.status) == (tools, free, status)
    # Vertex AI does not take several results for one call.
    assert not capabilities_of(config, video=True, report_truncation=True, vertex=True).tool_updates


def test_switched_off_options_are_not_in_the_capabilities():
    model = realtime(
        video="off",
        transcription=None,
        report_truncation=False,
        turn_detection=gemini.ManualTurns(),
    )
    profile = model.capabilities
    assert (profile.video, profile.truncation, profile.user_transcripts) == (False, "none", "none")
    assert profile.manual_turns


def test_the_error_for_an_unsupported_feature_says_what_to_do():
    model = realtime(video="off")
    with pytest.raises(UnsupportedError, match="leave the camera off"):
        model.send_video(None)
    with pytest.raises(UnsupportedError, match="by itself"):
        model.end_turn()
    with pytest.raises(UnsupportedError, match="replies to every turn"):
        realtime(turn_detection=gemini.ManualTurns()).end_turn(reply=False)
    fixed = realtime(model=TEXT_ONLY)
    with pytest.raises(UnsupportedError, match="instructions during a session"):
        fixed.update_instructions("x")
    with pytest.raises(UnsupportedError, match="tools during a session"):
        fixed.update_tools([])


# The setup


def setup_of_config(config, *, tools=(), extra=None, **options):
    config = dataclasses.replace(config, extra=extra)
    message = setup_message(
        config, SessionSetup("be kind", tools), model=f"models/{config.model}", **options
    )
    return validated(message)["setup"]


def test_the_setup_of_a_plain_session():
    assert setup_of_config(LiveConfig()) == {
        "model": "models/gemini-3.8-live",
        "generationConfig": {"responseModalities": ["AUDIO"]},
        "systemInstruction": {"parts": [{"text": "be kind"}]},
        "sessionResumption": {},
        "contextWindowCompression": {"slidingWindow": {}},
        "realtimeInputConfig": {"automaticActivityDetection": {}},
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
    }


FULL = {
    "model": OLD,
    "voice": "Kore",
    "language": "de-DE",
    "media_resolution": "low",
    "turn_detection": gemini.AutomaticActivity(
        prefix_padding_ms=20,
        silence_duration_ms=300,
        interrupt_response=False,
        start_sensitivity="high",
        end_sensitivity="low",
        coverage="activity_and_all_video",
    ),
    "transcription": gemini.Transcription(language="de-DE", keywords=["Katze"]),
    "output_transcription": gemini.Transcription(),
    "thinking": gemini.Thinking(budget=0),
    "proactivity": gemini.Proactivity(video=True),
    "affective_dialog": True,
    "compression": gemini.Compression(20000, 10000),
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "max_output_tokens": 1000,
    "seed": 7,
    "labels": {"team": "a"},
}


def test_the_setup_contains_every_option():
    assert setup_of_config(
        LiveConfig(**FULL), tools=[TIME, BOOK], handle="h", transparent=True
    ) == {
        "model": f"models/{OLD}",
        "generationConfig": {
            "responseModalities": ["AUDIO"],
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 1000,
            "seed": 7,
            "speechConfig": {
                "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
                "languageCode": "de-DE",
            },
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "thinkingConfig": {"thinkingBudget": 0},
            "enableAffectiveDialog": True,
        },
        "systemInstruction": {"parts": [{"text": "be kind"}]},
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "time",
                        "description": "Tells the time",
                        "parametersJsonSchema": {"type": "object", "properties": {}},
                        "behavior": "BLOCKING",
                    },
                    {
                        "name": "book",
                        "description": "Books",
                        "parametersJsonSchema": {"type": "object", "properties": {}},
                        "behavior": "NON_BLOCKING",
                    },
                ]
            }
        ],
        "sessionResumption": {"handle": "h", "transparent": True},
        "contextWindowCompression": {
            "triggerTokens": 20000,
            "slidingWindow": {"targetTokens": 10000},
        },
        "realtimeInputConfig": {
            "automaticActivityDetection": {
                "startOfSpeechSensitivity": "START_SENSITIVITY_HIGH",
                "endOfSpeechSensitivity": "END_SENSITIVITY_LOW",
                "prefixPaddingMs": 20,
                "silenceDurationMs": 300,
            },
            "activityHandling": "NO_INTERRUPTION",
            "turnCoverage": "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
        },
        "inputAudioTranscription": {"languageCodes": ["de-DE"], "customVocabulary": ["Katze"]},
        "outputAudioTranscription": {},
        "proactivity": {"proactiveAudio": True, "proactiveVideo": True},
        "labels": {"team": "a"},
    }


def test_googles_package_writes_the_same_setup():
    """Compare with the package's JSON for the same options, as the simulator reads it."""
    ours = setup_of_config(LiveConfig(**FULL), tools=[TIME, BOOK], handle="h")
    wanted = types.LiveConnectConfig(
        response_modalities=["AUDIO"],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_output_tokens=1000,
        seed=7,
        speech_config=types.SpeechConfig(
            voice_config=types.VoiceConfig(
                prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Kore")
            ),
            language_code="de-DE",
        ),
        media_resolution=types.MediaResolution.MEDIA_RESOLUTION_LOW,
        thinking_config=types.ThinkingConfig(thinking_budget=0),
        enable_affective_dialog=True,
        system_instruction=types.Content(parts=[types.Part(text="be kind")]),
        tools=[
            types.Tool(
                function_declarations=[
                    types.FunctionDeclaration(
                        name=tool.name,
                        description=tool.description,
                        parameters_json_schema=tool.parameters,
                        behavior="BLOCKING" if tool.scheduling is None else "NON_BLOCKING",
                    )
                    for tool in (TIME, BOOK)
                ]
            )
        ],
        session_resumption=types.SessionResumptionConfig(handle="h"),
        context_window_compression=types.ContextWindowCompressionConfig(
            trigger_tokens=20000, sliding_window=types.SlidingWindow(target_tokens=10000)
        ),
        realtime_input_config=types.RealtimeInputConfig(
            automatic_activity_detection=types.AutomaticActivityDetection(
                start_of_speech_sensitivity="START_SENSITIVITY_HIGH",
                end_of_speech_sensitivity="END_SENSITIVITY_LOW",
                prefix_padding_ms=20,
                silence_duration_ms=300,
            ),
            activity_handling="NO_INTERRUPTION",
            turn_coverage="TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
        ),
        input_audio_transcription=types.AudioTranscriptionConfig(
            language_codes=["de-DE"], custom_vocabulary=["Katze"]
        ),
        output_audio_transcription=types.AudioTranscriptionConfig(),
        proactivity=types.ProactivityConfig(proactive_audio=True, proactive_video=True),
        labels={"team": "a"},
    )
    client = genai.Client(api_key="k")
    parameters = types.LiveConnectParameters(model=f"models/{OLD}", config=wanted)
    theirs = _common.convert_to_dict(
        _live_converters._LiveConnectParameters_to_mldev(
            client._api_client, parameters.model_dump(exclude_none=True)
        )
    )
    del theirs["config"]
    theirs["setup"]["model"] = f"models/{OLD}"
    theirs = json.loads(json.dumps(_common.encode_unserializable_types(theirs)))
    assert read_message(theirs)["setup"] == ours


@pytest.mark.parametrize(
    "config",
    [
        LiveConfig(),
        LiveConfig(**FULL),
        LiveConfig(turn_detection=gemini.ManualTurns(), compression=None),
        LiveConfig(EXTENDED, thinking=gemini.Thinking("high")),
        LiveConfig(TEXT_ONLY, thinking=gemini.Thinking("minimal"), transcription=None),
    ],
    ids=lambda config: config.model,
)
@pytest.mark.parametrize("vertex", [False, True])
def test_the_simulator_accepts_our_setup(config, vertex):
    value = setup_of_config(config, tools=[TIME], transparent=vertex)
    setup = validate_setup(value, vertex=vertex, version="v1", unknown=frozenset())
    assert setup.resumable
    assert setup.manual is isinstance(config.turn_detection, gemini.ManualTurns)
    assert (setup.compression is None) is (config.compression is None)
    assert setup.transcribes_input is (config.transcription is not None)
    assert setup.transcribes_output


def test_a_file_search_store_of_the_config_is_a_tool_beside_the_functions():
    store = "fileSearchStores/hotel-1234"
    extra = {"tools": [{"fileSearch": {"fileSearchStoreNames": [store]}}]}
    opening = Harness(tools=[TIME], extra=extra).opening
    functions, search = map(types.Tool.model_validate, opening["setup"]["tools"])
    assert [one.name for one in functions.function_declarations] == ["time"]
    assert search == types.Tool(file_search=types.FileSearch(file_search_store_names=[store]))


def test_options_that_are_off_are_sent_or_left_out():
    setup = setup_of_config(
        LiveConfig(
            turn_detection=gemini.ManualTurns(),
            transcription=None,
            output_transcription=None,
            compression=None,
        )
    )
    assert setup["realtimeInputConfig"] == {"automaticActivityDetection": {"disabled": True}}
    for key in ("inputAudioTranscription", "outputAudioTranscription", "contextWindowCompression"):
        assert key not in setup
    # A model that calls tools one after another only gets no behaviour for them.
    (tool,) = setup_of_config(LiveConfig(TEXT_ONLY), tools=[BOOK])["tools"]
    assert "behavior" not in tool["functionDeclarations"][0]


def test_a_history_is_announced_if_the_model_expects_that():
    history = [UserItem("u", "Hello.")]
    assert Harness(history=history).opening["setup"]["historyConfig"] == {
        "initialHistoryInClientContent": True
    }
    assert "historyConfig" not in Harness(OLD, history=history).opening["setup"]
    # A history without text has no turns, and the server would wait for them.
    silent = Harness(history=[UserItem("u", None)])
    assert "historyConfig" not in silent.opening["setup"]
    assert silent.pending() == []


# extra=


def test_config_is_merged_at_every_depth():
    extra = {
        "generation_config": {"speechConfig": {"voice_config": {"replicatedVoiceConfig": {}}}},
        "realtimeInputConfig": {"automaticActivityDetection": {"prefixPaddingMs": 5}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "tools": [{"googleSearch": {}}],
    }
    config = LiveConfig(
        voice="Kore",
        language="de-DE",
        turn_detection=gemini.AutomaticActivity(start_sensitivity="high"),
    )
    setup = setup_of_config(config, tools=[TIME], extra=extra)
    assert setup["generationConfig"]["responseModalities"] == ["AUDIO"]
    speech = setup["generationConfig"]["speechConfig"]
    assert speech["languageCode"] == "de-DE"
    assert speech["voiceConfig"] == {
        "prebuiltVoiceConfig": {"voiceName": "Kore"},
        "replicatedVoiceConfig": {},
    }
    assert setup["realtimeInputConfig"]["automaticActivityDetection"] == {
        "startOfSpeechSensitivity": "START_SENSITIVITY_HIGH",
        "prefixPaddingMs": 5,
    }
    assert setup["safetySettings"] == extra["safetySettings"]
    assert [list(tool) for tool in setup["tools"]] == [["functionDeclarations"], ["googleSearch"]]


def test_merging_changes_neither_object():
    below = {"a": {"b": 1, "c": [1]}, "d": [{"e": 1}]}
    above = {"a": {"b": 2, "c": [2]}, "d": [{"f": 2}], "g": None}
    assert deep_merge(below, above) == {
        "a": {"b": 2, "c": [2]}, "d": [{"e": 1}, {"f": 2}], "g": None
    }  # fmt: skip
    assert below == {"a": {"b": 1, "c": [1]}, "d": [{"e": 1}]}
    assert above == {"a": {"b": 2, "c": [2]}, "d": [{"f": 2}], "g": None}


def test_importing_loads_no_client_and_no_transport():
    code = (
        "import sys; from duologue.providers import gemini; gemini.Realtime; gemini.Vertex\n"
        "print(*{'google.genai', 'google.auth', 'websockets', 'httpx', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == ""


def test_the_documentation_lists_every_argument_and_its_default():
    page = Path(__file__).parents[3] / "docs" / "providers" / "gemini.md"
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| [^|]+ \|$", page.read_text("utf-8"), re.M)
    told = {}
    for names, default in rows:
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip("`"))
    known = inspect.signature(gemini.Realtime).parameters
    assert list(known) == [name for name in told if name in known]
    for name, parameter in known.items():
        default = parameter.default
        shown = f"{type(default).__name__}()" if dataclasses.is_dataclass(default) else str(default)
        if shown != told[name]:
            assert default is None, name  # The table also says where a value comes from.


@pytest.mark.parametrize("video", ["none", "track", False, None])
def test_video_is_images_or_off(video):
    with pytest.raises(ConfigError, match=r"^video must be one of images, off, not [^\n]*$"):
        gemini.Realtime(api_key="k", video=video)
    assert not gemini.Realtime(api_key="k", video="off").capabilities.video


@pytest.mark.parametrize("module", [gemini, openai, qwen])
@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "1"])
def test_fps_must_be_above_0(module, fps):
    with pytest.raises(ConfigError, match=r"^fps must be a number above 0, not [^\n]*$"):
        module.Realtime(api_key="k", fps=fps)
