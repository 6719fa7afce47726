"""What is shipped: a wheel of Python files and the extension, an sdist without generated C."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import pylog

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build("--sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("--wheel", tmp_path_factory.mktemp("wheel"))


def test_version_is_told_once():
    assert pylog.__version__ == PROJECT["version"]


def test_runtime_needs_numpy_and_lz4_only():
    assert [need.partition(">")[0] for need in PROJECT["dependencies"]] == ["numpy", "lz4"]


def test_sdist_holds_all_sources_and_no_generated_c(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder, patterns in {"csrc": ["*.c", "*.h"], "pylog": ["*.py*", "py.typed"]}.items()
        for pattern in patterns for path in (ROOT / folder).rglob(pattern)
        if path.suffix != ".so" and path.parent.name != "__pycache__" and path.is_file()
    }

    assert sources <= names
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= names
    generated = [
        name for name in names
        if name.endswith((".so", ".o", ".pyc"))
        or (name.endswith(".c") and not name.startswith(("csrc/", "tests/c/")))
    ]
    assert generated == []


def test_wheel_holds_python_files_stubs_and_the_extension(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]

    assert {"pylog/errors.py", "pylog/py.typed", "pylog/_native.pyi"} <= set(names)
    assert len([name for name in names if name.endswith(".so")]) == 1
    assert len(licences) == 1
    for name in names:
        assert name.startswith("pylog/"), name
        assert name.endswith((".py", ".pyi", "py.typed", ".so")), name


def build(kind, folder):
    """Builds with the tools of this environment; objects that are up to date are used again."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", kind, "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True, text=True, timeout=250,
    )
    (archive,) = folder.iterdir()
    return archive
