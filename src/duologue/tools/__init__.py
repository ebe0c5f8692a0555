"""Tools: plain functions that the model may call."""

from duologue.tools._registry import Tool, ToolOutcome, ToolRegistry

__all__ = ["Tool", "ToolOutcome", "ToolRegistry"]
