"""Compiling the operators: which library belongs to this Paddle and these sources, and making it.

The sources in src/ are compiled by the system's C++ compiler with the settings that
paddle.utils.cpp_extension gives, into a folder of the user's cache. Nothing is downloaded.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, List, Sequence

import paddle

__all__ = [
    "BuildError",
    "build",
    "cache_folder",
    "compiler_name",
    "has_onednn",
    "kept_library",
    "library_path",
    "output_of",
]

SOURCES = Path(__file__).with_name("src")
LIBRARY, NOTE = "operators.so", "build.json"
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-fopenmp", "-w")
OPENMP, ONEDNN = "libiomp5.so", "libdnnl.so.3"  # of Paddle's own libraries
SHOWN_LINES = 20  # of a compiler's last words
MINUTES = 10


class BuildError(RuntimeError):
    """Why the operators could not be compiled, in words for the user."""


def cache_folder() -> Path:
    """Where compiled operators are: $PPCLS_NEXTVIT_OPS, by default in the user's cache."""
    given = os.environ.get("PPCLS_NEXTVIT_OPS")
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "ppcls_nextvit" / "ops"


@functools.cache
def _key() -> str:
    """One for each Paddle, Python, kind of machine, and text of the sources and settings."""
    digest = hashlib.sha256()
    version = (paddle.version.full_version, paddle.version.commit)
    for text in (*version, sys.implementation.cache_tag, platform.machine(), *FLAGS):
        digest.update(str(text).encode() + b"\0")
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def library_path() -> Path:
    """The library of this Paddle and these sources, whether it is there or not."""
    return cache_folder() / _key() / LIBRARY


@functools.cache
def has_onednn() -> bool:
    """Whether this Paddle brings oneDNN as a library, and the operators the convolution."""
    return (Path(paddle.sysconfig.get_lib()) / ONEDNN).is_file()


def compiler_name() -> str:
    """The C++ compiler: $CXX, c++ or g++. BuildError if there is none.

    Not clang++: its OpenMP would be a second one beside Paddle's, with threads of its own.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++"]
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise BuildError(f"no C++ compiler ({', '.join(names)}) is there; install g++ 10 or later")


def build(force: bool = False) -> bool:
    """Compile the operators unless they are there, by this compiler, already; whether it compiled.

    BuildError says why it could not.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError(f"the operators are for Linux; this is {sys.platform}")
    compiler = compiler_name()
    version = output_of([compiler, "--version"]).partition("\n")[0]
    return kept_library(library_path(), version, force, lambda folder: _compile(compiler, folder))


def kept_library(path: Path, version: str, force: bool, make: Callable[[Path], Path]) -> bool:
    """Have `make` write a library into the folder that it is given and keep it as `path`, unless it
    is there, by the compiler of this `version`, already; whether it was made.

    BuildError for a folder that cannot be written.
    """
    if not force and path.is_file() and _built_by(path) == version:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # in the same folder, so that the library can be renamed: another process sees all or none
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = make(Path(folder))
            note = made.with_name(NOTE)
            note.write_text(json.dumps({"compiler": version}), encoding="utf-8")
            made.replace(path)
            note.replace(path.with_name(NOTE))
    except OSError as error:
        raise BuildError(
            f"{path.parent}: {error.strerror}; name a folder in PPCLS_NEXTVIT_OPS"
        ) from None
    return True


def _built_by(path: Path) -> str:
    """The compiler that a library's note names; "" without a readable one."""
    try:
        note = json.loads(path.with_name(NOTE).read_text(encoding="utf-8"))
        return str(note["compiler"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _compile(compiler: str, folder: Path) -> Path:
    """Compile the sources, side by side, and link them into a library in `folder`."""
    from paddle.utils.cpp_extension import CppExtension  # brings setuptools along

    folders = (SOURCES, SOURCES / "onednn") if has_onednn() else (SOURCES,)
    found = sorted(path for folder in folders for path in folder.iterdir())
    sources = [path for path in found if path.suffix in (".cpp", ".cc")]
    paddles = CppExtension(sources=[str(path) for path in sources])
    includes = [f"-I{place}" for place in (SOURCES, *paddles.include_dirs)]

    def compiled(source: Path) -> str:
        made = str(folder / f"{source.name}.o")
        settings = [*paddles.extra_compile_args, *FLAGS, *includes]
        output_of([compiler, *settings, "-c", str(source), "-o", made])
        return made

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / LIBRARY
    places = [f"-L{place}" for place in paddles.library_dirs]
    places += [f"-Wl,-rpath,{place}" for place in paddles.runtime_library_dirs]
    threads = _threads_library(paddles.library_dirs)
    onednn = [f"-l:{ONEDNN}"] if has_onednn() else []
    output_of(
        [compiler, "-shared", *objects, "-o", str(library), *places, threads, *onednn]
        + list(paddles.extra_link_args)
    )
    return library


def _threads_library(folders: Sequence[str]) -> str:
    """The OpenMP to link: the one that Paddle's own products use, so that their threads and ours
    are the same.
    """
    if any((Path(folder) / OPENMP).is_file() for folder in folders):
        return f"-l:{OPENMP}"
    return "-lgomp"


def output_of(command: List[str], minutes: int = MINUTES) -> str:
    """What a command prints. BuildError with its last lines if it fails."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=minutes * 60,
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took more than {minutes} minutes") from None
    except OSError as error:
        raise BuildError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        lines = done.stdout.splitlines()[-SHOWN_LINES:]
        ended = f"{command[0]} ended with status {done.returncode}"
        raise BuildError("\n".join([f"{ended}; its last lines:", *lines]))
    return done.stdout
