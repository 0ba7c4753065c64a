"""Names, files, commands, links, numbers and docstring examples of the documentation exist."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import keyword
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import takewhile
from typing import Any

import pytest

from fastrtc_anyio import (
    AlgoOptions,
    CloseReason,
    Limits,
    ReplyOnPause,
    RequestLimits,
    Session,
    Stream,
)
from fastrtc_anyio._cli.main import _make_parser
from fastrtc_anyio._peers.streams.audio import BufferOptions
from fastrtc_anyio.handlers import AudioVideoStreamHandler
from fastrtc_anyio.testing.call import Call
from tests.kit.documentation import (
    HISTORY,
    PAGES,
    ROOT,
    all_blocks,
    anchors,
    inline_code,
    links,
    prose,
    read,
)
from tests.kit.log_events import event_names
from tests.kit.observing import metric_families, refusal_reasons

from .test_troubleshooting import messages

PACKAGE = ROOT / "fastrtc_anyio"
LIVING = [page for page in PAGES if page != HISTORY]
PUBLIC = [
    importlib.import_module(f"fastrtc_anyio{name}")
    for name in (
        "",
        ".abc",
        ".cluster",
        ".handlers",
        ".server",
        ".speech",
        ".testing",
        ".testing.strategies",
        ".transport",
    )
]
OBJECTS = {
    "call": Call,
    "handler": AudioVideoStreamHandler,
    "self": AudioVideoStreamHandler,
    "session": Session,
    "stream": Stream,
}
"""Classes of the variables in code spans."""
FOREIGN = """
    AV1 Ada ERROR POST Upgrade Forwarded Hello Ma Prefix Proto allow auto autoplay cert_file cookies
    proxy_read_timeout coroutine_function eth0 iframe key_file receive_ temperature
    run_coroutine_threadsafe transcript websockets get_ _turn_credentials utils stream_auth_token
    stream_bidirectional_codec stream_bidirectional_mode stream_bidirectional_sampling_rate
    tool tool_calls
    TimeoutStopSec docker graceful_timeout hypercorn shutdown_timeout stop_grace_period
    terminationGracePeriodSeconds uvicorn CacheDirectory HF_HOME models var
    Caddyfile ClientIP Dockerfile caddy conf ip_hash keepalive lb_policy nginx sessionAffinity
    stream_close_delay systemctl systemd upstream worker_connections
    CheckboxGroup HTML Image TextArea pause_detection reply_on_pause
    reply_on_stopwords speech_to_text text_to_speech
    autoscaling_config crc32 enableInTreeAutoscaling kubectl preStop runtime_env zlib
    prometheus_client REGISTRY _created disable_created_metrics start_http_server
    MALLOC_ARENA_MAX MALLOC_TOP_PAD_ MALLOC_TRIM_THRESHOLD_ PYTHONMALLOC _debugmallocstats fordblks
    garbage get_objects hblkhd mallinfo2 malloc malloc_trim tracemalloc uordblks
    RAY_AUTH_MODE get_actor health_check_timeout_s working_dir yaml
"""
"""Words in code spans that belong to other projects, to protocols or to an example."""
QUOTED = frozenset(messages())
CONFIGURATIONS = ("dockerfile", "ini", "nginx", "yaml")
FILE = re.compile(r"(?:[\w.]+/)+[\w.]*|\w+\.(?:py|md|toml)")
COMMAND = re.compile(
    r"(?:\.venv/bin/)?(?:pip|nox|python|lint-imports|apt|ssh?|ip|ulimit|\.ci/run)\b"
)
NOT_IN_CHECKOUT = ("application/", "build/", "moonshine/", "file.py", "echo.wav")


def living_code() -> Iterator[tuple[str, str]]:
    """Every code span, with its page, except commands and files."""
    for page in LIVING:
        for span in inline_code(page):
            if not COMMAND.match(span) and not is_file(span):
                yield page, span


def is_file(span: str) -> bool:
    return FILE.fullmatch(span) is not None and not span.startswith(NOT_IN_CHECKOUT)


@cache
def known_names() -> frozenset[str]:
    """Identifiers and modules of the package, and words of its strings other than docstrings."""
    names: set[str] = set(keyword.kwlist)
    for path in [*PACKAGE.rglob("*.py"), ROOT / "noxfile.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names.add(path.stem)
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                text = node.value if id(node) not in docstrings else ""
                names |= set(re.findall(r"[A-Za-z_]\w*", text if isinstance(text, str) else ""))
            for attribute in ("id", "attr", "arg", "name"):
                found = getattr(node, attribute, None)
                names |= set(found.split(".")) if isinstance(found, str) else set()
    return frozenset(names)


@pytest.mark.parametrize("page", LIVING)
def test_names_in_code_spans_exist(page: str) -> None:
    # tests/api/test_security.py checks names of tests.
    spans = [
        span
        for where, span in living_code()
        if where == page and span[:2] != "--" and "::" not in span and span not in QUOTED
    ]
    unknown = {
        word: span
        for span in spans
        for word in re.findall(r"(?<![\w.])[A-Za-z_]\w*|(?<=\.)[A-Za-z_]\w*", span)
        if word not in known_names().union(FOREIGN.split(), own_names(page), reported_names())
    }
    assert unknown == {}


@cache
def reported_names() -> frozenset[str]:
    """Names of metrics and reasons, which the code composes."""
    return frozenset(metric_families()) | refusal_reasons()


@cache
def own_names(page: str) -> frozenset[str]:
    """Names that the page's own code and configurations use."""
    own = [block for block in all_blocks() if block.page == page]
    code = [block.program for block in own if block.language in ("python", "diff")]
    code += [block.text for block in own if block.language in CONFIGURATIONS]
    return frozenset(re.findall(r"[A-Za-z_]\w*", "\n".join(code)))


def own_programs(page: str) -> set[str]:
    """Programs that the page shows and runs, such as echo.py."""
    blocks = [block for block in all_blocks() if block.page == page]
    run = "\n".join(block.text for block in blocks if block.language in ("sh", "yaml"))
    scripts = re.findall(r"^python (\w+\.py)", run, re.MULTILINE)
    return {*scripts, *(f"{module}.py" for module in re.findall(r"\b(\w+):app\b", run))}


def test_foreign_names_are_used() -> None:
    spans = " ".join(span for _, span in living_code())
    assert [name for name in FOREIGN.split() if name not in spans] == []


def members(cls: type[Any]) -> set[str]:
    """Names of methods, properties and attributes, those assigned in methods too."""
    assigned = {
        name
        for base in cls.__mro__[:-1]
        if base.__module__.startswith("fastrtc_anyio")
        for name in re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(base))
    }
    annotated = {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
    return set(dir(cls)) | assigned | annotated


@pytest.mark.parametrize(("variable", "cls"), OBJECTS.items())
def test_attributes_in_code_spans_exist(variable: str, cls: type[Any]) -> None:
    used = {
        name
        for _, span in living_code()
        if span not in event_names()
        for name in re.findall(rf"(?<![\w.]){variable}\.(\w+)", span)
    }
    assert used
    assert used - members(cls) == set()


def find_public(name: str) -> Any:
    found = (getattr(module, name, None) for module in PUBLIC)
    return next((value for value in found if callable(value)), None)


def test_arguments_in_code_spans_exist() -> None:
    """Keywords of calls such as ``Stream(live=True)``, and options such as ``Limits.idle``."""
    checked = 0
    for page, span in living_code():
        for call in calls_in(span):
            function = find_public(getattr(call.func, "id", ""))
            if function is None or (inspect.isclass(function) and issubclass(function, Exception)):
                continue
            function = function.__init__ if inspect.isclass(function) else function
            parameters = inspect.signature(function).parameters
            if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                continue
            wrong = [word.arg for word in call.keywords if word.arg and word.arg not in parameters]
            assert wrong == [], (page, span)
            checked += len(call.keywords)
        for name, attribute in re.findall(r"(?<![\w.])([A-Z]\w+)\.(\w+)", span):
            owner = find_public(name)
            # The page about FastRTC also names what only FastRTC has.
            if inspect.isclass(owner) and page != "docs/guides/migrating_from_fastrtc.md":
                assert attribute in members(owner), (page, span)
                checked += 1
    assert checked > 30


def calls_in(span: str) -> list[ast.Call]:
    """The calls of a span that is an expression; a leading ``...`` stands for other arguments."""
    try:
        tree = ast.parse(re.sub(r"\.\.\.(?=, \w+=)|, \.\.\.(?=\))", "", span).replace("(, ", "("))
    except SyntaxError:
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("page", LIVING)
def test_files_in_code_spans_exist(page: str) -> None:
    """Paths are relative to the checkout, the package or its server."""
    named = [span for span in inline_code(page) if is_file(span) and span not in own_programs(page)]
    folders = (ROOT, PACKAGE)
    missing = [name for name in named if not any((folder / name).exists() for folder in folders)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    folder = (ROOT / page).parent
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (folder / name).resolve() if name else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), link


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of the documentation, in code spans and blocks, as a list of words."""
    for page in LIVING:
        for span in inline_code(page):
            if COMMAND.match(span):
                yield page, shlex.split(span)
    for block in all_blocks():
        if block.language == "sh":
            for line in block.text.splitlines():
                for command in line.split("&&"):
                    words = shlex.split(command, comments=True)
                    settings = takewhile(re.compile(r"[A-Z_]+=").match, words)
                    yield str(block), words[len(list(settings)) :]


@pytest.mark.parametrize(
    ("page", "words"), [pytest.param(*found, id=" ".join(found[1])) for found in commands()]
)
def test_commands_exist(page: str, words: list[str]) -> None:
    """Sessions of nox, extras of pip, modules, scripts and their options."""
    match words[0].removeprefix(".venv/bin/"), words[1:]:
        case "nox", ["-s", *names]:
            names = names[: names.index("--")] if "--" in names else names
            assert set(names) <= nox_sessions()
        case "pip", ["install", *requirements]:
            for requirement in requirements:
                check_requirement(requirement)
        case (("python" | "python3"), ["-m", "venv", _]):
            pass
        case "python", ["-m", "fastrtc_anyio", *arguments]:
            _make_parser().parse_args(["http://x" if word == "URL" else word for word in arguments])
        case "python", ["-m", module, *_]:
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
        case "python", [script] if script in own_programs(page.partition(":")[0]):
            pass  # tests/interop/test_programs.py runs it
        case "python", [script, *options]:
            code = (ROOT / script).read_text(encoding="utf-8")
            assert [word for word in options if word.startswith("--") and word not in code] == []
        case (("ffmpeg" | "apt" | "lint-imports" | ".ci/run" | "cloudflared" | "export"), _):
            pass
        case (("docker" | "ip" | "ss" | "ssh" | "ulimit"), _):
            pass
        case (("ray" | "serve"), _):
            pass
        case (("uvicorn" | "hypercorn"), [*_, "app:app"] | ["app:app", *_]):
            pass  # tests/interop/test_programs.py runs them
        case _:
            pytest.fail(f"{page}: no check for the command {' '.join(words)}")


@cache
def nox_sessions() -> set[str]:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


@cache
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return found


def check_requirement(requirement: str) -> None:
    """Check an extra of this package, or that another package is one that the tests use."""
    name, _, extras = requirement.rstrip("]").partition("[")
    optional: dict[str, list[str]] = project()["optional-dependencies"]
    if name in (".", project()["name"]):
        assert {*filter(None, extras.split(","))} <= optional.keys()
    else:
        wanted = {re.split(r"[\[>=<]", line)[0] for lines in optional.values() for line in lines}
        assert name in wanted


def test_flags_in_code_spans_exist() -> None:
    """Long options that stand alone belong to the command line, an example, or a shown command."""
    known = set(options_of(_make_parser()))
    for path in (ROOT / "examples").glob("*.py"):
        known |= set(re.findall(r'"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    for block in all_blocks():
        known |= set(re.findall(r"--[\w-]+", block.text)) if block.language == "sh" else set()
    used = {flag for _, span in living_code() for flag in re.findall(r"^(--[\w-]+)", span)}
    assert used
    assert used - {"--"} <= known


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


def text_of(page: str) -> str:
    return " ".join(prose(read(page)).split())


@pytest.mark.parametrize("settings", [Limits(), RequestLimits()])
def test_every_limit_is_listed_with_its_default(settings: Limits | RequestLimits) -> None:
    text = text_of("docs/guides/limits.md").replace("_", "")
    for field in fields(settings):
        assert f"{field.name}={getattr(settings, field.name)}".replace("_", "") in text


@pytest.mark.parametrize("page", LIVING)
def test_limits_are_mentioned_with_their_defaults(page: str) -> None:
    """Such as ``Limits.liveness``, 5 s."""
    written = r"`(Limits|RequestLimits)\.(\w+)`(?:, | \()([\d.]+|unlimited)( s\b)?"
    for owner, name, number, unit in re.findall(written, text_of(page)):
        default = getattr(Limits() if owner == "Limits" else RequestLimits(), name)
        assert default == (None if number == "unlimited" else float(number)), (owner, name)
        assert unit or default is None


def test_arguments_are_mentioned_with_their_defaults() -> None:
    """Such as 0.3 s (``pre_roll_s``)."""
    parameters: dict[str, inspect.Parameter] = {}
    for function in (Stream.__init__, ReplyOnPause.__init__):
        parameters |= inspect.signature(function).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    defaults["output_buffer_s"] = BufferOptions().output_s
    mentioned = {
        (name, float(number))
        for page in LIVING
        for number, name in re.findall(r"([\d.]+) (?:s|dB) \(`(\w+)`\)", text_of(page))
    }
    assert mentioned == {(name, defaults[name]) for name, _ in mentioned}
    assert len(mentioned) >= 4


def test_table_of_turn_options_has_the_defaults() -> None:
    page = read("docs/guides/turn_taking.md")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+|infinite)(?: s)? \|", page, re.MULTILINE))
    options = AlgoOptions()
    listed = {name: float(text.replace("infinite", "inf")) for name, text in rows.items()}
    # None is derived: half of started_talking_threshold.
    default = {field.name: getattr(options, field.name) for field in fields(options)}
    half = options.started_talking_threshold / 2
    assert listed == {name: half if value is None else value for name, value in default.items()}


def test_close_reasons_exist() -> None:
    named = set(re.findall(r"\| `([A-Z_]+)` \|", read("docs/concepts/errors_and_reasons.md")))
    assert named
    assert named <= {reason.name for reason in CloseReason}


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "examples").glob("*.py")), *LIVING], ids=lambda path: str(path)[-20:]
)
def test_docs_and_examples_import_public_modules_only(path: Any) -> None:
    if isinstance(path, str):
        codes = [b.text for b in all_blocks() if (b.page, b.language) == (path, "python")]
    else:
        codes = [path.read_text(encoding="utf-8")]
    assert [name for code in codes for name in imported_names(code) if "._" in name] == []


def imported_names(code: str) -> list[str]:
    """The imported names that begin with the package's, in full."""
    names = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=aliases):
                names += [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases):
                names += [f"{module}.{alias.name}" for alias in aliases]
            case ast.Attribute(value=ast.Name(id="fastrtc_anyio"), attr=attribute):
                names.append(f"fastrtc_anyio.{attribute}")
    return [name for name in names if name.startswith("fastrtc_anyio")]


def test_readme_is_short() -> None:
    assert len(read("README.md").split()) <= 500
