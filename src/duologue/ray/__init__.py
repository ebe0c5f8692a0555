"""Calls on several machines by Ray Serve (extra ``ray``).

A call is one long request to a replica, which is a process of its own with an agent for each of its
calls. Only signalling passes Serve's proxies: media goes directly to the replica's node.

    # app.py
    from duologue import ray

    app = ray.application(make_agent, config)       # serve run app:app

``duologue ray deploy app:make_agent`` replaces a running version without cutting a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names
from duologue.ray.scaling import Scaling

if TYPE_CHECKING:
    from duologue.ray._application import MakeApp, application, build
    from duologue.ray._versions import (
        DASHBOARD,
        DeployError,
        Deployment,
        ServeApi,
        connect,
        deploy,
    )

__all__ = [
    "DASHBOARD",
    "DeployError",
    "Deployment",
    "MakeApp",
    "Scaling",
    "ServeApi",
    "application",
    "build",
    "connect",
    "deploy",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.ray._application": ("MakeApp", "application", "build"),
            "duologue.ray._versions": (
                "DASHBOARD",
                "DeployError",
                "Deployment",
                "ServeApi",
                "connect",
                "deploy",
            ),
        },
    )
