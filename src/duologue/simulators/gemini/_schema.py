"""All client messages of the protocol and their fields."""

from __future__ import annotations

from duologue.simulators.gemini._json_shapes import (
    Anything,
    Choice,
    Entries,
    Flag,
    Many,
    Number,
    Shape,
    Table,
    Text,
    Whole,
)

IN_RATE = 16000
"""Sample rate of input audio in Hz; audio of other rates is resampled."""
OUT_RATE = 24000
"""Sample rate of the model's audio in Hz."""

_TEXT = Text()
_ANY = Anything()

BLOB = Table({"data": _TEXT, "mimeType": _TEXT, "displayName": _TEXT})

FUNCTION_RESPONSE = Table(
    {
        "id": _TEXT,
        "name": _TEXT,
        "response": Entries(),
        "scheduling": Choice(("SCHEDULING_UNSPECIFIED", "SILENT", "WHEN_IDLE", "INTERRUPT")),
        "willContinue": Flag(),
        "parts": Many(_ANY),
    }
)
PART = Table(
    {
        "text": _TEXT,
        "thought": Flag(),
        "thoughtSignature": _TEXT,
        "inlineData": BLOB,
        "fileData": _ANY,
        "functionCall": Table({"id": _TEXT, "name": _TEXT, "args": Entries()}),
        "functionResponse": FUNCTION_RESPONSE,
        "executableCode": _ANY,
        "codeExecutionResult": _ANY,
        "toolCall": _ANY,
        "toolResponse": _ANY,
        "videoMetadata": _ANY,
        "mediaResolution": _ANY,
        "partMetadata": _ANY,
        "audioTranscription": _ANY,
        "mediaProcessing": _ANY,
        "speechMetadata": _ANY,
        "documentMetadata": _ANY,
        "spreadsheetMetadata": _ANY,
        "audioMetadata": _ANY,
    }
)
CONTENT = Table({"role": Choice(("user", "model", "system", "")), "parts": Many(PART)})

_BEHAVIOR = Choice(("UNSPECIFIED", "BLOCKING", "NON_BLOCKING"))
FUNCTION = Table(
    {
        "name": _TEXT,
        "description": _TEXT,
        "parameters": Entries(),
        "parametersJsonSchema": _ANY,
        "response": Entries(),
        "responseJsonSchema": _ANY,
        "behavior": _BEHAVIOR,
    }
)
TOOL = Table(
    {
        "functionDeclarations": Many(FUNCTION),
        "googleSearch": Entries(),
        "googleSearchRetrieval": Entries(),
        "codeExecution": Entries(),
        "urlContext": Entries(),
        "googleMaps": Entries(),
        "enterpriseWebSearch": Entries(),
        "retrieval": Entries(),
        "computerUse": Entries(),
        "fileSearch": Entries(),
        "parallelAiSearch": Entries(),
        "exaAiSearch": Entries(),
        "mcpServers": Many(_ANY),
    }
)
_TRANSCRIPTION = Table(
    {
        "languageCodes": Many(_TEXT),
        "languageAuto": Entries(),
        "languageHints": Entries(),
        "customVocabulary": Many(_TEXT),
        "adaptationPhrases": Many(_TEXT),
        "wordTimestamp": Flag(),
        "diarization": Flag(),
        "mode": _TEXT,
        "sourceText": _TEXT,
    }
)
_VOICE = Table(
    {
        "prebuiltVoiceConfig": Table({"voiceName": _TEXT}),
        "replicatedVoiceConfig": Entries(),
        "voice": _TEXT,
    }
)
_SPEECH = Table(
    {
        "voiceConfig": _VOICE,
        "languageCode": _TEXT,
        "multiSpeakerVoiceConfig": _ANY,
    }
)
_THINKING = Table(
    {
        "includeThoughts": Flag(),
        "thinkingBudget": Whole(),
        "thinkingLevel": Choice(
            ("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
        ),
    }
)
GENERATION = Table(
    {
        "responseModalities": Many(
            Choice(("MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO", "VIDEO"))
        ),
        "temperature": Number(),
        "topP": Number(),
        "topK": Number(),
        "maxOutputTokens": Whole(),
        "candidateCount": Whole(),
        "presencePenalty": Number(),
        "frequencyPenalty": Number(),
        "stopSequences": Many(_TEXT),
        "mediaResolution": Choice(
            (
                "MEDIA_RESOLUTION_UNSPECIFIED",
                "MEDIA_RESOLUTION_LOW",
                "MEDIA_RESOLUTION_MEDIUM",
                "MEDIA_RESOLUTION_HIGH",
                "MEDIA_RESOLUTION_ULTRA_HIGH",
            )
        ),
        "seed": Whole(),
        "speechConfig": _SPEECH,
        "thinkingConfig": _THINKING,
        "enableAffectiveDialog": Flag(),
        "translationConfig": Entries(),
    }
)
_DETECTION = Table(
    {
        "disabled": Flag(),
        "startOfSpeechSensitivity": Choice(
            ("START_SENSITIVITY_UNSPECIFIED", "START_SENSITIVITY_HIGH", "START_SENSITIVITY_LOW")
        ),
        "endOfSpeechSensitivity": Choice(
            ("END_SENSITIVITY_UNSPECIFIED", "END_SENSITIVITY_HIGH", "END_SENSITIVITY_LOW")
        ),
        "prefixPaddingMs": Whole(),
        "silenceDurationMs": Whole(),
    }
)
SETUP = Table(
    {
        "model": _TEXT,
        "generationConfig": GENERATION,
        "systemInstruction": CONTENT,
        "tools": Many(TOOL),
        "realtimeInputConfig": Table(
            {
                "automaticActivityDetection": _DETECTION,
                "activityHandling": Choice(
                    (
                        "ACTIVITY_HANDLING_UNSPECIFIED",
                        "START_OF_ACTIVITY_INTERRUPTS",
                        "NO_INTERRUPTION",
                    )
                ),
                "turnCoverage": Choice(
                    (
                        "TURN_COVERAGE_UNSPECIFIED",
                        "TURN_INCLUDES_ONLY_ACTIVITY",
                        "TURN_INCLUDES_ALL_INPUT",
                        "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
                    )
                ),
                "interimTranscriptTimestampEnabled": Flag(),
            }
        ),
        "sessionResumption": Table({"handle": _TEXT, "transparent": Flag()}),
        "contextWindowCompression": Table(
            {"triggerTokens": Whole(), "slidingWindow": Table({"targetTokens": Whole()})}
        ),
        "inputAudioTranscription": _TRANSCRIPTION,
        "outputAudioTranscription": _TRANSCRIPTION,
        "proactivity": Table({"proactiveAudio": Flag(), "proactiveVideo": Flag()}),
        "explicitVadSignal": Flag(),
        "historyConfig": Table({"initialHistoryInClientContent": Flag()}),
        "avatarConfig": Entries(),
        "safetySettings": Many(_ANY),
        "translationConfig": Entries(),
        "labels": Entries(),
    }
)

_REALTIME: dict[str, Shape] = {
    "audio": BLOB,
    "video": BLOB,
    "mediaChunks": Many(BLOB),
    "text": _TEXT,
    "audioStreamEnd": Flag(),
    "activityStart": Table(),
    "activityEnd": Table(),
}

MESSAGES: dict[str, Table] = {
    "setup": SETUP,
    "clientContent": Table({"turns": Many(CONTENT), "turnComplete": Flag()}),
    "realtimeInput": Table(_REALTIME),
    "toolResponse": Table({"functionResponses": Many(FUNCTION_RESPONSE)}),
    "contextUpdate": Table({"systemInstruction": CONTENT, "tools": Table({"tools": Many(TOOL)})}),
}
"""The shapes of client messages by name."""

CLIENT = Table(dict(MESSAGES), {"message_type": tuple(MESSAGES)})
"""The shape of a client message."""
