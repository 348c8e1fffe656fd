"""Units of measurement as a kernloom plugin."""

from .plugin import Units

__all__ = ["Units"]
