import asyncio
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")

from duologue.errors import ErrorKind, SessionError
from duologue.providers.aws._credentials import Credentials, resolve_credentials
from duologue.testing import run_virtual

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEYS = Credentials("AKIDTEST", "secret", "token")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def found(source=None, profile=None):
    return run_virtual(resolve_credentials(source, profile, "us-east-1"), grace=0.0)


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [(60, 3420), (12, 540), (9, 360), (6, 240), (1, 40), (0.25, 20), (-5, 20)],
)
def test_stream_gets_no_older_than_its_keys_allow(minutes, seconds):
    for zone in (UTC, None):
        expires = (NOW + timedelta(minutes=minutes)).replace(tzinfo=zone)
        keys = Credentials("a", "b", expires_at=expires)
        assert keys.lifetime_s(NOW) == pytest.approx(seconds)


def test_keys_that_do_not_expire_set_no_limit():
    assert KEYS.lifetime_s(NOW) is None


def test_secrets_are_not_shown():
    assert "secret" not in repr(KEYS)
    assert "token" not in repr(KEYS).replace("session_token", "")


def test_given_credentials_are_used():
    def give():
        return KEYS

    async def give_later():
        return KEYS

    for source in (KEYS, give, give_later, lambda: give_later()):
        assert found(source) == KEYS


def test_source_that_returns_something_else_is_told_what_to_return():
    with pytest.raises(SessionError, match=r"returned a tuple: it must return aws\.Credentials"):
        found(lambda: ("a", "b"))


class EndpointConnectionError(Exception):
    """Like boto3's errors: of a class that is not known here."""


def test_source_that_fails_may_be_asked_again():
    def fail():
        raise EndpointConnectionError("Could not connect to\nhttps://sts.example")

    async def fail_later():
        fail()

    for source in (fail, fail_later, lambda: fail_later()):
        with pytest.raises(SessionError) as caught:
            found(source)
        assert (caught.value.code, caught.value.kind) == ("credentials", ErrorKind.RETRY)
        assert str(caught.value) == (
            "credentials failed: EndpointConnectionError: Could not connect to https://sts.example"
        )
        assert isinstance(caught.value.__cause__, EndpointConnectionError)


def test_session_error_of_a_source_is_raised_unchanged():
    def fail():
        raise SessionError("no such role", code="role")

    with pytest.raises(SessionError) as caught:
        found(fail)
    assert (str(caught.value), caught.value.code) == ("no such role", "role")


def test_environment_comes_first(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    assert found() == Credentials("AKIDENV", "s", "t")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEWER")
    assert found().access_key_id == "AKIDNEWER"


def test_profile_of_the_shared_files(no_account, monkeypatch):
    (no_account / "credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = d\n"
        "[work]\naws_access_key_id = W\naws_secret_access_key = w\n"
    )
    assert found().access_key_id == "D"
    assert found(profile="work").access_key_id == "W"
    # A profile that was asked for by name takes precedence over the environment.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert found(profile="work").access_key_id == "W"


def test_credential_process_whose_keys_expire(no_account):
    keys = (
        '{"Version":1,"AccessKeyId":"P","SecretAccessKey":"p","Expiration":"2030-01-01T00:00:00Z"}'
    )
    (no_account / "keys.json").write_text(keys)
    command = f"/bin/cat {no_account / 'keys.json'}"
    (no_account / "config").write_text(f"[profile tool]\ncredential_process = {command}\n")

    async def main():
        return await resolve_credentials(None, "tool", "us-east-1")

    keys = asyncio.run(main())
    assert keys.access_key_id == "P"
    assert keys.expires_at == datetime(2030, 1, 1, tzinfo=UTC)


def test_missing_credentials_error_says_what_to_do():
    with pytest.raises(SessionError, match=r"set AWS_ACCESS_KEY_ID and AWS_SECRET") as caught:
        found()
    assert caught.value.kind is ErrorKind.FATAL
    with pytest.raises(SessionError, match="in the profile nope"):
        found(profile="nope")


def test_failing_credential_process_is_reported_and_may_be_asked_again(no_account):
    (no_account / "config").write_text("[profile tool]\ncredential_process = /bin/false\n")
    with pytest.raises(SessionError, match="exit code 1") as caught:
        asyncio.run(resolve_credentials(None, "tool", "us-east-1"))
    assert caught.value.kind is ErrorKind.RETRY
