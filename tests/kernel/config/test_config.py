"""The configuration: who wins, where each value is from, and what is refused in words."""

from __future__ import annotations

import os
import stat
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernloom.kernel.config.config import Config
from kernloom.kernel.config.settings import ANY, SETTINGS, checked, dotted
from kernloom.kernel.errors import ConfigError
from kernloom.kernel.functions import Function, FunctionOptions


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def load(project: Path, home: Path, toml: str = "", **env: str) -> Config:
    if toml:
        (project / "kernloom.toml").write_text(toml)
    return Config.load(project, env={"KERNLOOM_HOME": str(home), **env})


def refused(project: Path, home: Path, toml: str = "", **env: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(project, home, toml, **env)
    return caught.value


def test_without_any_file_everything_works_and_says_default(project: Path, home: Path) -> None:
    config = load(project, home)
    assert config.default_model == "extractive"
    assert config.project is None
    assert config.origins()["memory.k"] == (8, "default")
    assert config.model_settings("openai") == {"api_key": None}
    assert config.disabled == frozenset()
    assert config.only is None
    assert not config.no_plugins


def test_flags_win_over_environment_over_project_over_user_over_defaults(project: Path, home: Path) -> None:
    (home / "config.toml").write_text("[memory]\nk = 2\ntokens = 2\n[limits]\nrounds = 2\ncalls = 2\n")
    (project / "kernloom.toml").write_text("[memory]\nk = 3\ntokens = 3\n[limits]\nrounds = 3\n")
    env = {"KERNLOOM_HOME": str(home), "KERNLOOM_MEMORY__K": "4", "KERNLOOM_MEMORY__TOKENS": "4"}
    config = Config.load(project, env=env, flags={"memory.k": "5"})
    origins = config.origins()
    assert origins["memory.k"] == (5, "flag")
    assert origins["memory.tokens"] == (4, "env KERNLOOM_MEMORY__TOKENS")
    assert origins["limits.rounds"] == (3, str(project / "kernloom.toml"))
    assert origins["limits.calls"] == (2, str(home / "config.toml"))
    assert origins["model.default"] == ("extractive", "default")


def test_the_project_is_found_from_a_folder_below(project: Path, home: Path) -> None:
    deep = project / "a" / "b"
    deep.mkdir(parents=True)
    (project / "kernloom.toml").write_text("[memory]\nk = 3\n")
    config = Config.load(deep, env={"KERNLOOM_HOME": str(home)})
    assert config.project == project
    assert config.state_dir == project / ".kernloom"
    assert config.journal_path == project / ".kernloom" / "journal.db"
    assert config.memory_path == project / ".kernloom" / "memory.db"
    assert config.lock_path == project / "kernloom.lock"


def test_outside_a_project_state_is_the_users(project: Path, home: Path) -> None:
    config = load(project, home)
    assert config.state_dir == home
    assert config.lock_path == home / "kernloom.lock"


def test_pyproject_can_hold_the_settings(project: Path, home: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.kernloom.model]\ndefault = 'openai:x'\n")
    config = load(project, home)
    assert config.default_model == "openai:x"
    assert config.file == project / "pyproject.toml"


def test_a_pyproject_without_our_table_is_no_project(project: Path, home: Path) -> None:
    (project / "pyproject.toml").write_text("[project]\nname = 'kernloom-weather'\n")
    assert load(project, home).project is None


def test_a_broken_pyproject_of_somebody_else_is_none_of_our_business(project: Path, home: Path) -> None:
    (project / "pyproject.toml").write_text("[project\n")
    assert load(project, home).project is None


def test_two_files_in_one_folder_are_refused(project: Path, home: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.kernloom.model]\ndefault = 'a:b'\n")
    assert refused(project, home, "[model]\n").code == "config.twice"


@pytest.mark.parametrize(
    ("toml", "near"),
    [
        ("[model]\ndefalt = 'x'\n", "model.default"),
        ("[modl]\ndefault = 'x'\n", "model"),
        ("[models.openai]\nbaseurl = 'http://x'\n", "models.openai.base_url"),
        ("[policy]\nwrit = 'ask'\n", "policy.write"),
        ("[limits]\nround = 3\n", "limits.rounds"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_file_key_and_what_was_meant(
    project: Path, home: Path, toml: str, near: str
) -> None:
    error = refused(project, home, toml)
    assert error.code == "config.unknown_key"
    assert str(project / "kernloom.toml") in str(error)
    assert near in (error.hint or "")


@pytest.mark.parametrize(
    "toml",
    [
        "[memory]\nk = 'many'\n",
        "[memory]\nk = 0\n",
        "[memory]\nk = true\n",
        "[memory]\nk = 1.5\n",
        "[models.openai]\nbase_url = 'localhost'\n",
        "[models.openai]\ntimeout = -1\n",
        "[plugins]\ndisable = 'jira'\n",
        "[policy]\nwrite = 'yes'\n",
        "[policy.functions]\n'files.*' = 'maybe'\n",
        "model = 'openai:x'\n",
        "[model]\ndefault = ''\n",
    ],
)
def test_a_wrong_type_is_an_error_that_names_the_value(project: Path, home: Path, toml: str) -> None:
    error = refused(project, home, toml)
    assert error.code == "config.type"
    assert str(project / "kernloom.toml") in str(error)


def test_text_that_is_no_toml_is_refused_with_its_place(project: Path, home: Path) -> None:
    error = refused(project, home, "[model]\ndefault = openai\n")
    assert error.code == "config.toml"
    assert "line 2" in error.message


@pytest.mark.parametrize(
    "toml",
    [
        "[models.openai]\napi_key = 'hunter2'\n",
        "[models.openai]\nkey = 'hunter2'\n",
        "[plugins.jira]\ntoken = 'hunter2'\n",
        "[plugins.jira]\nlogin = { password = 'hunter2' }\n",
        "[model]\ndefault = 'sk-hunter2hunter2hunter2'\n",
        "[models.x]\nbase_url = 'https://ann:hunter2@example.org'\n",
        "api_key = 'hunter2'\n",
    ],
)
def test_a_key_in_a_configuration_is_refused_and_not_repeated(project: Path, home: Path, toml: str) -> None:
    error = refused(project, home, toml)
    assert error.code == "config.secret"
    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(error.details)
    assert "kernloom keys set" in (error.hint or "")


def test_harmless_names_are_no_keys(project: Path, home: Path) -> None:
    config = load(
        project, home, "[memory]\ntokens = 900\n[plugins.jira]\nsort_key = 'date'\nmax_tokens = 3\n"
    )
    assert config.plugin_settings("jira") == {"sort_key": "date", "max_tokens": 3}


def test_environment_values_take_the_settings_type(project: Path, home: Path) -> None:
    config = load(
        project,
        home,
        KERNLOOM_MODELS__OPENAI__TIMEOUT="2.5",
        KERNLOOM_PLUGINS__DISABLE="jira, weather",
        KERNLOOM_MODEL__DEFAULT="123",
        KERNLOOM_PLUGINS__UNITS__PLACES="3",
    )
    assert config.model_settings("openai")["timeout"] == 2.5
    assert config.disabled == {"jira", "weather"}
    assert config.default_model == "123"
    assert config.plugin_settings("units") == {"places": 3}


def test_one_underscore_too_few_is_no_silent_nothing(project: Path, home: Path) -> None:
    error = refused(project, home, KERNLOOM_MODEL_DEFAULT="x:y")
    assert error.hint == "Did you mean KERNLOOM_MODEL__DEFAULT?"


def test_other_variables_of_ours_are_left_alone(project: Path, home: Path) -> None:
    load(project, home, KERNLOOM_DATA="/somewhere", KERNLOOM_EMBEDDER="none")


@pytest.mark.parametrize(("text", "no"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_plugins_can_be_narrowed_by_the_environment(project: Path, home: Path, text: str, no: bool) -> None:
    config = load(project, home, KERNLOOM_PLUGINS="a, b", KERNLOOM_NO_PLUGINS=text)
    assert config.only == frozenset({"a", "b"})
    assert config.no_plugins is no


def test_a_path_is_relative_to_the_file_that_says_it(project: Path, home: Path) -> None:
    config = load(project, home, "[memory]\npath = 'data/handbook.db'\n")
    assert config.memory_path == project / "data" / "handbook.db"


def test_the_policy_is_what_the_file_says(project: Path, home: Path) -> None:
    policy = load(
        project, home, "[policy]\nwrite = 'deny'\n[policy.functions]\n'files.*' = 'allow'\n"
    ).policy()
    writes = FunctionOptions(effects=frozenset({"write"}))
    assert policy.decide(Function(print, name="notes.add", options=writes)) == "deny"
    assert policy.decide(Function(print, name="files.write", options=writes)) == "allow"


def test_state_is_made_for_its_owner_alone_and_ignored_by_git(project: Path, home: Path) -> None:
    folder = load(project, home, "[model]\n").make_state_dir()
    assert (folder / ".gitignore").read_text().splitlines()[-1] == "*"
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_key_goes_to_the_providers_own_server(project: Path, home: Path) -> None:
    config = load(project, home, OPENAI_API_KEY="sk-mine")
    assert config.model_settings("openai")["api_key"] == "sk-mine"


def test_a_projects_file_cannot_send_your_key_to_its_server(project: Path, home: Path) -> None:
    toml = "[models.openai]\nbase_url = 'https://gateway.example/v1'\n"
    assert load(project, home, toml, OPENAI_API_KEY="sk-mine").model_settings("openai")["api_key"] is None
    config = load(project, home, toml, OPENAI_GATEWAY_EXAMPLE_API_KEY="theirs")
    assert config.model_settings("openai")["api_key"] == "theirs"


def test_your_own_settings_may_send_your_key_where_you_say(project: Path, home: Path) -> None:
    config = load(
        project,
        home,
        OPENAI_API_KEY="sk-mine",
        KERNLOOM_MODELS__OPENAI__BASE_URL="https://gateway.example/v1",
    )
    assert config.model_settings("openai")["api_key"] == "sk-mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to give a file away")
def test_a_strangers_file_above_does_not_configure_us(project: Path, home: Path) -> None:
    below = project / "below"
    below.mkdir()
    (project / "kernloom.toml").write_text("[policy]\nexec = 'allow'\n")
    os.chown(project / "kernloom.toml", 12345, -1)
    error = refused(below, home)
    assert error.code == "config.owner"


_NAMES = st.sampled_from([*{part for spec in SETTINGS for part in spec.key}, "x", "a.b"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_any_table_is_accepted_or_refused_in_words(table: dict[str, object]) -> None:
    try:
        for key, _ in checked(table, "kernloom.toml"):
            assert dotted(key)
    except ConfigError as exc:
        said = str(exc)
    else:
        said = "kernloom.toml"
    assert "kernloom.toml" in said


def test_every_setting_with_a_fixed_name_has_a_default_row(project: Path, home: Path) -> None:
    origins = load(project, home).origins()
    assert set(origins) == {dotted(spec.key) for spec in SETTINGS if ANY not in spec.key}
