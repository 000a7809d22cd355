"""What the documentation says is true: its snippets run, its links lead somewhere, its command line is the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import isthmus

sys.path.insert(0, str(Path(__file__).parent))

from architecture_picture import PICTURE, ROOMS, picture
from benchmark_table import benchmark_table, benchmarks_shown, declarations
from cli_page import FUNCTIONS, PAGE, help_of, verbs
from config_table import shown, table
from snippets import PAGES, ROOT, make_files, run_page, snippets

WITH_SNIPPETS = [page for page in PAGES if snippets(page)]


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=lambda page: page.name)
def test_the_marked_snippets_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = snippets(page)
    # README shows Python before the command line that makes its spaces, and writes them anew from there
    blocks = [[snippet] for snippet in found] if page.name == "README.md" else [found]
    for number, block in enumerate(blocks):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        own = page.name in ("README.md", "howto.md", "export.md", "hooks.md")
        make_files(folder, spaces=block[0].language == "python" and own)
        assert run_page(page, block) == len(block)


def test_the_runner_can_fail(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("words\n\n<!-- run -->\n```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page(page)
    page.write_text("<!-- run -->\n```sh\nisthmus inspect nowhere.space\n```\n")
    with pytest.raises(AssertionError, match="ended with 2"):
        run_page(page)
    page.write_text("<!-- run -->\n```sh\nrm -r /\n```\n")
    with pytest.raises(AssertionError, match="cannot run"):
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_pictures_exist(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page: Path):
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    for verb in re.findall(r"^isthmus ([a-z]+)", blocks, re.MULTILINE):
        assert verb in verbs(), f"{page.name} shows isthmus {verb}"


@pytest.mark.parametrize("verb", verbs())
def test_the_command_line_page_has_every_option(verb: str):
    section = re.search(
        rf"^## isthmus {verb}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert section, f"docs/cli.md lacks {verb}: python tests/docs/cli_page.py --write"
    options = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
    assert set(options.findall(section[1])) == set(options.findall(help_of(verb))), (
        "python tests/docs/cli_page.py --write"
    )


def test_the_command_line_page_has_no_verb_too_many():
    shown = re.findall(r"^## isthmus (\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == verbs()


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_a_python_function(verb: str):
    assert verb in FUNCTIONS, f"say which function isthmus {verb} is, in FUNCTIONS of tests/docs/cli_page.py"
    module, _, name = FUNCTIONS[verb].rpartition(".")
    assert callable(getattr(import_module(module), name))
    assert f"In Python: `{FUNCTIONS[verb]}`." in PAGE.read_text(encoding="utf-8"), (
        "python tests/docs/cli_page.py --write"
    )


def test_the_picture_of_the_rooms_is_that_of_the_package():
    rooms = {path.parent.name for path in (ROOT / "src" / "isthmus").glob("*/__init__.py")}
    assert rooms <= set(ROOMS), "describe new rooms in ROOMS of tests/docs/architecture_picture.py"
    assert PICTURE.read_text(encoding="utf-8") == picture(), "python tests/docs/architecture_picture.py --write"


def test_the_reference_names_what_there_is():
    """Every name of a reference page can be imported, and no name of the door is left out."""
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md")}
    for names in (re.findall(r"^::: (\S+)", page, re.MULTILINE) for page in pages.values()):
        for name in names:
            module, _, last = name.rpartition(".")
            assert hasattr(import_module(module), last), name
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", pages["door"], re.MULTILINE)}
    left = set(isthmus.__all__) - shown - {"ConnectConfig", "ExtendConfig", "IsthmusError"}
    assert not left, f"docs/api/door.md lacks {', '.join(sorted(left))}"


def test_the_table_of_settings_is_the_configs():
    assert shown() == table(), "python tests/docs/config_table.py --write"


def test_the_list_of_benchmarks_is_the_catalogue():
    assert benchmarks_shown() == benchmark_table(), "python tests/docs/benchmark_table.py --write"


def test_the_declarations_that_are_shown_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from isthmus.cli import main
    from isthmus.evaluation.benchmarks.declaration import load_benchmark

    shown_there = declarations()
    assert set(shown_there) == {"boxes", "embeddings", "files"}
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path, spaces=True)
    for reader, text in shown_there.items():
        Path(f"{reader}.toml").write_text(text)
        one = load_benchmark(f"{reader}.toml")
        assert (one.reader, set(one.options) - set(one.known_options())) == (reader, set())
    spaces = ["clip.space", "clap.space", "--via", "text", "--out", "X.bridge", "--method", "ridge"]
    assert main(["extend", *spaces]) == 0
    assert main(["suite", "X.bridge", "--benchmark", "embeddings.toml", "--data", "."]) == 0


def test_the_result_tables_are_those_of_the_result_files():
    command = [sys.executable, str(ROOT / "bench" / "render_results.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_python_of_the_readme_is_left_unrun():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("```python") == text.count("<!-- run -->\n```python")


def test_the_readmes_example_is_twelve_lines():
    (example,) = [snippet for snippet in snippets(ROOT / "README.md") if snippet.language == "python"]
    assert len([line for line in example.source.splitlines() if line.strip()]) <= 12


def test_make_help_names_the_targets_that_exist():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony
    for target in phony[1].split():
        assert re.search(rf"^{target}:", text, re.MULTILINE), f"make {target} is declared and missing"
    for target in re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert target in phony[1].split() or target in ("is", "pins"), f"README shows make {target}"


def test_the_site_is_built_from_every_page():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert f": {name}" in nav, f"docs/{name} is not in the navigation"


def test_the_site_asks_no_other_host():
    built = ROOT / "mkdocs.yml"
    assert "font: false" in built.read_text(encoding="utf-8")


def test_ci_and_makefile_are_sound_shell():
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
