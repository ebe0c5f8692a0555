"""Merge what several processes answer at ``/metrics`` into one answer.

Prometheus' text format wants all samples of a metric together, under one HELP and one TYPE. Every
sample gets a label that names its process, so that nothing is added up here: a counter of a process
that was replaced begins again at 0, and Prometheus' ``rate`` understands that only if it sees each
process by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LABEL = "worker"

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?(.*)", re.DOTALL)
_META = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*)")


def merge_metrics(texts: Mapping[int, str]) -> str:
    """Return one text of the metrics of all processes.

    Args:
        texts: What each process answers in Prometheus' text format, by the value of its label.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for process, text in sorted(texts.items()):
        family = ""
        head: list[str] = []
        for line in text.split("\n"):
            meta = _META.match(line)
            if meta is not None:
                if meta[2] != family:
                    family, head = meta[2], []
                head.append(line)
                heads[family] = heads.get(family, head)
            elif line and not line.startswith("#"):
                samples.setdefault(family, []).append(_with_label(line, process))
    lines = []
    for family in heads | samples:
        lines += heads.get(family, [])
        lines += samples.get(family, [])
    return "".join(f"{line}\n" for line in lines)


def _with_label(sample: str, process: int) -> str:
    parts = _SAMPLE.match(sample)
    if parts is None:
        return sample
    name, brace, rest = parts.groups()
    label = f'{LABEL}="{process}"'
    if brace is None:
        return f"{name}{{{label}}}{rest}"
    return f"{name}{{{label}{'' if rest.startswith('}') else ','}{rest}"
