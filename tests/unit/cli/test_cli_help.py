"""Help: an example of every verb that names real options, plain types, settings by name, completion, and no delay."""

from __future__ import annotations

import re
import shlex

import pytest

from isthmus.cli import main
from isthmus.cli.app import VERBS
from isthmus.cli.examples import EXAMPLES
from isthmus.recipes.connect import ConnectConfig
from isthmus.recipes.extend import ExtendConfig
from isthmus.recipes.posterior.config import PosteriorConfig


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_help_ends_with_an_example_of_options_that_exist(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    options, examples = re.split(r"\n\s*Examples?:\n", shown)
    assert examples.strip().startswith(f"isthmus {verb}")
    for line in EXAMPLES[verb]:
        assert line in examples
        for word in shlex.split(line.removesuffix("\\")):
            if word.startswith("--") and word != "--help":
                assert re.search(rf"(?<![\w-]){word}(?![\w-])", options), f"{word} is no option of {verb}"


@pytest.mark.parametrize("verb", list(VERBS))
def test_types_are_for_people(verb: str, capsys: pytest.CaptureFixture[str]):
    main([verb, "--help"])
    shown = capsys.readouterr().out
    assert not re.search(r"<(list|path|str|text|Path)|list\[|\.\.\.\}\.\.\.", shown)


def test_there_is_an_example_for_every_verb_and_no_more():
    assert list(EXAMPLES) == list(VERBS)


@pytest.mark.parametrize(("verb", "models"), [("connect", [ConnectConfig]), ("extend", [ExtendConfig])])
def test_the_keys_of_set_are_listed(verb: str, models: list[type], capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help-settings"]) == 0
    shown = capsys.readouterr().out
    for model in [*models, PosteriorConfig]:
        for name in model.model_fields:
            assert re.search(rf"^  {name}  \[default: [^\]]*\]+\n    \S", shown, re.MULTILINE), name
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef isthmus"), ("fish", "complete")]
)
def test_a_shell_is_given_its_completion(shell: str, mark: str, capsys: pytest.CaptureFixture[str]):
    assert main(["--show-completion", shell]) == 0
    assert mark in capsys.readouterr().out
    assert main(["--show-completion", "no-shell"]) == 2
    assert "expected bash, zsh, fish, powershell" in capsys.readouterr().err


def test_completion_knows_verbs_and_options(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_ISTHMUS_COMPLETE", "complete_bash")
    for words, expected in (("isthmus ins", "inspect"), ("isthmus search x.bridge --expl", "--explain")):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert main([]) == 0
        assert expected in capsys.readouterr().out.split()


def test_verbose_shows_where_a_fault_comes_from(capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", "nowhere.space"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["-v", "inspect", "nowhere.space"]) == 2
    assert "Traceback" in capsys.readouterr().err
