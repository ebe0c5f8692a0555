"""Tools: plain functions that the model may call."""

from duologue.tools.registry import Tool, ToolOutcome, ToolRegistry

__all__ = ["Tool", "ToolOutcome", "ToolRegistry"]
