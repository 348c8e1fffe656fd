from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import kernloom
from kernloom.kernel.config.config import Config
from kernloom.kernel.discovery.installed import GROUP, own_plugins, own_version
from kernloom.kernel.discovery.registry import PluginRecord, PluginRegistry
from kernloom.kernel.errors import NotFoundError, PluginError
from kernloom.kernel.kernel import Kernel

if TYPE_CHECKING:
    from tests.kernel.conftest import Site

ROOT = Path(__file__).resolve().parents[3]


def record_of(registry: PluginRegistry, name: str) -> PluginRecord:
    registry.refresh()
    return registry.record(name)


def refusal(registry: PluginRegistry, name: str) -> PluginError:
    with pytest.raises(PluginError) as caught:
        registry.load(name)
    return caught.value


# -- listing -------------------------------------------------------------------------------------------


def test_our_own_plugins_are_listed_and_trusted_without_any_metadata(registry: PluginRegistry) -> None:
    own = {r.name: r for r in registry.records() if r.own}
    assert {"time", "math", "text", "files", "memory", "openai", "extractive", "stepwise"} <= own.keys()
    assert {r.status for r in own.values()} == {"ok"}
    assert own["files"].functions["write"] == ("write",)
    assert own["openai"].provides["models"][0] == "compatible"


def test_our_entry_points_are_those_of_our_manifest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][GROUP] == {plugin.name: plugin.entry for plugin in own_plugins()}
    assert own_version() == project["version"]


def test_the_running_code_is_the_one_next_to_the_manifest() -> None:
    assert kernloom.__file__ is not None
    assert Path(kernloom.__file__).resolve().parent == ROOT


@pytest.mark.parametrize("name", [plugin.name for plugin in own_plugins()])
def test_each_of_our_own_plugins_loads_and_is_what_its_manifest_says(
    registry: PluginRegistry, name: str
) -> None:
    assert registry.load(name) is registry.loaded[name]


def test_an_installed_plugin_is_blocked_and_described_and_nothing_of_it_has_run(
    site: Site, registry: PluginRegistry
) -> None:
    site.install()
    record = registry.record("toy")
    assert (record.status, record.owner, record.entry) == (
        "blocked",
        "kernloom-toy 1.0",
        "kernloom_toy:Toy",
    )
    assert record.functions == {"hello": ()}
    assert record.description == "Says hello."
    assert "kernloom plugins allow toy" in record.hint
    assert refusal(registry, "toy").code == "plugin.blocked"
    assert not site.ran()


def test_allowing_runs_nothing_and_loading_runs_it_once(site: Site, registry: PluginRegistry) -> None:
    site.install()
    registry.allow("toy")
    assert record_of(registry, "toy").status == "ok"
    assert not site.ran()
    assert "toy" in registry
    assert "toy" not in registry.loaded
    assert registry.load("toy") is registry.load("toy")
    assert site.ran()
    assert "toy" in registry.loaded


async def test_a_kernel_calls_what_the_program_allows_and_no_lock_is_read_or_written(
    site: Site, project: Path
) -> None:
    site.install()
    (project / "kernloom.lock").write_text("<<<<<<< HEAD", encoding="utf-8")
    async with Kernel(allow=["toy"], config=Config.load(project, env={})) as kernel:
        assert await kernel.invoke("toy.hello", name="Ada") == "hello Ada"
        assert [f.name for f in kernel.functions()] == ["toy.hello"]
    async with Kernel(allow=[], config=Config.load(project, env={})) as kernel:
        with pytest.raises(PluginError, match=r"Kernel\(allow=\['toy'\]\)"):
            await kernel.invoke("toy.hello", name="Ada")


def test_a_plugin_that_is_not_there_is_answered_with_its_neighbours(registry: PluginRegistry) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'math'") as caught:
        registry.load("maths")
    assert caught.value.code == "plugin.not_found"


def test_fifty_plugins_are_listed_without_importing_one(site: Site, registry: PluginRegistry) -> None:
    for number in range(50):
        site.install(
            f"kernloom-toy{number}",
            package=f"kernloom_toy{number}",
            entry_points=f"toy{number} = kernloom_toy{number}:Toy",
            manifest=f"api = 1\n[plugins.toy{number}]\nfunctions.hello.effects = []\n",
        )
    strangers = [r for r in registry.records() if r.distribution.startswith("kernloom-toy")]
    assert [r.status for r in strangers] == ["blocked"] * 50
    assert not any(name.startswith("kernloom_toy") for name in sys.modules)


# -- narrowing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "toml", "words"),
    [
        ({"KERNLOOM_PLUGINS": "other,units"}, "", "KERNLOOM_PLUGINS"),
        ({"KERNLOOM_NO_PLUGINS": "1"}, "", "no installed plugin"),
        ({}, '[plugins]\ndisable = ["toy", "math"]\n', "switched off"),
    ],
)
def test_narrowing_disables_installed_plugins(
    site: Site, project: Path, env: dict[str, str], toml: str, words: str
) -> None:
    site.install()
    (project / "kernloom.toml").write_text(toml, encoding="utf-8")
    registry = PluginRegistry(config=Config.load(project, env=env), allow={"toy"})
    assert registry.record("toy").status == "disabled"
    assert words in registry.record("toy").why
    assert refusal(registry, "toy").code == "plugin.disabled"
    assert not site.ran()
    assert registry.record("time").status == "ok"
    assert registry.record("math").status == ("disabled" if toml else "ok")


def test_what_is_disabled_by_command_stays_trusted(site: Site, registry: PluginRegistry) -> None:
    site.install()
    registry.allow("toy")
    registry.disable("toy")
    assert registry.record("toy").status == "disabled"
    assert registry.enable("toy")
    assert not registry.enable("toy")
    assert registry.record("toy").status == "ok"


# -- hostile and broken distributions ------------------------------------------------------------------

RAISES = "raise RuntimeError('boom at import')"
EXITS = "import sys\nsys.exit(3)"
INTERRUPTS = "raise KeyboardInterrupt"
#: As long as the test lasts: an import that never ends would keep its module's name to itself for good.
WAIT = """
import pathlib, time
def wait():
    while not pathlib.Path(__file__).parent.with_name("over").exists():
        time.sleep(0.01)
"""
HANGS = f"{WAIT}\nwait()"
NEEDS = "import no_such_module_at_all"
CONSTRUCTOR = "class Toy:\n    def __init__(self):\n        raise ValueError('no luck')"
SLOW_CONSTRUCTOR = f"{WAIT}\nclass Toy:\n    def __init__(self):\n        wait()"
NO_CLASS = "x = 1"
NO_TYPE = """
from kernloom import function
class Toy:
    @function
    def greet(self, name: "Nobody") -> str: ...
"""


@pytest.mark.parametrize(
    ("code", "where", "words"),
    [
        (RAISES, "import", "RuntimeError: boom at import"),
        (EXITS, "import", "SystemExit: 3"),
        (INTERRUPTS, "import", "KeyboardInterrupt"),
        (HANGS, "import", "did not finish within 0.5 s"),
        (NEEDS, "import", "no_such_module_at_all"),
        (CONSTRUCTOR, "constructor", "ValueError: no luck"),
        (SLOW_CONSTRUCTOR, "constructor", "did not finish"),
        (NO_CLASS, "import", "has no attribute 'Toy'"),
        (NO_TYPE, "functions", "name 'Nobody' is not defined"),
    ],
    ids=[
        "raises",
        "exits",
        "interrupts",
        "hangs",
        "needs",
        "constructor",
        "slow constructor",
        "no class",
        "no type",
    ],
)
def test_one_bad_plugin_fails_by_name_and_the_others_go_on(
    site: Site, registry: PluginRegistry, code: str, where: str, words: str
) -> None:
    site.install(code=code)
    site.install(
        "kernloom-good",
        package="kernloom_good",
        entry_points="good = kernloom_good:Toy",
        manifest="api = 1\n[plugins.good]\nfunctions.hello.effects = []\n",
    )
    registry.allow("toy")
    registry.allow("good")
    error = refusal(registry, "toy")
    assert error.code == "plugin.failed"
    assert error.details["distribution"] == "kernloom-toy"
    assert words in str(error)
    record = registry.record("toy")
    assert (record.status, record.where) == ("failed", where)
    assert words in record.why
    assert refusal(registry, "toy").code == "plugin.failed"  # and it is not tried again
    assert "timeout = 60" in record.hint or "did not finish" not in words
    assert registry.load("good") is not None
    assert registry.load("math") is not None


def test_two_distributions_with_one_name_are_both_refused_and_both_named(
    site: Site, registry: PluginRegistry
) -> None:
    site.install()
    site.install("kernloom-twin", package="kernloom_twin", entry_points="toy = kernloom_twin:Toy")
    records = [r for r in registry.records() if r.name == "toy"]
    assert [r.status for r in records] == ["failed", "failed"]
    for act in (registry.load, registry.allow):
        with pytest.raises(PluginError, match=r"kernloom-toy 1\.0, kernloom-twin 1\.0") as caught:
            act("toy")
        assert caught.value.code == "plugin.collision"
    assert not site.ran()
    assert not site.ran("kernloom_twin")


def test_a_stranger_cannot_take_the_name_of_one_of_ours(site: Site, registry: PluginRegistry) -> None:
    site.install(
        entry_points="math = kernloom_toy:Toy",
        manifest="api = 1\n[plugins.math]\nfunctions.hello.effects = []\n",
    )
    ours, stranger = [r for r in registry.records() if r.name == "math"]
    assert (ours.own, ours.status) == (True, "ok")
    assert (stranger.own, stranger.status, stranger.code) == (False, "failed", "plugin.collision")
    assert type(registry.load("math")).__module__ == "kernloom.plugins.math"
    assert not site.ran()


def test_a_distribution_that_calls_itself_kernloom_is_a_stranger(
    site: Site, registry: PluginRegistry
) -> None:
    site.install("kernloom", "9.9")
    assert record_of(registry, "toy").status == "blocked"
    assert not record_of(registry, "toy").own
    assert registry.record("math").version == own_version()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("toy = os:system", "no file of kernloom-toy"),
        ("toy = json:loads", "no file of kernloom-toy"),
        ("toy = kernloom.kernel.kernel:Kernel", "no file of kernloom-toy"),
        ("toy = kernloom_victim:Toy", "no file of kernloom-toy"),
        ("toy = nowhere.at.all:Toy", "not there"),
        ("toy = ..kernloom_toy:Toy", "cannot be used"),
        ("toy =", "cannot be used"),
        ("my-toy = kernloom_toy:Toy", "cannot be a plugin's name"),
        ("tоy = kernloom_toy:Toy", "cannot be a plugin's name"),  # a Cyrillic o
    ],
)
def test_an_entry_point_leads_into_its_own_distribution_or_nowhere(
    site: Site, registry: PluginRegistry, entry: str, words: str
) -> None:
    site.install("kernloom-victim", package="kernloom_victim", entry_points="")
    site.install(entry_points=entry)
    (record,) = [r for r in registry.records() if not r.own]
    assert (record.status, record.code) == ("failed", "plugin.entry_point")
    assert words in record.why
    with pytest.raises(PluginError):
        registry.allow(record.name)
    assert not site.ran()
    assert not site.ran("kernloom_victim")


def _write(path: str, content: bytes) -> Callable[[Path], None]:
    def damage(site: Path) -> None:
        (file,) = site.glob(path)
        file.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    ("damage", "status", "words"),
    [
        (_write("*/kernloom-plugin.toml", b"api = "), "failed", "is not TOML"),
        (_write("*/kernloom-plugin.toml", b"\xff\xfe\0"), "failed", "is not TOML"),
        (_write("*/kernloom-plugin.toml", b""), "failed", "api"),
        (_write("*/kernloom-plugin.toml", b"api = 1\n"), "failed", "says nothing of a plugin 'toy'"),
        (_write("*/kernloom-plugin.toml", b"api = 2\nsomething = 'new'\n"), "incompatible", "speaks 1"),
        (_write("*/kernloom-plugin.toml", b"#" * 300_000), "failed", "larger than"),
        (_write("*/kernloom-plugin.toml", b"a=" + b"[" * 100_000), "failed", "is not TOML"),
        (_write("*.dist-info/RECORD", b"\xff\xff,,\n"), "failed", "metadata cannot be used"),
        (_write("*.dist-info/RECORD", b""), "failed", "no file of"),
        (_write("*.dist-info/METADATA", b"\xff\xff"), "blocked", "allowed"),
        (_write("*.dist-info/METADATA", b""), "blocked", "allowed"),
    ],
)
def test_broken_files_end_in_the_record(
    site: Site, registry: PluginRegistry, damage: Callable[[Path], None], status: str, words: str
) -> None:
    site.install()
    damage(site.folder)
    record = registry.record("toy")
    assert record.status == status
    assert words in record.why
    assert registry.record("math").status == "ok"
    assert not site.ran()


def test_a_plugin_without_a_manifest_cannot_be_allowed(site: Site, registry: PluginRegistry) -> None:
    site.install(manifest=None)
    assert record_of(registry, "toy").code == "plugin.manifest"
    with pytest.raises(PluginError, match=r"ships no kernloom-plugin\.toml"):
        registry.allow("toy")


def test_import_hooks_of_others_do_not_disturb(
    site: Site, registry: PluginRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        """A finder from before ``find_spec``."""

    monkeypatch.setattr(sys, "meta_path", [Old(), *sys.meta_path])
    site.install()
    assert registry.record("toy").status == "blocked"


def test_metadata_nobody_can_read_hide_no_neighbour(site: Site, registry: PluginRegistry) -> None:
    site.install()
    broken = site.folder / "aaa-1.0.dist-info"
    broken.mkdir()
    (broken / "entry_points.txt").write_bytes(b"[kernloom.plugins]\n\xff\xfe = x")
    site.install("kernloom-odd", package="kernloom_odd", entry_points="no equals sign\n= :\n[broken")
    assert registry.record("toy").status == "blocked"


def test_control_characters_never_reach_a_terminal(site: Site, registry: PluginRegistry) -> None:
    site.install(entry_points="t\x1b[2Joy = kernloom_toy:Toy\x1b]0;x\x07")
    (record,) = [r for r in registry.records() if not r.own]
    assert (record.name + record.entry + record.why + record.hint).isprintable()
    assert record.status == "failed"


# -- code and manifest ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("", "function hello is not in the manifest"),
        ("functions.hello.effects = ['network']", "hello has the effects none, the manifest says network"),
        ("functions.hello = {}\nfunctions.bye = {}", "function bye is in the manifest but not in the code"),
        ("functions.hello = {}\nmodels = ['toy']", "models: none in code, toy in the manifest"),
    ],
)
def test_a_manifest_that_lies_fails_the_plugin(
    site: Site, registry: PluginRegistry, manifest: str, words: str
) -> None:
    site.install(manifest=f"api = 1\n[plugins.toy]\n{manifest}\n")
    registry.allow("toy")
    assert words in str(refusal(registry, "toy"))
    assert registry.record("toy").where == "manifest"


def test_functions_that_raise_when_asked_for_fail_the_plugin(site: Site, registry: PluginRegistry) -> None:
    site.install(code=TOY_WITH_BROKEN_FUNCTIONS)
    registry.allow("toy")
    assert "SystemExit" in str(refusal(registry, "toy"))
    assert registry.record("toy").where == "functions"


TOY_WITH_BROKEN_FUNCTIONS = """
class Toy:
    def functions(self):
        raise SystemExit(1)
"""

PROVIDER = """
class Toy:
    models = ("toy",)
    planners = ("playful",)
    def chat_model(self, name, settings):
        return name
"""
PROVIDER_MANIFEST = "api = 1\n[plugins.toy]\nmodels = ['toy']\nplanners = ['playful']\n"


def test_providers_are_found_by_what_manifests_say(site: Site, registry: PluginRegistry) -> None:
    site.install(code=PROVIDER, manifest=PROVIDER_MANIFEST)
    assert registry.provider("models", "toy") == "toy"  # so that loading it says what to do
    assert refusal(registry, "toy").code == "plugin.blocked"
    assert "toy" not in registry.provided("models")
    registry.allow("toy")
    assert registry.provider("planners", "playful") == "toy"
    assert registry.provided("models")["toy"] == "toy"
    assert registry.provided("models")["ollama"] == "openai"
    assert registry.provider("models", "nobody") is None
    assert not registry.record("toy").provides_functions
    assert "math.evaluate" in registry.function_names()
    assert registry.load("toy") is not None


def test_a_stranger_cannot_take_a_model_prefix_of_ours(site: Site, registry: PluginRegistry) -> None:
    site.install(
        code=PROVIDER.replace('("toy",)', '("openai",)'),
        manifest=PROVIDER_MANIFEST.replace("'toy'", "'openai'"),
    )
    registry.allow("toy")
    assert registry.record("toy").status == "ok"
    assert registry.provider("models", "openai") == "openai"
    assert registry.provided("models")["openai"] == "openai"


def test_two_plugins_that_provide_one_thing_are_both_named(site: Site, registry: PluginRegistry) -> None:
    site.install(code=PROVIDER, manifest=PROVIDER_MANIFEST)
    site.install(
        "kernloom-twin",
        package="kernloom_twin",
        entry_points="twin = kernloom_twin:Toy",
        code=PROVIDER,
        manifest=PROVIDER_MANIFEST.replace("toy]", "twin]"),
    )
    registry.allow("toy")
    registry.allow("twin")
    with pytest.raises(PluginError, match=r"toy \(kernloom-toy 1\.0\) and by twin") as caught:
        registry.provider("models", "toy")
    assert caught.value.code == "plugin.collision"


# -- settings ------------------------------------------------------------------------------------------

WITH_SETTINGS = """
from pydantic import BaseModel
from kernloom.kernel.functions import function

class Settings(BaseModel):
    units: str = "metric"
    days: int = 1

class Toy:
    Settings = Settings
    def __init__(self, settings):
        self.settings = settings
    @function
    def hello(self) -> str:
        return self.settings.units
"""


def test_settings_reach_the_plugin_checked_by_its_own_model(site: Site, project: Path) -> None:
    site.install(code=WITH_SETTINGS)
    (project / "kernloom.toml").write_text("[plugins.toy]\nunits = 'imperial'\n", encoding="utf-8")
    registry = PluginRegistry(config=Config.load(project, env={}), allow={"toy"})
    toy = registry.load("toy")
    assert toy.hello() == "imperial"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (WITH_SETTINGS, "days: Input should be a valid integer"),
        ("class Toy: ...", "the plugin has no settings"),
    ],
)
def test_settings_that_do_not_fit_are_said_in_words(
    site: Site, project: Path, code: str, words: str
) -> None:
    site.install(code=code)
    (project / "kernloom.toml").write_text("[plugins.toy]\ndays = 'many'\n", encoding="utf-8")
    registry = PluginRegistry(config=Config.load(project, env={}), allow={"toy"})
    assert words in str(refusal(registry, "toy"))
    assert registry.record("toy").where == "settings"


# -- where code lies -----------------------------------------------------------------------------------


def test_a_distribution_of_one_module_brings_its_manifest_along(
    site: Site, registry: PluginRegistry
) -> None:
    site.install(
        package="unused",
        files={
            "kernloom_toy.py": "class Toy:\n    def functions(self):\n        return []\n",
            "kernloom_toy-1.0.data/kernloom-plugin.toml": "api = 1\n[plugins.toy]\n",
        },
        manifest=None,
    )
    registry.allow("toy")
    assert registry.load("toy") is not None


def test_a_plugin_in_a_namespace_package_is_found_without_importing_the_namespace(
    site: Site, registry: PluginRegistry
) -> None:
    site.install(package="acme/toys", entry_points="toy = acme.toys:Toy")
    registry.allow("toy")
    assert "acme" not in sys.modules
    assert registry.load("toy") is not None


def test_an_editable_install_is_owned_by_the_folder_it_points_to(
    site: Site, registry: PluginRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "work" / "src"
    package = site.install()
    source.mkdir(parents=True)
    package.rename(source / "kernloom_toy")
    monkeypatch.syspath_prepend(str(source))  # as the interpreter does for the installer's .pth file
    (site.folder / "kernloom_toy-1.0.dist-info" / "RECORD").write_text("x.pth,,\n", encoding="utf-8")
    assert "no file of" in record_of(registry, "toy").why
    origin = site.folder / "kernloom_toy-1.0.dist-info" / "direct_url.json"
    said = {"url": (tmp_path / "work").as_uri(), "dir_info": {"editable": True}}
    origin.write_text(json.dumps({**said, "url": (tmp_path / "elsewhere").as_uri()}), encoding="utf-8")
    assert "no file of" in record_of(registry, "toy").why
    origin.write_text(json.dumps(said), encoding="utf-8")
    registry.refresh()
    registry.allow("toy")
    assert registry.load("toy") is not None
    (source / "kernloom_toy" / "more.py").touch()
    fresh = PluginRegistry(config=registry._config)
    assert "new file kernloom_toy/more.py" in record_of(fresh, "toy").why


# -- closing -------------------------------------------------------------------------------------------

CLOSES = """
class Toy:
    closed = 0
    async def aclose(self):
        self.closed += 1
        raise RuntimeError("already gone")
"""


async def test_closing_a_kernel_closes_the_plugins_it_loaded(site: Site, project: Path) -> None:
    site.install(code=CLOSES, manifest="api = 1\n[plugins.toy]\n")
    kernel = Kernel(allow=["toy"], config=Config.load(project, env={}))
    toy = kernel.plugins.load("toy")
    await kernel.aclose()
    assert toy.closed == 1  # type: ignore[attr-defined]
    assert kernel.plugins.record("toy").where == "aclose"  # said of it, and nobody else is disturbed
