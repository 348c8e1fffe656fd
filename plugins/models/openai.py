"""OpenAI's Chat Completions, and every server that speaks it (Ollama, vLLM, LM Studio, gateways).

The ``openai`` package makes the request, so its retries, timeouts, proxies and typed errors are kept. Its
request transform and response models are passed by: they walk the whole history on every call and build a
model for every chunk, and are most of what a turn costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from ...kernel.errors import ConfigError, ProviderError, UsageError, suggestion
from ...kernel.models.base import ChatModel, ChatRequest, ChatResponse, Delta, Finished, ModelInfo
from .openai_answer import CallIds, new_call_id, parse, read_answer
from .openai_errors import Provider, status_of
from .openai_stream import Answer, EventLines, stream_cut
from .openai_wire import RequestWriter, WireNames

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"
#: Seconds to wait for a connection; the read timeout is the caller's.
_CONNECT_TIMEOUT = 5.0
#: Seconds to wait for the end of a stream after its ``[DONE]``, so that the connection can be used again.
_DRAIN_TIMEOUT = 0.5
#: What the client would tell every server about this machine; nobody asked.
_ABOUT_THE_MACHINE = (
    "X-Stainless-Lang", "X-Stainless-Package-Version", "X-Stainless-OS", "X-Stainless-Arch",
    "X-Stainless-Runtime", "X-Stainless-Runtime-Version", "X-Stainless-Async",
)  # fmt: skip
#: What it takes from the environment and only OpenAI has a use for.
_ABOUT_THE_ACCOUNT = ("OpenAI-Organization", "OpenAI-Project")


class OpenAIChatModel:
    """A model behind a Chat Completions API.

    Args:
        model: The model's name, as the provider knows it.
        base_url: Of the API, usually ending in ``/v1``. None: ``OPENAI_BASE_URL``, or OpenAI itself.
        api_key: The key, or a function that is asked for it at each request. None: ``OPENAI_API_KEY``,
            but only for OpenAI itself (over https) or ``OPENAI_BASE_URL``; no other server is sent it.
        name: ``provider:model`` as it stands in the journal; ``openai:<model>`` by default.
        timeout: Seconds without a byte before a request fails.
        max_retries: How often the client tries again on 408, 409, 429, 5xx and lost connections, before
            the first byte of an answer.
        http_client: An ``httpx2.AsyncClient`` (or ``openai.DefaultAioHttpClient()``) to send through;
            the caller closes it.
        max_output_tokens: The limit of a request that sets none.
        limit_field: What that limit is called: ``max_completion_tokens`` at OpenAI and Azure, elsewhere
            ``max_tokens``, which servers that copy the older API know.
        context_tokens: The context's size, if known.
        extra: Fields for every request's body. :attr:`ChatRequest.extra` is laid over it, both win over
            what is written here, and a None removes a field: ``extra={"stream_options": None}``.
        new_call_id: Makes an id for a call that came without one, or with one used before.

    Raises:
        UsageError: ``base_url`` is no HTTP address.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | Callable[[], str] | None = None,
        name: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
        max_output_tokens: int | None = None,
        limit_field: str | None = None,
        context_tokens: int | None = None,
        extra: Mapping[str, Any] | None = None,
        new_call_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._base_url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")
        host = _host(self._base_url)
        at_openai = f".{host}".endswith(".openai.com") and self._base_url.startswith("https:")
        if api_key is None and (base_url is None or at_openai):
            api_key = _key_from_environment
        self._api_key = api_key
        self._needs_key = at_openai
        self._unsent = _ABOUT_THE_MACHINE if at_openai else _ABOUT_THE_MACHINE + _ABOUT_THE_ACCOUNT
        self._timeout = timeout
        self._max_retries = max_retries
        self._http_client = http_client
        self._max_output_tokens = max_output_tokens
        self._new_call_id = new_call_id
        self._names = WireNames()
        if limit_field is None:
            newer = at_openai or host.endswith(".openai.azure.com")
            limit_field = "max_completion_tokens" if newer else "max_tokens"
        self._writer = RequestWriter(model, self._names, limit_field=limit_field, extra=extra)
        self._info = ModelInfo(
            name=name or f"openai:{model}",
            context_tokens=context_tokens,
            local=host in ("localhost", "127.0.0.1", "::1"),
        )
        self._provider = Provider(self._info.name.partition(":")[0], model, self._base_url, self._key)
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def info(self) -> ModelInfo:
        """Who it is and what it can do."""
        return self._info

    def __repr__(self) -> str:
        return f"OpenAIChatModel({self._info.name!r}, base_url={self._base_url!r})"

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer at once.

        Raises:
            ProviderError: whatever went wrong, see ``docs/errors.md``.
        """
        body, taken = self._writer.write(self._limited(request), stream=False)
        response = await self._post(body, stream=False)
        data = parse(response.content)
        if data.get("error") and not data.get("choices"):
            raise self._provider.refused(status_of(data["error"]), data)
        return read_answer(data, names=self._names, ids=CallIds(taken, self._new_call_id))

    async def stream(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The answer piece by piece, then :class:`Finished`. Leaving the loop closes the connection.

        Raises:
            ProviderError: as ``complete``; ``provider.stream_cut`` when it ends before the answer does.
        """
        body, taken = self._writer.write(self._limited(request), stream=True)
        response = await self._post(body, stream=True)
        answer = Answer(self._names, CallIds(taken, self._new_call_id))
        try:
            async with contextlib.aclosing(self._events(response, answer)) as events:
                async for data in events:
                    chunk = parse(data)
                    if chunk.get("error"):
                        raise self._provider.refused(status_of(chunk["error"]), chunk)
                    for delta in answer.feed(chunk):
                        yield delta
        finally:
            await response.aclose()
        yield Finished(response=answer.response())

    async def aclose(self) -> None:
        """Give back the connections; the model can be used again afterwards."""
        client, self._client = self._client, None
        if client is not None and self._http_client is None:
            await client.close()

    async def _post(self, body: bytes, *, stream: bool) -> httpx2.Response:
        """Send a body through the client, past its transform and its response models."""
        import httpx2
        import openai

        client = self._connected()
        try:
            response = await client.post(
                "/chat/completions",
                content=body,
                cast_to=httpx2.Response,
                stream=stream,
                stream_cls=openai.AsyncStream,
                options={"security": {"bearer_auth": True}},
            )
        except openai.APITimeoutError as exc:
            raise self._provider.unreachable(f"No answer within {self._timeout:g} s") from exc
        except openai.APIConnectionError as exc:
            why = exc.__cause__ or exc
            raise self._provider.unreachable(f"No connection ({str(why) or type(why).__name__})") from exc
        except openai.APIStatusError as exc:
            raise self._provider.refused(exc.status_code, exc.body, exc.response.headers) from exc
        except openai.OpenAIError as exc:
            raise ProviderError(f"{self._provider.prefix} failed: {exc}") from exc
        return cast("httpx2.Response", response)  # a Response is handed through unparsed, streamed or not

    async def _events(self, response: httpx2.Response, answer: Answer) -> AsyncGenerator[bytes, None]:
        """The data of each event up to ``[DONE]``; raises unless the answer came to its end."""
        import httpx2

        lines = EventLines()
        try:
            async with contextlib.aclosing(response.aiter_bytes()) as pieces:
                async for piece in pieces:
                    for data in lines.feed(piece):
                        if data == b"[DONE]":
                            await _drain(pieces)
                            return
                        yield data
        except httpx2.TimeoutException as exc:
            raise self._provider.unreachable(f"No further piece within {self._timeout:g} s") from exc
        except (httpx2.TransportError, ssl.SSLError) as exc:
            if not answer.finished:
                raise stream_cut(answer.received, str(exc) or type(exc).__name__) from exc
        if not answer.finished:
            for data in lines.end():
                if data == b"[DONE]":
                    return
                yield data
        if not answer.finished:
            raise stream_cut(answer.received)

    def _connected(self) -> openai.AsyncOpenAI:
        """The client of the running loop; connections of another loop cannot be used in this one."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._connect(), loop
        elif not callable(self._api_key):
            return self._client
        key = self._key()
        if not key and self._needs_key:
            raise self._provider.missing_key()
        self._client.api_key = key or "none"
        return self._client

    def _connect(self) -> openai.AsyncOpenAI:
        import httpx2
        import openai

        timeout = httpx2.Timeout(self._timeout, connect=min(_CONNECT_TIMEOUT, self._timeout))
        return openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key="none",
            timeout=timeout,
            max_retries=self._max_retries,
            default_headers=cast("dict[str, str]", dict.fromkeys(self._unsent, openai.omit)),
            http_client=self._http_client
            or openai.DefaultAsyncHttpxClient(verify=_tls(self._base_url.startswith("https:"))),
        )

    def _key(self) -> str | None:
        return self._api_key() if callable(self._api_key) else self._api_key

    def _limited(self, request: ChatRequest) -> ChatRequest:
        if self._max_output_tokens is None or request.max_output_tokens is not None:
            return request
        return request.model_copy(update={"max_output_tokens": self._max_output_tokens})


def _key_from_environment() -> str:
    return os.environ.get("OPENAI_API_KEY", "")


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            async for _ in pieces:
                pass


def _host(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"The base URL {base_url!r} is not an HTTP address.",
            code="model.base_url",
            hint="Write it like http://localhost:11434/v1.",
        )
    return parts.hostname


@functools.cache
def _tls(needed: bool) -> ssl.SSLContext:
    """One context for all models: reading the certificates costs 90 ms. Without https it trusts nobody."""
    import httpx2

    return httpx2.create_ssl_context() if needed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


#: Where each prefix's server is unless the settings say otherwise; None: they must, or OpenAI's own.
_PRESETS = {
    "openai": None,
    "ollama": "http://localhost:11434/v1",
    "vllm": "http://localhost:8000/v1",
    "lmstudio": "http://localhost:1234/v1",
    "compatible": None,
}
_SETTINGS = (
    "base_url", "api_key", "timeout", "max_retries", "max_output_tokens", "context_tokens", "limit_field",
    "extra",
)  # fmt: skip


class OpenAIPlugin:
    """Offers every model behind a Chat Completions API, by the prefix of its provider."""

    #: The prefixes it serves: ``openai:gpt-4.1-mini``, ``ollama:qwen3:4b``, ``compatible:any``.
    models = tuple(_PRESETS)

    def chat_model(self, name: str, settings: Mapping[str, Any]) -> ChatModel:
        """The model ``provider:model``; a name without one of our prefixes is OpenAI's.

        Args:
            name: As the person wrote it.
            settings: ``base_url``, ``api_key``, ``timeout`` and the other options of
                :class:`OpenAIChatModel`.

        Raises:
            ConfigError: an unknown setting, no model, or no ``base_url`` where there is no default.
        """
        prefix, _, model = name.partition(":")
        if prefix not in _PRESETS:
            prefix, model = "openai", name
        if not model:
            raise ConfigError(
                f"{name!r} names no model.", code="model.no_name", hint=f"Write it like {prefix}:<model>."
            )
        for key in settings:
            if key not in _SETTINGS:
                raise ConfigError(
                    f"{prefix!r} has no setting {key!r}.",
                    code="config.unknown_key",
                    hint=suggestion(key, _SETTINGS),
                )
        options = {key: value for key, value in settings.items() if value is not None}
        base_url = options.pop("base_url", None) or _PRESETS[prefix]
        if base_url is None and prefix == "compatible":
            raise ConfigError(
                f"{name!r} needs the address of its server.",
                code="model.base_url",
                hint="Set base_url for the provider 'compatible'.",
            )
        return OpenAIChatModel(model, base_url=base_url, name=f"{prefix}:{model}", **options)
