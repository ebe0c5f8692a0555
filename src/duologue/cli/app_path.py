"""Import the user's function that ``app:make_agent`` names, with errors of one line.

The function gets the edge of a conversation. It returns an `Agent`, or is a coroutine function that
conducts the whole conversation itself and returns None. Which of the two it is shows only when it
has been called, so `converse` handles both.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from duologue.errors import ConfigError, DuologueError

if TYPE_CHECKING:
    from duologue.agent.agent import Agent

log = logging.getLogger(__name__)

type AppFunction = Callable[..., object]
"""Gets an edge; returns an `Agent` or an awaitable of one, or conducts the conversation."""


class AppError(DuologueError):
    """The user's function raised an error; the text has its file and line."""


def is_app_path(text: str) -> bool:
    """Return whether an argument names a function (``module:function``), not a file."""
    module, colon, name = text.rpartition(":")
    return (
        bool(colon and module) and name.replace(".", "").isidentifier() and not Path(text).exists()
    )


def load_app(path: str) -> AppFunction:
    """Import ``module:function`` or ``file.py:function``.

    The working directory, or the folder of the file, is put in front of ``sys.path``.

    Raises:
        ConfigError: The import fails, or there is no such function. The text has the file and line.
    """
    module_name, _, name = path.rpartition(":")
    if not module_name:
        wanted = name if name.endswith(".py") or "." not in name else name.partition(".")[0]
        raise ConfigError(f"name the function too, as {wanted}:make_agent, not {path!r}")
    module = _import(module_name)
    function = _find(module, module_name, name)
    _check_function(path, function)
    return cast("AppFunction", function)


async def call_app(path: str, function: AppFunction, edge: object) -> Agent | None:
    """Call the function for one conversation.

    Returns:
        The agent, which has not joined; None if the function conducted the conversation itself.

    Raises:
        AppError: The function failed.
        ConfigError: It returned something else, or an agent on another edge.
    """
    from duologue.agent.agent import Agent

    try:
        made = function(edge)
        waited = inspect.isawaitable(made)
        result: object = await cast("Awaitable[object]", made) if waited else made
    except DuologueError:
        raise
    except Exception as error:
        log.debug("%s failed", path, exc_info=error)
        raise AppError(f"{path} failed: {describe_error(error, folder_of(path))}") from error
    if result is None and waited:
        return None
    if not isinstance(result, Agent):
        raise ConfigError(f"{path} must return an Agent, not {result!r:.80}")
    if result.edge is not edge:
        raise ConfigError(f"{path} must pass on the edge that it was given: Agent(edge=edge, ...)")
    return result


def folder_of(path: str) -> Path:
    """Return the folder whose files belong to an app: that of the file, or the working one."""
    file = Path(path.rpartition(":")[0])
    return file.resolve().parent if file.suffix == ".py" else Path.cwd()


def _import(name: str) -> ModuleType:
    is_file = name.endswith(".py")
    folder = Path(name).resolve().parent if is_file else Path.cwd()
    if is_file and not Path(name).is_file():
        raise ConfigError(_no_file(Path(name)))
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return _import_file(Path(name).resolve()) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        log.debug("importing %s failed", name, exc_info=error)
        if isinstance(error, ModuleNotFoundError) and _is_missing_itself(name, error):
            raise ConfigError(_no_module(name, folder)) from None
        raise ConfigError(f"{name} can't be imported: {describe_error(error, folder)}") from None


def _import_file(file: Path) -> ModuleType:
    """Import a file under its own name, or another one if a different module has that name."""
    name = file.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(file):
            return known
        name = f"_duologue_app_{name}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - its name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_missing_itself(name: str, error: ModuleNotFoundError) -> bool:
    """Return whether the requested module is missing, and not one that it imports."""
    missing = error.name or ""
    return (name + ".").startswith(missing + ".") and bool(missing)


def _no_file(file: Path) -> str:
    folder = file.parent
    names = [str(each) for each in folder.glob("*.py")] if folder.is_dir() else []
    near = get_close_matches(str(file), names, n=3)
    return f"there is no file {file}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _no_module(name: str, folder: Path) -> str:
    modules = [each.stem for each in folder.glob("*.py")]
    modules += [each.parent.name for each in folder.glob("*/__init__.py")]
    near = get_close_matches(name, modules, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no module {name!r} in {folder} and none is installed{hint}"


def describe_error(error: BaseException, folder: Path) -> str:
    """Describe an error of the user's code in one line, with the file and line where it is."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)} line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(folder)]
    others = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    where = (own or others)[-1:]
    what = text if isinstance(error, DuologueError) else f"{type(error).__name__}: {text}"
    place = f"{_short(where[0].filename)} line {where[0].lineno}: " if where else ""
    return f"{place}{what.rstrip(': ')}"


def _short(file: str) -> str:
    """Return a path relative to the working directory if it is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def _find(module: ModuleType, module_name: str, name: str) -> object:
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(_no_name(found, module_name, part))
        found = getattr(found, part)
    return found


def _no_name(owner: object, module_name: str, name: str) -> str:
    names = [each for each in vars(owner) if not each.startswith("_")]
    functions = [
        each
        for each in names
        if inspect.isfunction(getattr(owner, each))
        and getattr(owner, each).__module__ == getattr(owner, "__name__", None)
    ]
    near = get_close_matches(name, names, n=3)
    if near:
        return f"{module_name} has no {name!r}; did you mean {' or '.join(near)}?"
    listed = ", ".join(functions) or "none"
    return f"{module_name} has no {name!r}; its functions are: {listed}"


def _check_function(path: str, function: object) -> None:
    from duologue.agent.agent import Agent

    if isinstance(function, Agent):
        raise ConfigError(
            f"{path} is an Agent, which serves one conversation: name a function that makes one"
        )
    if not callable(function):
        raise ConfigError(f"{path} must be a function, not {function!r:.80}")
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        name = path.rpartition(":")[2]
        raise ConfigError(
            f"{path} must take one argument, the edge of the conversation: def {name}(edge)"
        ) from None
    except ValueError:
        return  # a builtin without a signature
