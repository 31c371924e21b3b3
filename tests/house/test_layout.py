"""What must never appear in the tree, and what must."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Files whose content is text that people and machines read; the rest (weights, images) is not searched.
TEXT = {".py", ".toml", ".txt", ".md", ".yaml", ".yml", ".ipynb", ".html", ".js", ".css", ".json", ".cfg", ""}


def in_git() -> list[Path]:
    """The files that are in git or would be after `git add .`."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True, timeout=30,
        ).stdout.decode()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_platform_is_no_package_and_holds_no_loose_modules() -> None:
    """With an __init__.py it shadows the standard library's `platform`: Ray jobs then stay pending and pytest crashes."""
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert list((ROOT / "platform").glob("*.py")) == []


def test_platform_of_the_standard_library_survives_a_start_from_the_root() -> None:
    command = "import platform, linrep; assert platform.python_implementation(); print(linrep.__file__)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_no_file_names_a_home_a_registry_or_a_secret() -> None:
    """Paths of one person's machine, a package index, keys. Written in pieces, so that this file does not name them either."""
    never = {
        # /home/ray and /home/ubuntu are the users inside Ray's image and Amazon's.
        "a home folder": re.compile(r"/home/(?!ray\b|ubuntu\b)[a-z]\w*/|/U" + r"sers/[a-z]|/ro" + r"ot/|C:\\\\U" + "sers"),
        "a package index": re.compile(r"--(extra-)?index-" + r"url|--find-" + r"links[ =]/|file:/" + r"//"),
        "a key": re.compile(r"AK" + r"IA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIV" + r"ATE KEY|hf_[A-Za-z]{30,}|ghp_\w{30,}"),
    }
    found = []
    for path in in_git():
        if path.suffix not in TEXT or path.stat().st_size > 2_000_000:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        for what, pattern in never.items():
            found += [f"{path.relative_to(ROOT)}: {what}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_every_make_target_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)[1].split())  # type: ignore[index]
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    assert phony == explained == targets()


def test_readme_names_only_commands_that_exist() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("no README yet")
    text = readme.read_text()
    code = "\n".join(re.findall(r"```.*?\n(.*?)```", text, flags=re.DOTALL) + re.findall(r"`([^`\n]+)`", text))
    lines = re.findall(r"(?:^|[;&] *)make ([^#\n]*)", code, flags=re.MULTILINE)
    named = {word for line in lines for word in line.split() if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert named <= targets()
    paths = re.findall(r"\b((?:jobs|recipes|bench|deploy|docs)/[\w./-]+\.\w+)", code)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_changelog_has_this_version_or_is_ahead_of_it() -> None:
    changelog = ROOT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("no CHANGELOG yet")
    import linrep

    headings = [line for line in changelog.read_text().splitlines() if line.startswith("## ")]
    assert any("Unreleased" in line or linrep.__version__ in line for line in headings)
