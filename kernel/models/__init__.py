"""Language models as the kernel sees them: the protocol, and models that follow a script."""

from .base import (
    ChatModel,
    ChatRequest,
    ChatResponse,
    Delta,
    Finished,
    FinishReason,
    FunctionSpec,
    ModelInfo,
    TextDelta,
    ToolCallDelta,
)
from .scripted import EchoModel, ScriptedModel

__all__ = [
    "ChatModel",
    "ChatRequest",
    "ChatResponse",
    "Delta",
    "EchoModel",
    "FinishReason",
    "Finished",
    "FunctionSpec",
    "ModelInfo",
    "ScriptedModel",
    "TextDelta",
    "ToolCallDelta",
]
