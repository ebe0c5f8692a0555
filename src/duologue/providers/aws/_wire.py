"""The wire to Bedrock: one bidirectional HTTP/2 stream.

It is not a WebSocket but a POST whose request body and response are messages of an event stream,
both at the same time (API reference, InvokeModelWithBidirectionalStream). The AWS SDK makes and
signs the request; the messages after it are framed and signed by `_event_stream`, which is cheaper.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit

from duologue._net import hostname_of, one_line, proxy_from_environment
from duologue._optional import optional
from duologue.clock import Clock
from duologue.errors import ErrorKind, SessionError
from duologue.providers.aws._credentials import Credentials
from duologue.providers.aws._errors import exception_error, http_error
from duologue.providers.aws._event_stream import (
    SIGNATURE_BYTES,
    EventSigner,
    FramingError,
    MessageDecoder,
    encode_event,
)
from duologue.providers.aws._h2_stream import H2Stream
from duologue.providers.aws._h2_transport import H2Transport
from duologue.providers.aws._signals import (
    IDLE_S,
    QUIET_S,
    Flush,
    Message,
    StreamAccepted,
    StreamIdle,
    StreamQuiet,
)

with optional("aws"):
    import orjson
    import pybase64
    from aws_sdk_bedrock_runtime.client import AsyncBedrockRuntimeClient
    from aws_sdk_bedrock_runtime.config import AsyncBedrockRuntimeConfig
    from aws_sdk_bedrock_runtime.models import (
        InvokeModelWithBidirectionalStreamInput,
        InvokeModelWithBidirectionalStreamOperationInput,
        InvokeModelWithBidirectionalStreamOperationOutput,
        InvokeModelWithBidirectionalStreamOutput,
    )
    from smithy_core.aio.eventstream import DuplexEventStream
    from smithy_core.exceptions import SmithyError


MAX_STREAM_S = 480.0
"""A stream ends after eight minutes, according to the API reference."""
OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 0.3
"""Time for the service to end the stream after the client has ended its side."""
RESPONSE_TIMEOUT_S = 2.0
"""After this time without response headers, send more than the beginning of a session."""
_REASON_TIMEOUT_S = 0.2

type _SdkStream = DuplexEventStream[
    InvokeModelWithBidirectionalStreamInput,
    InvokeModelWithBidirectionalStreamOutput,
    InvokeModelWithBidirectionalStreamOperationOutput,
]

for _name in (
    "hpack.hpack",
    "hpack.table",
    "smithy_core.aio.client",
):
    # At DEBUG they log all headers, with the session token.
    logging.getLogger(_name).addFilter(lambda record: record.levelno > logging.DEBUG)


class BedrockWire:
    """A `Wire` to one model.

    Args:
        model: The id or ARN of the model.
        region: The AWS region.
        endpoint: The address of the service.
        credentials: Returns the keys of this stream.
        tls: None speaks HTTP/2 in the clear.
        clock: The clock to measure time with.
        profile: The profile that the SDK reads its own settings from; None takes that of the
            environment.
        proxy: The address of an HTTP proxy; None takes that of the environment.
        headers: Additional HTTP headers, which are not signed.
    """

    def __init__(
        self,
        *,
        model: str,
        region: str,
        endpoint: str,
        credentials: Callable[[], Awaitable[Credentials]],
        tls: ssl.SSLContext | None,
        clock: Clock,
        profile: str | None = None,
        proxy: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._model = model
        self._proxy = proxy
        self._headers = headers
        self._profile = profile
        self._region = region
        self._endpoint = endpoint
        self._host = hostname_of(endpoint) or endpoint
        self._credentials = credentials
        self._tls = tls
        self._clock = clock
        self._expires_in = MAX_STREAM_S
        self._transport: H2Transport | None = None
        self._invoke_task: asyncio.Task[_SdkStream] | None = None
        self._signer: EventSigner | None = None
        self._decoder = MessageDecoder()
        self._accepted = False
        self._quiet = True
        self._flush_pending = False
        self._receiving = False
        self._received_at = 0.0
        self._failure: BaseException | None = None
        """What `run` has to raise."""
        self._end_error: SessionError | None = None
        self._receive_ended = asyncio.Event()
        self._send_incomplete = False
        self._last_sent_at = 0.0

    async def open(self) -> None:
        """Connect within ten seconds; whether the service accepts the request is known only later.

        Raises:
            SessionError: The service can't be reached.
        """
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self._open()
        except TimeoutError:
            raise self._connection_error(
                f"can't be reached: no connection within {OPEN_TIMEOUT_S:g} s"
            ) from None
        except OSError as error:
            raise self._connection_error(
                f"can't be reached: {error or type(error).__name__}"
            ) from error
        except (SmithyError, ValueError) as error:
            raise SessionError(
                f"the AWS SDK failed: {one_line(str(error))}", code="sdk", kind=ErrorKind.FATAL
            ) from error

    async def send(self, message: Message) -> None:
        """Send one event; waits while the service does not read.

        A signal is not sent: `run` passes on a `Flush`.

        Raises:
            SessionError: The connection is lost.
        """
        if self._signer is None or self._transport is None:
            raise self._connection_error("is not connected")
        if not isinstance(message, bytes):
            self._request_flush(self._transport)
            return
        self._send_incomplete = True
        try:
            await self._transport.stream.write(self._signer.sign(encode_event(message)))
        except OSError as error:
            raise await self._send_failure(error) from error
        self._send_incomplete = False
        self._last_sent_at = self._clock.now()

    def try_send(self, message: Message) -> bool:
        """Send one event or signal, unless that has to wait; return whether it was sent."""
        if self._signer is None or self._transport is None or self._send_incomplete:
            return False
        if not isinstance(message, bytes):
            self._request_flush(self._transport)
            return True
        event = encode_event(message)
        # Signed last, because what is signed has to be sent.
        if not self._transport.stream.can_write(len(event) + SIGNATURE_BYTES):
            return False
        self._transport.stream.write_now(self._signer.sign(event))
        self._last_sent_at = self._clock.now()
        return True

    async def run(self, receive: Callable[[Message], None]) -> None:
        """Pass on each event, inside the event loop's own read callback, and each signal.

        Raises:
            SessionError: The stream has ended, as it always does; the text has the service's own
                words if there are any.
            Exception: ``receive`` raised it.
        """
        if self._invoke_task is None or self._transport is None:
            raise self._connection_error("is not connected")
        stream = self._transport.stream
        self._receiving = True
        try:
            await self._run_until_accepted(stream, self._invoke_task, receive)
            stream.on_readable = partial(self._receive_events, stream, receive)
            while self._failure is None:
                now = self._clock.now()
                quiet_at = self._received_at + (IDLE_S if self._quiet else QUIET_S)
                if self._take_flush():
                    receive(Flush())
                elif stream.is_readable:
                    stream.on_readable()
                elif now < quiet_at:
                    await stream.wait(quiet_at)
                else:
                    self._received_at = now
                    if not self._quiet:
                        self._quiet = True
                        receive(StreamQuiet())
                    elif now - self._last_sent_at >= IDLE_S:
                        receive(StreamIdle())
            failure, self._failure = self._failure, None
            raise failure
        finally:
            stream.on_readable = None
            self._receiving = False
            if self._end_error is not None:
                self._receive_ended.set()

    async def close(self) -> None:
        """Close within half a second, cleanly if the service cooperates."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.stream.on_readable = None
        try:
            with suppress(OSError, SmithyError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    if self._signer is not None and not self._send_incomplete:
                        await transport.stream.write(self._signer.sign(b""))
                        transport.stream.end_request()
                        while await transport.stream.read():
                            pass  # Too late to be used
        finally:
            await transport.stream.close()
            await self._finish_sdk_tasks()

    async def _open(self) -> None:
        keys = await self._credentials()
        lifetime_s = keys.lifetime_s(datetime.now(UTC))
        self._expires_in = MAX_STREAM_S if lifetime_s is None else min(MAX_STREAM_S, lifetime_s)
        transport = self._transport = H2Transport(self._clock, self._headers)
        config = await AsyncBedrockRuntimeConfig.resolve(
            profile=self._profile,
            region=self._region,
            endpoint_uri=self._endpoint,
            # Fixed keys, because all messages are signed with the keys of the request.
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            aws_session_token=keys.session_token,
            transport=transport,
        )
        address = urlsplit(self._endpoint)
        port = address.port or (80 if self._tls is None else 443)
        proxy = self._proxy or proxy_from_environment(address.scheme, self._host)
        given = self._proxy is not None
        await transport.connect(self._host, port, self._tls, proxy=proxy, proxy_given=given)
        client = AsyncBedrockRuntimeClient(config)
        request = InvokeModelWithBidirectionalStreamOperationInput(model_id=self._model)
        self._invoke_task = asyncio.create_task(
            client.invoke_model_with_bidirectional_stream(request), name="bedrock call"
        )
        # Cancelled halfway, the SDK would leave its own tasks running: see _finish_sdk_tasks.
        await asyncio.shield(self._invoke_task)
        self._signer = EventSigner.following(transport.authorization, keys.secret_access_key)
        self._last_sent_at = self._clock.now()

    async def _finish_sdk_tasks(self) -> None:
        """Wait until the SDK's tasks have ended, as they do once the stream is closed."""
        if self._invoke_task is None:
            return
        done, _ = await asyncio.wait([self._invoke_task], timeout=_REASON_TIMEOUT_S)
        if not done:
            self._invoke_task.cancel()
            await asyncio.wait([self._invoke_task])
        elif not self._accepted and self._invoke_task.exception() is None:
            await asyncio.gather(self._invoke_task.result().await_output(), return_exceptions=True)

    def _take_flush(self) -> bool:
        nudged, self._flush_pending = self._flush_pending, False
        return nudged

    async def _run_until_accepted(
        self,
        stream: H2Stream,
        invoke_task: asyncio.Task[_SdkStream],
        receive: Callable[[Message], None],
    ) -> None:
        idle_at = self._clock.now() + RESPONSE_TIMEOUT_S
        while not stream.has_response:
            if self._take_flush():
                receive(Flush())
            elif self._clock.now() < idle_at:
                await stream.wait(idle_at)
            else:
                idle_at = self._clock.now() + RESPONSE_TIMEOUT_S
                receive(StreamIdle())
        try:
            await invoke_task.result().await_output()
        except (OSError, SmithyError) as error:
            self._end_error = self._to_session_error(error)
            raise self._end_error from error
        self._accepted = True
        self._received_at = self._clock.now()
        receive(StreamAccepted(self._expires_in))

    def _receive_events(self, stream: H2Stream, receive: Callable[[Message], None]) -> None:
        """Pass on what has come; what goes wrong here is raised by `run`."""
        try:
            while stream.is_readable:
                for event in self._read_events(stream):
                    self._quiet = False
                    receive(event)
            self._received_at = self._clock.now()
        except BaseException as error:
            self._failure = error
            stream.on_readable = None
            stream.wake()
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    def _read_events(self, stream: H2Stream) -> Iterator[bytes]:
        """Read and decode what has come. Raise `SessionError` at the end of the stream."""
        try:
            self._decode(stream.read_now())
            while (event := self._next_event()) is not None:
                yield event
        except (OSError, ValueError) as error:
            self._end_error = self._to_session_error(error)
            raise self._end_error from error
        except SessionError as error:
            self._end_error = error
            raise

    def _request_flush(self, transport: H2Transport) -> None:
        self._flush_pending = True
        transport.stream.wake()

    def _decode(self, data: bytes) -> None:
        """Add received bytes, or the end of the response."""
        if data:
            self._decoder.push(data)
        elif len(self._decoder):
            raise FramingError("the last message is cut off")
        else:
            raise self._connection_error("ended the stream")

    def _next_event(self) -> bytes | None:
        """Return the next event among the received bytes, if there is one."""
        while (message := self._decoder.next_message()) is not None:
            headers, payload = message.headers, message.payload
            match headers.get(":message-type"):
                case "event":
                    found = _decode_json(payload).get("bytes")
                    if isinstance(found, str):
                        return pybase64.b64decode(found)
                case "exception":
                    text = _decode_json(payload).get("message")
                    name = str(headers.get(":exception-type"))
                    raise exception_error(name, text if isinstance(text, str) else "")
                case "error":
                    # An error that the service's API does not list (event-stream specification,
                    # "errors").
                    raise exception_error(
                        str(headers.get(":error-code")), headers.get(":error-message", "")
                    )
                case _:
                    pass  # From a newer version of the service
        return None

    async def _send_failure(self, error: Exception) -> SessionError:
        """Return why nothing can be sent any more; the service may have given a reason."""
        if self._receiving:
            # The reader gets the error first, and only there are the service's own words.
            try:
                async with asyncio.timeout(_REASON_TIMEOUT_S):
                    await self._receive_ended.wait()
            except TimeoutError:
                return self._to_session_error(error)
        elif self._end_error is None:
            try:
                async with asyncio.timeout(_REASON_TIMEOUT_S):
                    await self.run(lambda _: None)
            except TimeoutError:
                return self._to_session_error(error)
            except SessionError as reason:
                return reason
        return self._end_error or self._to_session_error(error)

    def _to_session_error(self, error: BaseException) -> SessionError:
        refusal = None if self._transport is None else self._transport.refusal
        if refusal is not None:
            return http_error(refusal.status, refusal.error_type, refusal.body)
        if isinstance(error, ValueError):
            return self._connection_error(f"sent what can't be read: {one_line(str(error))}")
        cause: BaseException = error
        while not isinstance(cause, ConnectionError) and cause.__cause__ is not None:
            cause = cause.__cause__
        return self._connection_error(one_line(str(cause)) or type(cause).__name__)

    def _connection_error(self, what: str) -> SessionError:
        return SessionError(f"{self._host} {what}", code="connection", kind=ErrorKind.RECYCLE)


def _decode_json(payload: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
