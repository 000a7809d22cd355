"""A release can be cut from what is here, and the helpers of contributors name what CI runs."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import isthmus

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from cut_release import cut, main  # noqa: E402


def test_this_version_can_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("CHANGELOG.md", "CITATION.cff", "src/isthmus/core/version.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    main(tmp_path, isthmus.__version__, "2026-12-01")
    text = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## Unreleased\n\n## {isthmus.__version__} - 2026-12-01\n" in text
    assert f"git tag -a v{isthmus.__version__}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="has a section"):
        main(tmp_path, isthmus.__version__, "2026-12-02")


@pytest.mark.parametrize(
    ("version", "date", "match"), [("9.9.9", "2026-12-01", "does not say"), ("", "soon", "expected one such as")]
)
def test_a_wrong_version_or_date_is_refused(version: str, date: str, match: str):
    with pytest.raises(SystemExit, match=match):
        main(ROOT, version or isthmus.__version__, date)


def test_nothing_is_no_release():
    with pytest.raises(SystemExit, match="nothing under"):
        cut("# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-01-01\n\n- x\n", "0.2.0", "2026-12-01")


def test_one_version_of_the_linter():
    wanted = re.search(r'"ruff==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert wanted
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    pinned = (ROOT / "constraints" / "figures.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==([\d.]+)", hooks + pinned)) == {wanted[1]}


def test_the_figures_are_pinned_with_the_torch_of_the_tests():
    (torch,) = re.findall(r"^torch==\S+", (ROOT / "constraints" / "cpu.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert torch in (ROOT / "constraints" / "figures.txt").read_text(encoding="utf-8").splitlines()


def test_the_forge_runs_what_ci_runs_on_every_python():
    import yaml

    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["checks"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert {"run": ".ci/run"} in jobs["checks"]["steps"]
    resolutions = {one["resolution"] for one in jobs["dependencies"]["strategy"]["matrix"]["include"]}
    assert resolutions == {"lowest-direct", "highest"}
    each = {one["resolution"] for one in jobs["extras"]["strategy"]["matrix"]["include"]}
    assert each == resolutions
    assert set(jobs) == {"checks", "dependencies", "wheel", "extras", "slow"}
