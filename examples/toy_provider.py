"""A provider for a toy WebSocket service, outside of this library: run toy_server.py first."""

import base64
import json
from collections.abc import Sequence
from typing import Any, assert_never

from duologue import Agent, AudioFrame, run
from duologue import realtime as rt
from duologue.edges import wav
from duologue.items import item_to_dict

RATE = 16000


def message(kind: str, **fields: object) -> bytes:
    return json.dumps({"type": kind, **fields}).encode()


class Codec:
    def open(self, setup: rt.SessionSetup) -> Sequence[bytes]:
        history = [item_to_dict(item) for item in setup.history]
        return [message("setup", instructions=setup.instructions, history=history)]

    def encode(self, command: rt.Command) -> Sequence[bytes]:
        match command:
            case rt.SendAudio(frame=frame):
                return [message("audio", pcm=base64.b64encode(frame.to_bytes()).decode())]
            case rt.AddItem(item=item):
                return [message("item", item=item_to_dict(item))]
            case rt.RequestReply(request_id=request_id):
                return [message("reply", request=request_id)]
            case rt.CancelReply(reply_id=reply_id):
                return [message("cancel", id=reply_id)]
            case rt.EndTurn() | rt.ClearInput() | rt.Say() | rt.SendVideo() | rt.Ping():
                return []  # These and the next ones are not in the capabilities, so none comes.
            case rt.SendToolResult() | rt.UpdateSession() | rt.Truncate() | rt.DeleteItem():
                return []
            case _:
                assert_never(command)

    def decode(self, message: bytes) -> Sequence[rt.Output]:
        match json.loads(message):
            case {"type": "ready"}:
                return [rt.SessionStarted()]
            case {"type": "speech", "id": turn}:
                return [rt.SpeechStarted(turn)]
            case {"type": "turn", "id": turn, "text": text}:
                return [rt.UserTranscript(turn, text, final=True), rt.UserTurnEnded(turn)]
            case {"type": "started", "id": reply, "request": request}:
                return [rt.ReplyStarted(reply, request)]
            case {"type": "text", "id": reply, "text": text}:
                return [rt.ReplyText(reply, reply, text)]
            case {"type": "audio", "id": reply, "pcm": pcm}:
                frame = AudioFrame.from_bytes(base64.b64decode(pcm), RATE)
                return [rt.ReplyAudio(reply, reply, frame)]
            case {"type": "done", "id": reply}:
                return [rt.ReplyDone(reply)]
            case _:
                return []

    def pending(self) -> Sequence[bytes]:
        return []


class Toy(rt.NetworkRealtime[bytes]):
    def __init__(self, base_url: str = "ws://127.0.0.1:8765", **options: Any) -> None:
        can = rt.Capabilities(
            "toy", "toy-1", RATE, RATE, speech_detection="server", user_transcripts="final",
            turn_reply="automatic", accepts_history=True,
        )  # fmt: skip
        errors = {"4001": rt.ErrorKind.FATAL}  # The service's close code for a wrong key.
        super().__init__(can, base_url=base_url, errors=errors, **options)

    def make_codec(self, setup: rt.SessionSetup) -> Codec:
        return Codec()

    def make_wire(self, codec: rt.Codec[bytes], setup: rt.SessionSetup) -> rt.Wire[bytes]:
        return self.websocket()


async def main() -> None:
    agent = Agent(edge=wav.Edge(AudioFrame.silence(0.1, RATE)), llm=Toy(api_key="toy"))
    async with agent.join():
        speech = await agent.simple_response("Is anybody there?")
        print(speech.heard_text)


if __name__ == "__main__":
    run(main())
