from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.discovery.installed import OWN_MANIFEST
from kernloom.kernel.discovery.manifest import (
    FunctionManifest,
    Manifest,
    PluginManifest,
    Touches,
    compare,
    describe,
    manifest_text,
    read_manifest,
)
from kernloom.kernel.errors import PluginError
from kernloom.kernel.functions import EFFECTS, function


class Weather:
    """Weather forecasts.

    From a service.
    """

    planners = ("sunny",)

    @function(effects={"network", "read"})
    async def forecast(self, city: str) -> str:
        return city

    @function
    def units(self) -> list[str]:
        return ["C"]

    def helper(self) -> None: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kernloom-plugin.toml"


def test_a_plugin_is_described_from_its_code() -> None:
    said = describe(Weather(), name="weather")
    assert said.description == "Weather forecasts."
    assert said.functions == {
        "forecast": FunctionManifest(effects=frozenset({"network", "read"})),
        "units": FunctionManifest(),
    }
    assert said.planners == ("sunny",)
    assert compare(said, Weather(), name="weather") == []


def test_what_is_written_is_what_is_read(path: Path) -> None:
    path.write_text(manifest_text({"weather": Weather()}), encoding="utf-8")
    assert read_manifest(path).plugins == {"weather": describe(Weather(), name="weather")}


def test_writing_again_keeps_what_only_an_author_knows_and_changes_nothing_else(path: Path) -> None:
    known = Manifest(
        api=1,
        plugins={
            "weather": PluginManifest(
                description="The sky.",
                entry="w:Weather",
                touches=Touches(hosts=("sky.example",), env=("SKY",)),
            )
        },
    )
    text = manifest_text({"weather": Weather()}, known=known)
    path.write_text(text, encoding="utf-8")
    said = read_manifest(path)
    assert said.plugins["weather"].description == "The sky."
    assert said.plugins["weather"].touches == known.plugins["weather"].touches
    assert set(said.plugins["weather"].functions) == {"forecast", "units"}
    assert manifest_text({"weather": Weather()}, known=said) == text


def test_disagreements_are_said_one_by_one() -> None:
    said = PluginManifest(
        functions={"forecast": FunctionManifest(effects=frozenset({"read"})), "gone": FunctionManifest()},
        models=("sky",),
    )
    assert compare(said, Weather(), name="weather") == [
        "function units is not in the manifest",
        "function gone is in the manifest but not in the code",
        "forecast has the effects network, read, the manifest says read",
        "models: none in code, sky in the manifest",
        "planners: sunny in code, none in the manifest",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("api = 1\nplugin = {}", "'plugin' is unknown, did you mean 'plugins'?"),
        ("api = 1\n[plugins.a]\nfunction = {}", "did you mean 'functions'?"),
        ("api = 1\n[plugins.a.touches]\nhost = ['x']", "did you mean 'hosts'?"),
        ("api = 1\n[plugins.a.functions.b]\neffects = ['fly']", "'fly'"),
        ("api = 1\n[plugins.'a-b']", "is not a name of ASCII letters"),
        ("api = 1\n[plugins.a.functions.'b c']", "is not a name of ASCII letters"),
        ('api = 1\n[plugins.a]\ndescription = "\\u001b[2J"', "cannot be printed"),
        ('api = 1\n[plugins.a]\ndescription = "\\u202etxt"', "cannot be printed"),
        ("[plugins.a]", "'api': Field required"),
        ("api = '1'\n", "'api'"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(path: Path, text: str, words: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        read_manifest(path)
    assert words in str(caught.value)
    assert caught.value.code == "plugin.manifest"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("api", "hint"), [(0, "Upgrade the plugin."), (2, "Upgrade kernloom.")])
def test_another_api_is_incompatible_whatever_else_it_says(path: Path, api: int, hint: str) -> None:
    path.write_text(f"api = {api}\nbrand_new = true\n", encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        read_manifest(path)
    assert (caught.value.code, caught.value.hint) == ("plugin.incompatible", hint)


def test_a_manifest_that_is_a_folder_or_missing_is_said_so(path: Path) -> None:
    with pytest.raises(PluginError, match="cannot be read"):
        read_manifest(path)
    path.mkdir()
    with pytest.raises(PluginError, match="cannot be read"):
        read_manifest(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_one_error(content: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    with pytest.raises(PluginError):
        read_manifest(path)


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
lines = st.lists(st.text(st.characters(categories=("L", "N", "P")), max_size=12), unique=True).map(
    lambda texts: tuple(sorted(texts))
)
manifests = st.builds(
    PluginManifest,
    functions=st.dictionaries(
        names, st.builds(FunctionManifest, effects=st.frozensets(st.sampled_from(sorted(EFFECTS))))
    ),
    touches=st.builds(Touches, hosts=lines, paths=lines, env=lines),
    models=lines,
)


@given(manifest=manifests)
def test_toml_and_model_say_the_same(manifest: PluginManifest, tmp_path_factory: Any) -> None:
    class Plugin:
        models = manifest.models

        def functions(self) -> list[object]:
            return [made(name, said.effects) for name, said in manifest.functions.items()]

    text = manifest_text({"p": Plugin()}, known=Manifest(api=1, plugins={"p": manifest}))
    path = tmp_path_factory.getbasetemp() / "round.toml"
    path.write_text(text, encoding="utf-8")
    assert read_manifest(path).plugins["p"].model_copy(update={"description": ""}) == manifest


def made(name: str, effects: Any) -> object:
    def call() -> None: ...

    call.__name__ = name
    return function(effects=effects)(call)


def test_our_own_manifest_is_sorted_and_describes_everything() -> None:
    said = read_manifest(OWN_MANIFEST)
    data = tomllib.loads(OWN_MANIFEST.read_text(encoding="utf-8"))
    assert list(data["plugins"]) == sorted(data["plugins"])
    assert all(plugin.description and plugin.entry for plugin in said.plugins.values())
