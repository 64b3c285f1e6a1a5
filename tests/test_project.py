# SPDX-License-Identifier: BSD-2-Clause
"""The project's own rules: import directions, licence lines, file sizes, packaging, the stamp, set-up's package list.

Reads the checkout and the installed packages; knows nothing of SCSI.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import vscsi

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("vscsi", "target", "initiator")
CODE = {".py", ".c", ".h", ".sh"}
MAX_LINES = 420

_spec = importlib.util.spec_from_file_location("imports", ROOT / "scripts" / "imports.py")
assert _spec and _spec.loader
imports = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(imports)


def files() -> Iterator[Path]:
    """Every file of the checkout that a person wrote: what is built, installed or cached lies in folders with a dot."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            f for f in folders if (not f.startswith(".") or f == ".ci") and f not in {"__pycache__", "build", "dist"}
        )
        folders[:] = [f for f in folders if not f.endswith(".egg-info")]
        for name in sorted(names):
            yield Path(folder) / name


def code() -> Iterator[Path]:
    """Files that are code: by suffix, or by having a #! line."""
    for path in files():
        if path.suffix in CODE or path.name in {"Makefile", "run", "packages.txt", "pyproject.toml"}:
            yield path


# ---- imports ----


def test_imports_go_one_way() -> None:
    wrong = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            wrong += imports.check(path.relative_to(ROOT).as_posix(), path.read_text())
    assert wrong == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("target/x.py", "import initiator.hba"),
        ("initiator/x.py", "def f():\n    from target.lu import LogicalUnit"),
        ("vscsi/x.py", "import target"),
        ("vscsi/x.py", "from initiator import Initiator"),
        ("vscsi/bus/x.py", "import tests.helper"),
        ("vscsi/bus/x.py", "import cffi"),
        ("target/x.py", "from rich.table import Table"),
        ("vscsi/srp.py", "import time"),
        ("target/commands/spc.py", "from threading import Lock"),
    ],
)
def test_wrong_import_is_found(path: str, source: str) -> None:
    assert imports.check(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("target/x.py", "from vscsi.scsi import cdb"),
        ("initiator/x.py", "def f():\n    import rich"),
        ("initiator/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pyscsi"),
        ("vscsi/native/build.py", "import cffi"),
    ],
)
def test_right_import_is_left_alone(path: str, source: str) -> None:
    assert imports.check(path, source) == []


def test_compiler_and_heavy_modules_are_not_loaded() -> None:
    program = (
        "import sys, vscsi.native, target.native, initiator.native\n"
        "print(*sorted({'cffi.api', 'cffi.cparser', 'pycparser', 'rich', 'pyscsi', 'setuptools'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == ""


# ---- files ----


def test_every_file_has_one_licence_line_at_its_head() -> None:
    # Only the marker as a whole, so that this file does not count its own search for it.
    marker = "SPDX-License-" + "Identifier: BSD-2-Clause"
    wrong = []
    for path in code():
        lines = path.read_text().splitlines()
        found = [number for number, line in enumerate(lines) if marker in line]
        if len(found) != 1 or found[0] > 1:
            wrong.append(str(path.relative_to(ROOT)))
    assert wrong == []


def test_no_file_is_too_long() -> None:
    long = {str(p.relative_to(ROOT)): n for p in code() if (n := len(p.read_text().splitlines())) > MAX_LINES}
    assert long == {}


def test_git_does_not_ignore_our_folders(tmp_path: Path) -> None:
    """`target/` stands in many a .gitignore for build output: ours must name that of this project only."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, env=env)
    ours = [str(path.relative_to(ROOT)) for path in files() if path.suffix != ".pyc"]
    assert "target/native/target.h" in ours
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"], input="\n".join(ours), capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.stdout.splitlines() == []
    built = ["vscsi/_native.abi3.so", ".venv/x", "build/x", "vscsi.egg-info/PKG-INFO", "target/__pycache__/lu.pyc"]
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"],
        input="\n".join(built),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
    )
    assert done.stdout.splitlines() == built


# ---- packaging ----


def project_facts() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def test_packages_of_pyproject_are_the_folders() -> None:
    named = project_facts()["tool"]["setuptools"]["packages"]  # type: ignore[index]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for pattern in ("*.py", "*.c", "*.h")
        for path in (ROOT / package).rglob(pattern)
    }
    assert sorted(named) == sorted(folders)
    for name in named:
        assert (ROOT / name.replace(".", "/") / "__init__.py").exists(), name


def test_entry_points_are_installed_and_exist() -> None:
    scripts = project_facts()["project"]["scripts"]  # type: ignore[index]
    assert set(scripts) == {"vscsi-target", "vscsi-admin", "vscsi-initiator"}
    for name, where in scripts.items():
        program = Path(sys.executable).parent / name
        assert os.access(program, os.X_OK), f"{program} is missing; run 'make setup'"
        done = subprocess.run([program, "--version"], capture_output=True, text=True, cwd="/", check=False)
        assert (done.returncode, vscsi.__version__ in done.stdout) == (0, True), f"{where}: {done.stderr}"


def test_version_stands_once() -> None:
    assert vscsi.__version__ == project_facts()["project"]["version"]  # type: ignore[index]


def test_stale_binary_is_refused(tmp_path: Path) -> None:
    """A binary built from other C sources than those beside it must not load, and must say what to do."""
    assert vscsi.__file__
    installed = Path(vscsi.__file__).parents[1]
    assert installed != ROOT, "set-up installs; the tests must not run from the checkout's folders"
    for package in PACKAGES:
        shutil.copytree(installed / package, tmp_path / package)
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    program = "import vscsi.native, target.native, initiator.native; print(vscsi.__file__)"

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", env=env, check=False)

    fresh = run()
    assert (fresh.returncode, fresh.stderr) == (0, "")
    assert fresh.stdout.startswith(str(tmp_path))
    header = tmp_path / "target" / "native" / "target.h"
    header.write_text(header.read_text() + "\n/* one word more */\n")
    stale = run()
    assert stale.returncode == 1
    last = stale.stderr.splitlines()[-1]
    assert last.startswith("ImportError: vscsi._native was built from other C sources")
    assert "make setup" in last


def test_installed_code_is_this_checkout() -> None:
    """Tests of yesterday's installation prove nothing about today's files."""
    assert vscsi.__file__
    installed = Path(vscsi.__file__).parents[1]
    for package in PACKAGES:
        for pattern in ("*.py", "*.c", "*.h"):
            for path in (ROOT / package).rglob(pattern):
                copy = installed / path.relative_to(ROOT)
                assert copy.exists(), f"{copy} is missing; run 'make setup'"
                assert copy.read_bytes() == path.read_bytes(), (
                    f"{path} changed since it was installed; run 'make setup'"
                )


# ---- Debian packages ----


def package_rows() -> list[tuple[str, str, set[str], str]]:
    rows = []
    for line in (ROOT / "scripts" / "packages.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            package, need, commands, why = line.split(None, 3)
            rows.append((package, need, set(commands.split(",")) - {"-"}, why))
    return rows


# In every Debian container: essential packages, and what runs the tests.
EVERYWHERE = {"sh", "cat", "cp", "dd", "ls", "sleep", "true", "false", "kill", "sha256sum", "env", "timeout", "make"}


def called_commands(source: str) -> Iterator[str]:
    """Names of programs that a Python file runs or looks for: shutil.which("x"), and lists given to subprocess."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func).rsplit(".", 1)[-1]
        first = node.args[0]
        if name in {"run", "Popen", "check_call", "check_output", "call"} and isinstance(first, ast.List | ast.Tuple):
            first = first.elts[0] if first.elts else first
        elif name != "which":
            continue
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def test_every_program_the_tests_call_is_in_the_package_list() -> None:
    rows = package_rows()
    assert {need for _, need, _, _ in rows} == {"build", "test", "fuzz", "peers"}
    known = EVERYWHERE.union(*(commands for _, _, commands, _ in rows))
    sources = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "bench").rglob("*.py")]
    unknown = {
        f"{path.relative_to(ROOT)}: {command}"
        for path in sources
        for command in called_commands(path.read_text())
        if command not in known and not command.startswith("vscsi-")
    }
    assert unknown == set()


def test_programs_called_are_seen() -> None:
    source = "shutil.which('mkfs.ext4')\nsubprocess.run(['sg_inq', x])\nrun([sys.executable])\n"
    assert list(called_commands(source)) == ["mkfs.ext4", "sg_inq"]


# ---- documents ----


def test_documents_name_files_that_exist() -> None:
    """What a document names in backticks and looks like a path of the checkout is one; links lead somewhere."""
    folders = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir())
    missing = []
    for document in ROOT.glob("*.md"):
        words = document.read_text()
        named = re.findall(rf"`((?:{folders})/[\w./*-]*)`", words) + re.findall(r"\]\(([\w./-]+)\)", words)
        missing += [f"{document.name}: {name}" for name in named if not list(ROOT.glob(name.rstrip("/")))]
        assert named or document.name == "CHANGELOG.md", f"{document.name} names no file: is the pattern right?"
    assert missing == []
