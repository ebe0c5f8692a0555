"""The answers of one session: asked of the brain one after another, told, and cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import uuid4

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import ToolResultItem
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.session import Realtime
from duologue.simulator.brain_link import BrainLink
from duologue.simulator.nova.blocks import Blocks
from duologue.simulator.nova.playing import Played, Playing
from duologue.simulator.nova.speech import Speech

_EXACTLY = re.compile(r"\b(?:exactly|verbatim)\b", re.IGNORECASE)
_QUOTED = re.compile(r'"""\s*(.*?)\s*"""', re.DOTALL)


class Answers:
    """Makes blocks of what the brain answers; made when the prompt is known."""

    def __init__(
        self,
        brain: Realtime,
        blocks: Blocks,
        clock: Clock,
        *,
        paraphrase: bool,
        double_encoded: bool,
    ) -> None:
        self._blocks = blocks
        self._clock = clock
        self._paraphrase = paraphrase
        self._double_encoded = double_encoded
        self._running: dict[str, Speech] = {}
        self._calls: set[str] = set()
        self._callers: set[str] = set()
        self._done: Callable[[], None] | None = None
        self._timer: Timer | None = None
        self.playing = Playing(blocks, clock)
        self.link = BrainLink(brain, self, clock)
        self.owed = False
        """The results of tools have come while the person was speaking."""
        self.speaking: Callable[[], bool] = lambda: False
        """Says whether the person is speaking."""
        self.called: Callable[[str], None] = lambda _: None
        """Is told the id of every call of a tool."""
        self.failed: Callable[[str, str], None] = lambda *_: None
        """Is told code and message when the brain fails to answer."""

    def ask(self, text: str | None = None) -> str:
        """Have the next answer made, by what id; ``text`` is to be said exactly."""
        answer_id = uuid4().hex
        self._running[answer_id] = Speech(
            self._blocks,
            self.playing,
            self._clock,
            rate=self.link.brain.profile.output_rate,
            called=self._call,
            ended=lambda: self._ended(answer_id),
        )
        self.link.ask(answer_id, None, text)
        return answer_id

    def drop(self, answer_id: str) -> None:
        """An answer of which nothing was told is not wanted after all."""
        if self._running.pop(answer_id, None) is not None:
            self.link.stop(answer_id)
            self._check_done()

    def exactly(self, text: str) -> str | None:
        """What a text of the client wants to be said word for word, if it does."""
        if self._paraphrase or not _EXACTLY.search(text):
            return None
        quoted = _QUOTED.search(text)
        return quoted[1] if quoted is not None else None

    def returned(self, tool_use_id: str, content: str) -> None:
        """A tool has its result; with the last one the model goes on by itself."""
        self.link.add(ToolResultItem(uuid4().hex, tool_use_id, content))
        self._calls.discard(tool_use_id)
        self._go_on()

    def interrupt(self) -> None:
        """The person speaks or writes: end what is made, and cut what is played."""
        open_one = None
        # The last one first: else the brain would be asked for those that wait.
        for answer_id, speech in reversed([*self._running.items()]):
            del self._running[answer_id]
            open_one = speech.cut()
            self.link.stop(answer_id)
        self._callers.clear()
        cut = [*self.playing.cut()]
        if open_one is not None and open_one not in cut:
            cut.append(open_one)  # All that was made of it was played.
        if cut:
            self._blocks.interrupted()
        for answer in cut:
            self.link.edit(self._kept(answer))

    def when_done(self, done: Callable[[], None]) -> None:
        """Call back once all answers have been made and played."""
        self._done = done
        self._check_done()

    def close(self) -> None:
        """Nothing is told any more."""
        self._done = None
        self.playing.close()
        for speech in self._running.values():
            speech.over = True
        self._running.clear()
        if self._timer is not None:
            self._timer.cancel()

    # Answering: what the brain does

    def answer_text(self, answer_id: str, text: str, brain_id: str) -> None:
        """The next words."""
        if answer_id in self._running:
            self._running[answer_id].text(text, brain_id)

    def answer_audio(self, answer_id: str, samples: Samples) -> None:
        """The next sound."""
        if answer_id in self._running:
            self._running[answer_id].audio(samples)

    def answer_call(self, answer_id: str, call_id: str, name: str, arguments: str) -> None:
        """A tool is called."""
        if answer_id in self._running:
            self._calls.add(call_id)
            self._callers.add(answer_id)
            self._running[answer_id].call(call_id, name, arguments)

    def answer_ended(self, answer_id: str, code: str, message: str | None) -> None:
        """It is whole, or has failed."""
        if answer_id not in self._running:
            return
        if message is None:
            self._running[answer_id].end()
        else:
            self.failed(code, message)

    def _call(self, call_id: str, name: str, arguments: str) -> None:
        content = orjson.dumps(arguments).decode() if self._double_encoded else arguments
        self.called(call_id)
        self._blocks.tool_use(call_id, name, content)
        self._blocks.used("output", text=arguments)

    def _ended(self, answer_id: str) -> None:
        self._running.pop(answer_id, None)
        if answer_id in self._callers:
            self._callers.discard(answer_id)
            self._go_on()
        self._check_done()

    def _go_on(self) -> None:
        """Answer once the model has all results."""
        if self._calls or self._callers:
            return
        if self.speaking():
            # The answer to what the person is just saying will have them, too.
            self.owed = True
        else:
            self.ask()

    def _kept(self, answer: Played) -> Truncate | DeleteItem:
        """What the brain is to remember of an answer that was cut: its sentences that were said."""
        if not answer.said.text:
            return DeleteItem(answer.brain_id)
        played_ms = answer.played_ms(self._clock.now())
        return Truncate(answer.brain_id, played_ms, answer.said.text)

    def _check_done(self) -> None:
        if self._done is None or self._running:
            return
        self.playing.catch_up()
        if self.playing.busy:
            self._timer = self._clock.call_at(self.playing.ends, self._check_done)
        else:
            done, self._done = self._done, None
            done()
