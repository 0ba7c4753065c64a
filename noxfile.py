"""Development tasks, each in a separate environment.

Needs Python 3.11 or later, pip and nox. ``nox -l`` lists the sessions; ``nox`` runs the tests.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import nox
from packaging.requirements import Requirement
from packaging.version import Version

nox.needs_version = ">=2026.4"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests"]

INTEROP = Path("tests/interop")
NEWEST = (
    "aioice",
    "aiortc",
    "anyio",
    "av",
    "h11",
    "hypercorn[trio]",
    "starlette",
    "trio",
    "wsproto",
)
REAL_TIME = (
    "tests/cli",
    "tests/cluster/real_time",
    "tests/examples",
    "tests/parity/real_time",
    "tests/server",
    "tests/speech/real_time",
    "tests/webrtc",
)
"""Real servers, processes and calls. All other tests are on virtual time."""
CALLS = ("tests/parity/real_time", "tests/server/test_calls.py", "tests/webrtc")
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "", "OPENBLAS_NUM_THREADS": "1"}
"""Many tests start processes: keep their compiled modules, and start no threads for numpy."""
PROJECT = nox.project.load_toml("pyproject.toml")["project"]
LOWEST_PYTHON = PROJECT["requires-python"].removeprefix(">=")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo, with the arguments after --."""
    session.install(".[demo]")
    session.run("python", "-m", "fastrtc_anyio", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests in parallel, except those that pyproject.toml leaves out; or with arguments."""
    # Compiling all modules takes longer than compiling those that are imported.
    session.install("--no-compile", ".[test]")
    run_tests(session)


@nox.session(python=LOWEST_PYTHON)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions of Python and all dependencies that are allowed."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(lowest_versions()))
    session.install("--no-compile", ".[test]", "--constraint", str(constraints))
    session.run("python", "-m", "pip", "list")
    run_tests(session)


def run_tests(session: nox.Session) -> None:
    if session.posargs:
        session.run("pytest", *session.posargs, env=ENVIRONMENT)
        return
    # Tests on virtual time are limited by the processor. Tests in real time mostly wait, but fail
    # when they have to wait long for the processor: five at a time on two cores.
    virtual = [f"--ignore={path}" for path in REAL_TIME]
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *virtual, env=ENVIRONMENT)
    session.run("pytest", "-n", "5", "--dist", "worksteal", *REAL_TIME, env=ENVIRONMENT)


@nox.session
def stock(session: nox.Session) -> None:
    """Run the tests of calls with the media paths of aiortc, which replace missing faster ones."""
    session.install("--no-compile", ".[test]")
    environment = {**ENVIRONMENT, "FASTRTC_ANYIO_FAST_PATH": "0"}
    arguments = session.posargs or ("-n", "5", "--dist", "worksteal", *CALLS)
    session.run("pytest", *arguments, env=environment)


@nox.session
def attacks(session: nox.Session) -> None:
    """Attack live calls and servers, at the end one test at a time: these measure gaps in calls."""
    session.install("--no-compile", ".[test]")
    if session.posargs:
        session.run("pytest", *session.posargs, env=ENVIRONMENT)
        return
    several = ("-n", "3", "--dist", "worksteal", "-m", "not alone")
    session.run("pytest", "tests/attacks", *several, env=ENVIRONMENT)
    session.run("pytest", "tests/attacks", "-m", "alone", env=ENVIRONMENT)


@nox.session
def cluster(session: nox.Session) -> None:
    """Serve calls in several processes, which are killed and replaced."""
    session.install("--no-compile", ".[ray,test]")
    if session.posargs:
        session.run("pytest", *session.posargs, env=ENVIRONMENT)
        return
    several = ("-n", "2", "--dist", "worksteal")
    session.run("pytest", *several, "tests/workers", env=ENVIRONMENT)
    session.run("pytest", "tests/ray", env=ENVIRONMENT)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz every target for a minute, or with the arguments after --: -- --seconds 600 offers."""
    session.install(".[test,fuzz]")
    session.run("python", "-m", "tests.fuzz", *session.posargs, env=ENVIRONMENT)


@nox.session
def soak(session: nox.Session) -> None:
    """Soak a server for an hour, or with the arguments after --: -- --minutes 2 --backend trio."""
    session.install("--no-compile", ".[test]")
    session.run("python", "-m", "tests.soak", *session.posargs, env=ENVIRONMENT)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with FastRTC and aiortc, with the arguments after --: -- echo --calls 10 20."""
    session.install(".[bench,test]")
    other = Path(session.create_tmp()) / "fastrtc"
    python = other / "bin" / "python"
    if not python.exists():
        # It is in nox's environment, which may not be on PATH.
        session.run(sys.executable, "-m", "virtualenv", str(other), external=True)
    install = (str(python), "-m", "pip", "install", "--quiet")
    session.run(*install, "-r", "benchmarks/fastrtc.txt", external=True)
    # Its wheel contains the version of Silero's model that FastRTC would download.
    session.run(*install, "--no-deps", "faster-whisper==1.0.2", external=True)
    session.run("python", "-m", "benchmarks", "--fastrtc", str(python), *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """Test the WebRTC shim and the server with the newest versions of their libraries.

    The session ignores this package's upper bounds and respects those of the libraries.
    """
    session.install(".[test]")
    # pip does not check the requirements of packages that are already installed.
    session.install("--upgrade", *NEWEST)
    session.run("python", "-m", "pip", "list")
    session.run("pytest", *(session.posargs or ("-n", "2", "tests/webrtc", "tests/server")))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in build/docs, with warnings as errors; -- external checks links to others."""
    session.install("--no-compile", ".[docs]")
    # The pages name modules of the checkout, whose documentation is that of the checkout.
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path.cwd())}
    build = ("sphinx-build", "-W", "--keep-going", "-n", "-E", "docs")
    session.run(*build, "build/docs", env=environment)
    if "external" in session.posargs:
        session.run(*build, "-b", "linkcheck", "build/links", env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff, and the layers with import-linter."""
    session.install(pinned("ruff"), pinned("import-linter"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types with mypy (strict) and pyright, and that all public names declare theirs."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    python = ("--pythonpath", str(Path(session.bin) / "python"))
    session.run("pyright", *python)
    # Every public symbol has a declared type: another type checker infers none differently.
    session.run("pyright", *python, "--verifytypes", "fastrtc_anyio", "--ignoreexternal")


@nox.session
def interop(session: nox.Session) -> None:
    """Place calls with browsers and other foreign peers; a missing peer fails."""
    # imageio-ffmpeg ships ffmpeg 9; WHIP needs ffmpeg 8, and Debian 12 has ffmpeg 5.
    session.install(".[test]", "imageio-ffmpeg>=0.8")
    if (INTEROP / "package.json").exists():
        session.run("npm", "--prefix", str(INTEROP), "ci", "--no-audit", "--no-fund", external=True)
    # One browser test at a time, beside one test of another kind: tests/interop/conftest.py.
    session.run("pytest", str(INTEROP), *(session.posargs or ("-n", "2", "--dist", "loadgroup")))


def pinned(name: str) -> str:
    """The requirement of one tool in the dev extra, without the rest of that extra."""
    requirements: list[str] = PROJECT["optional-dependencies"]["dev"]
    return next(line for line in requirements if line.startswith(f"{name}=="))


def lowest_versions() -> list[str]:
    """Constraints to the lower bounds of all dependencies and extras; dev and ray excepted.

    ``ray`` needs a newer anyio than the rest, and is not part of ``test``.
    """
    lines: dict[str, list[str]] = PROJECT["optional-dependencies"]
    extras = chain.from_iterable(
        found for name, found in lines.items() if name not in ("dev", "ray")
    )
    found: dict[str, Version] = {}
    for line in [*PROJECT["dependencies"], *extras]:
        requirement = Requirement(line)
        for bound in requirement.specifier:
            if bound.operator in (">=", "=="):
                version = Version(bound.version)
                found[requirement.name] = max(version, found.get(requirement.name, version))
    return [f"{name}=={version}" for name, version in sorted(found.items())]
