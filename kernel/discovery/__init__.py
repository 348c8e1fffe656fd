"""Installed plugins: found by their metadata, admitted by a lock file, loaded on first use."""

from .admission import PluginRecord
from .registry import PluginRegistry

__all__ = ["PluginRecord", "PluginRegistry"]
