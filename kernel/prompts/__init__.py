"""Prompt functions: Jinja2 templates in a sandbox that limits what they reach and what they cost."""

from .prompts import prompt, prompts_in, read_prompt

__all__ = ["prompt", "prompts_in", "read_prompt"]
