"""`llmproxy plugin new`: a distribution with a processor that works, to be changed into what its author wants."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import keyword
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from llmproxy_server.cli_exit import Refusal
from llmproxy_server.cli_load import load_registry
from llmproxy_server.cli_terminal import faint, say, strong

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)
_LONGEST = 40


def new(name: str) -> None:
    """Make the folder `llmproxy-NAME`, all of it or nothing; Refusal when it cannot be."""
    name = name.replace("-", "_")
    _check(name)
    folder = Path(f"llmproxy-{name.replace('_', '-')}")
    if folder.exists():
        raise Refusal(f"{folder} is there already; choose another name, or remove it")
    written = {_renamed(path, name): _renamed(text, name) for path, text in skeleton()}
    try:
        _write(folder, written)
    except OSError as error:
        raise Refusal(f"{folder} cannot be written: {error.strerror}") from error
    _tell(folder, written)


def _check(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        form = f"up to {_LONGEST} small letters and digits, in words with - or _ between them; a letter comes first"
        raise Refusal(f"expected a name such as word-guard: {form}")
    module = f"llmproxy_{name}"
    if name in load_registry().processors:
        raise Refusal(f'a processor type "{name}" is registered already; `llmproxy plugins` says by whom')
    if importlib.util.find_spec(module) is not None:
        raise Refusal(f"the module {module} would hide another one; choose another name")
    if (taken := _class(name)) in _names_taken() or taken == _constant(name):
        raise Refusal(f"the class {taken} would hide another name in {module}; choose another name")


def _class(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _constant(name: str) -> str:
    return name.upper()


def _names_taken() -> set[str]:
    """What the class cannot be called: the names that Python has, and those that its module imports."""
    module = ast.parse(dict(skeleton())["llmproxy_my_processor.py"])
    imports = (node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom))
    return {*keyword.kwlist, *dir(builtins), *(alias.name for node in imports for alias in node.names)}


def skeleton() -> Iterator[tuple[str, str]]:
    """The files of the distribution that new ones are made from: path, text. It works, as it stands."""
    yield from _files(files("llmproxy_server") / "skeleton", "")


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda it: it.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_text(encoding="utf-8")


def _renamed(text: str, name: str) -> str:
    """*text* of the skeleton, with *name* in the place of its own in every spelling."""
    spellings = {
        "my_processor": name,
        "my-processor": name.replace("_", "-"),
        "MY_PROCESSOR": _constant(name),
        "MyProcessor": _class(name),
    }
    return re.sub("|".join(spellings), lambda found: spellings[found[0]], text)


def _write(folder: Path, written: Mapping[str, str]) -> None:
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir="."))
    try:
        for path, text in written.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8")
        made.chmod(0o755)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _tell(folder: Path, written: Mapping[str, str]) -> None:
    say(f"{strong(str(folder))} is made: {', '.join(written)}")
    say()
    say("Install it beside llmproxy, run its tests, try it:")
    say(f'  pip install -e "{folder}[test]"')
    say(f"  pytest {folder}")
    say(f"  llmproxy serve --config {folder}/config.toml")
    say()
    say(faint("What a processor may do: docs/WRITING_PROCESSORS.md"))
