"""Errors of this library, and the kinds that a provider's table sorts its errors into."""

from __future__ import annotations

from enum import Enum


class ErrorKind(Enum):
    """What a session does about an error (contract C8)."""

    BENIGN = "benign"
    """Expected in normal use; counted, not reported."""
    RETRY = "retry"
    """Reported; the same may be tried again on this connection."""
    RECYCLE = "recycle"
    """This connection is of no more use, but a new one will be."""
    FATAL = "fatal"
    """No connection will work (wrong key, no money, wrong model): the session ends."""
    UNKNOWN = "unknown"
    """Not in the table: reported, and the session continues."""


class DuologueError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(DuologueError, ValueError):
    """A value or a combination of values can't work; the text says what does."""


class MissingExtraError(DuologueError, ImportError):
    """An optional dependency is not installed; the text names the extra to install."""


class UnsupportedError(DuologueError):
    """The model can't do this (see its `Capabilities`); the text says what to do instead."""


class SessionError(DuologueError):
    """The session with the model failed; ``code`` is the provider's own.

    By default the session makes the next connection; only ``FATAL`` ends it at once.
    """

    def __init__(self, message: str, *, code: str = "", kind: ErrorKind = ErrorKind.RETRY) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class SessionClosedError(DuologueError):
    """The session is not connected, or not any more."""


class ReplyRefusedError(DuologueError):
    """The model refused to reply; ``code`` is the provider's own."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
