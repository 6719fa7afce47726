"""Builds _yardstick.pyx into build/ when it is older than its source, and imports it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).with_name("_yardstick.pyx")
BUILD = Path(__file__).parent.parent / "build" / "yardstick"


def _build() -> Path:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    # The stem of the file must be the module's name: that is what its init function is called.
    suffix = f".{sys.implementation.cache_tag}.so"
    built = BUILD / f"_yardstick{suffix}"
    if built.exists() and built.stat().st_mtime > SOURCE.stat().st_mtime:
        return built
    extension = Extension("_yardstick", [str(SOURCE)], extra_compile_args=["-O3", "-std=gnu11"])
    made = cythonize([extension], build_dir=str(BUILD), quiet=True)
    command = Distribution({"name": "yardstick", "ext_modules": made}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(BUILD)
    command.ensure_finalized()
    command.run()
    Path(command.get_ext_fullpath("_yardstick")).replace(built)
    return built


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_yardstick", _build())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_native = _load()
copy_list = _native.copy_list
make_bytes = _native.make_bytes
read_sum = _native.read_sum
Baton = _native.Baton
