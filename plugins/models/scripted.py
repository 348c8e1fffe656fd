"""``-m script:replies.yaml`` and ``-m echo``: models for trying things out, without a provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...kernel.errors import ConfigError
from ...kernel.models.scripted import EchoModel, ScriptedModel

if TYPE_CHECKING:
    from ...kernel.models.base import ChatModel


class ScriptedPlugin:
    """Models that answer from a file, or repeat what they are told."""

    name = "scripted"
    #: ``script:replies.yaml`` and ``echo``.
    models = ("echo", "script")

    def chat_model(self, name: str, settings: Mapping[str, Any]) -> ChatModel:
        """The model of that name; there is nothing to set.

        Args:
            name: ``echo``, or ``script:`` and a YAML file's path.
            settings: unused.

        Raises:
            ConfigError: no file is named, or it is no script.
        """
        prefix, _, path = name.partition(":")
        if prefix == "echo":
            return EchoModel()
        if not path:
            raise ConfigError(
                f"{name!r} names no file.", code="model.no_name", hint="Write it like script:replies.yaml."
            )
        return ScriptedModel.from_file(path)
