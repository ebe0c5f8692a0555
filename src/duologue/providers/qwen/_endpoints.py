"""The address of a session: the gateway of a workspace, or the older shared one.

Hosts and environment variables are those of Alibaba's own SDK (dashscope 2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlunsplit

from duologue._net import split_address, urlsplit_or_none
from duologue.errors import ConfigError
from duologue.providers._validate import check_choice
from duologue.providers.qwen._models import traits_of

PATH = "/api-ws/v1/realtime"
DEFAULT_REGION = "cn-beijing"
SHARED_HOSTS = {
    "cn-beijing": "dashscope.aliyuncs.com",
    "ap-southeast-1": "dashscope-intl.aliyuncs.com",
    "cn-hongkong": "cn-hongkong.dashscope.aliyuncs.com",
    "us-east-1": "dashscope-intl.aliyuncs.com",
    "eu-central-1": "dashscope-intl.aliyuncs.com",
    "ap-northeast-1": "dashscope-intl.aliyuncs.com",
}
"""Gateways for keys without a workspace, by region; a key is valid only in its own region."""

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_WORKSPACE_HOST = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.maas\.aliyuncs\.com")
_WORKSPACE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


def workspace_and_region(hosts: Sequence[str | None]) -> tuple[str | None, str | None]:
    """Return (workspace, region) of the first of these addresses that names them, else None.

    Alibaba's SDK and its compatible API use these addresses, so the key is valid there.
    """
    for host in hosts:
        address = urlsplit_or_none(host or "")
        name = "" if address is None else (address.hostname or "").lower()
        match = _WORKSPACE_HOST.fullmatch(name)
        if match is not None and match[2] in SHARED_HOSTS:
            return match[1], match[2]
        region = next((one for one, shared in SHARED_HOSTS.items() if shared == name), None)
        if region is not None:
            return None, region
    return None, None


def session_url(
    model: str, *, base_url: str | None, workspace: str | None, region: str | None
) -> str:
    """Return a session's address: ``base_url``, or the gateway of ``workspace`` in ``region``.

    Raises:
        ConfigError: A value is invalid, or the model needs a workspace.
    """
    if base_url is not None:
        return _with_model(base_url, model)
    region = region or DEFAULT_REGION
    check_choice("region", region, tuple(SHARED_HOSTS))
    if workspace:
        if _WORKSPACE_ID.fullmatch(workspace) is None:
            raise ConfigError(f"workspace must be an id such as llm-1234abcd, not {workspace!r}")
        return _with_model(f"wss://{workspace}.{region}.maas.aliyuncs.com", model)
    if traits_of(model).needs_workspace:
        raise ConfigError(f"{model} needs workspace, or DASHSCOPE_WORKSPACE")
    return _with_model(f"wss://{SHARED_HOSTS[region]}", model)


def _with_model(base_url: str, model: str) -> str:
    address = split_address("base_url", base_url, tuple(_SCHEMES), f"wss://host{PATH}")
    scheme = _SCHEMES[address.scheme]
    path = address.path.rstrip("/") or PATH
    query = [pair for pair in parse_qsl(address.query) if pair[0] != "model"]
    return urlunsplit((scheme, address.netloc, path, urlencode([*query, ("model", model)]), ""))
