"""What kernloom and the authors of plugins test with; nothing else imports it."""

from ..kernel.models.scripted import EchoModel, ScriptedModel
from .server import Call, FakeOpenAI, Fault, Received, Reply

__all__ = ["Call", "EchoModel", "FakeOpenAI", "Fault", "Received", "Reply", "ScriptedModel"]
