"""Errors of a live session, and the four kinds that a provider's table sorts them into."""

from __future__ import annotations

from enum import Enum


class ErrorKind(Enum):
    """What a session does about an error (contract C8)."""

    BENIGN = "benign"
    """Expected in normal life; counted, not reported."""
    RETRY = "retry"
    """Reported; the same thing may be tried again on this connection."""
    RECYCLE = "recycle"
    """The connection is of no more use; a new one is."""
    FATAL = "fatal"
    """No connection will do (wrong key, no money, wrong model): the session ends."""
    UNKNOWN = "unknown"
    """Not in the table: reported, and the session goes on."""


class DuologueError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(DuologueError, ValueError):
    """A value or a combination of values that can't work; the text says what does."""


class MissingExtraError(DuologueError, ImportError):
    """An optional part is not installed; the text names the extra to install."""


class UnsupportedError(DuologueError):
    """The model can't do this (its Profile says so); the text says what to do instead."""


class SessionError(DuologueError):
    """The session with the model failed; ``code`` is the provider's own."""

    def __init__(self, message: str, *, code: str = "", kind: ErrorKind = ErrorKind.FATAL) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class SessionClosedError(DuologueError):
    """The session is not connected (any more)."""


class ReplyRefusedError(DuologueError):
    """The model refused to reply; ``code`` is the provider's own."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code
