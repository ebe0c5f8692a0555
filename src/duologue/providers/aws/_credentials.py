"""Find the credentials of a stream: by the SDK's chain, a named profile, or the program's own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from duologue._net import one_line
from duologue._optional import import_optional
from duologue.errors import ErrorKind, SessionError

RENEWAL_MARGIN_S = 180.0
"""Replace a stream this many seconds before its credentials expire."""
MIN_LIFETIME_S = 20.0
"""Keep a stream at least this many seconds, even with credentials that are not renewed."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of an AWS account.

    Args:
        access_key_id: The id of the access key.
        secret_access_key: The secret of the access key.
        session_token: The token of temporary credentials.
        expires_at: When temporary credentials expire; UTC if it has no time zone.
    """

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None

    def lifetime_s(self, now: datetime) -> float | None:
        """Return how many seconds a stream with these keys should last, or None for ever.

        It ends three minutes before the keys expire, but gives up at most a third of the time left.
        """
        if self.expires_at is None:
            return None
        zoned = self.expires_at
        if zoned.tzinfo is None:
            zoned = zoned.replace(tzinfo=UTC)
        left = (zoned - now).total_seconds()
        return max(MIN_LIFETIME_S, left - min(RENEWAL_MARGIN_S, left / 3))


type CredentialSource = Credentials | Callable[[], Credentials | Awaitable[Credentials]]
"""Keys, or a function that returns the newest ones. A plain function runs in a thread."""


async def resolve_credentials(
    source: CredentialSource | None, profile: str | None, region: str
) -> Credentials:
    """Return the keys for the next stream, never older ones that the SDK's chain has cached.

    Raises:
        SessionError: There are no keys, or ``source`` raised something.
    """
    if isinstance(source, Credentials):
        return source
    if source is None:
        return await _from_chain(profile, region)
    try:
        given = await _call_source(source)
    except SessionError:
        raise
    except Exception as error:  # any failure may have passed when the next stream is tried
        message = f"credentials failed: {type(error).__name__}: {error}"
        raise SessionError(one_line(message), code="credentials", kind=ErrorKind.RETRY) from error
    if not isinstance(given, Credentials):
        raise SessionError(
            f"credentials returned a {type(given).__name__}: it must return aws.Credentials",
            code="credentials",
            kind=ErrorKind.FATAL,
        )
    return given


async def _call_source(source: Callable[[], object]) -> object:
    if inspect.iscoroutinefunction(source):
        return await source()
    given = await asyncio.to_thread(source)
    return await given if inspect.isawaitable(given) else given


async def _from_chain(profile: str | None, region: str) -> Credentials:
    import_optional("aws_sdk_bedrock_runtime", "aws")
    from smithy_aws_core.identity import AWSCredentialsIdentity, IdentityChain, IdentityChainError
    from smithy_core.exceptions import SmithyError
    from smithy_http.aio.aiohttp import AIOHTTPClient

    http = AIOHTTPClient()
    try:
        # Make a new chain for each stream: one that is kept returns its keys until they expire.
        chain = await IdentityChain.create(
            AWSCredentialsIdentity, profile_name=profile, region_override=region, http_client=http
        )
        found = await chain.get_identity(properties={})
    except IdentityChainError as error:
        if error.failures:
            tried = "; ".join(f"{one.provider_name}: {one.error}" for one in error.failures)
            raise SessionError(
                f"no AWS credentials: {one_line(tried)}", code="credentials", kind=ErrorKind.RETRY
            ) from error
        where = f"the profile {profile}" if profile else "the environment or a profile"
        hints = " ".join(str(source) for source in error.unclaimed_sources)
        raise SessionError(
            f"no AWS credentials in {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            f"or give profile or credentials. {hints}".rstrip(),
            code="credentials",
            kind=ErrorKind.FATAL,
        ) from error
    except (SmithyError, OSError) as error:
        message = f"no AWS credentials: {error or type(error).__name__}"
        raise SessionError(message, code="credentials", kind=ErrorKind.RETRY) from error
    finally:
        await http.close()
    return Credentials(
        found.access_key_id, found.secret_access_key, found.session_token, found.expiration
    )
