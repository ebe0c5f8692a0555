"""Clients of Pipecat's RTVI over its transport SmallWebRTC (extra ``browser``).

`mount` adds the routes to an app of `duologue.hosting.create_app`; each client gets an agent whose
edge is an `Edge`. docs/edges/rtvi.md describes the messages.
"""

from __future__ import annotations

from duologue.edges.rtvi._app import MakeRtviAgent, mount
from duologue.edges.rtvi._edge import ClientError, Edge, MessageHandler

__all__ = ["ClientError", "Edge", "MakeRtviAgent", "MessageHandler", "mount"]
