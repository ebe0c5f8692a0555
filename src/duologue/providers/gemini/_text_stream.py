"""Decode the chunks of one reply of ``generateContent``; sans-IO."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import uuid4

from duologue.errors import SessionError
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest

if TYPE_CHECKING:
    from google.genai.types import GenerateContentResponse, Part


class TextStream:
    """Decodes one reply: yields text at once, tool calls and token usage at the end."""

    def __init__(self) -> None:
        self.done = False
        """Whether the model has finished."""
        self.signatures: dict[str, bytes] = {}
        """Signatures by the id of the call."""
        self._calls: list[ToolRequest] = []
        self._recognized = False
        self._spoke = False
        self._reason = ""
        self._words = ""
        self._usage: TokenUsage | None = None

    def push(self, chunk: GenerateContentResponse) -> Iterator[LLMOutput]:
        """Decode the next chunk."""
        feedback, used = chunk.prompt_feedback, chunk.usage_metadata
        if feedback is not None and feedback.block_reason is not None:
            self._recognized = self.done = True
            self._reason = str(feedback.block_reason.value)
            self._words = feedback.block_reason_message or ""
        if used is not None:
            thoughts = used.thoughts_token_count or 0
            self._usage = TokenUsage(
                (used.prompt_token_count or 0) + (used.tool_use_prompt_token_count or 0),
                (used.candidates_token_count or 0) + thoughts,
                cached=used.cached_content_token_count or 0,
                reasoning=thoughts,
            )
        for candidate in (chunk.candidates or [])[:1]:
            self._recognized = True
            for part in (candidate.content.parts if candidate.content else None) or ():
                yield from self._part(part)
            if candidate.finish_reason is not None:
                self.done = True
                self._reason = str(candidate.finish_reason.value)
                self._words = candidate.finish_message or ""

    def end(self) -> Iterator[LLMOutput]:
        """End the reply; yield its tool calls and the token usage.

        Raises:
            SessionError: The reply is incomplete, or the model or the service refused it.
        """
        if self._reason == "STOP":
            yield from self._calls
        if self._usage is not None:
            yield self._usage
        if not self._recognized:
            raise SessionError("the server sent no answer of the Gemini API", code="protocol")
        if not self.done:
            raise SessionError("the answer ended in the middle", code="connection")
        if self._reason == "MAX_TOKENS":
            if self._calls or not self._spoke:
                what = "called its tools" if self._calls else "said anything"
                raise SessionError(
                    f"the model reached its limit (MAX_TOKENS) before it had {what}: "
                    "raise max_output_tokens",
                    code=self._reason,
                )
        elif self._reason != "STOP":
            words = self._words or f"the model did not finish its answer ({self._reason})"
            raise SessionError(words, code=self._reason)

    def _part(self, part: Part) -> Iterator[LLMOutput]:
        call = part.function_call
        if call is not None and call.name:
            call_id = call.id or f"call_{uuid4().hex[:24]}"
            arguments = json.dumps(call.args or {}, ensure_ascii=False)
            self._calls.append(ToolRequest(call_id, call.name, arguments))
            if part.thought_signature:
                self.signatures[call_id] = part.thought_signature
        elif part.text and not part.thought:
            self._spoke = True
            yield TextDelta(part.text)
