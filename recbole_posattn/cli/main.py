"""The commands of ``recbole-posattn``, and the launcher ``run_recbole_posattn.py``, which is its ``run``."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple, NoReturn

import recbole_posattn
from recbole_posattn.cli import (
    completion,
    data,
    export,
    inspect,
    interference,
    keys,
    leaderboard,
    models,
    overview,
    recommend,
    run,
    setup,
    tune,
)
from recbole_posattn.cli.parser import Parser, check_flags
from recbole_posattn.errors import EXIT_FAILURE, EXIT_USER_ERROR, ProcessError, UserError, did_you_mean, one_line, shown
from recbole_posattn.files import discard_output
from recbole_posattn.training import interrupts

# Errors of the environment: a full disk, a folder that is read-only, belongs to another user, or is a file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ENVIRONMENT = {
    *(*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG),
}


# A variable of the environment that argcomplete sets.
_ASKED_BY_SHELL = "_ARGCOMPLETE"


class Command(NamedTuple):
    """A command.

    Attributes:
        module: Has ``add_arguments(parser)`` and ``execute(options)``, which imports what the command needs and returns
            the exit code.
        help: What it does, in one line.
        takes_settings: Whether any setting may be given as ``--key=value``; these are ``options.settings``.
    """

    module: ModuleType
    help: str
    takes_settings: bool = False


COMMANDS = {
    "setup": Command(setup, "install RecBole, once, for this Python"),
    "run": Command(run, "train and evaluate a model", takes_settings=True),
    "leaderboard": Command(leaderboard, "compare models side by side, with intervals and tests", takes_settings=True),
    "overview": Command(overview, "leaderboards side by side: the gain of each model"),
    "tune": Command(tune, "search for the best settings of a model on validation data", takes_settings=True),
    "data": Command(data, "create data sets from raw dumps, and describe them"),
    "recommend": Command(recommend, "recommend the best items, for known users or new histories"),
    "export": Command(export, "export a trained model as an ONNX or torch.export file"),
    "inspect": Command(inspect, "show what the kernels and the attention of a trained model have learned"),
    "interference": Command(interference, "measure what each positional part of a trained model contributes"),
    "models": Command(models, "list all models, with a line about each"),
    "keys": Command(keys, "list the settings of a model, with a line about each"),
    "completion": Command(completion, "print shell completion for commands, flags, models and data sets"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """``recbole-posattn COMMAND …``; returns the exit code."""
    _write_any_character()
    parser = Parser(prog="recbole-posattn", description=recbole_posattn.__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {recbole_posattn.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    of_commands = parsers(lambda name: subparsers.add_parser(name, help=COMMANDS[name].help))
    if _ASKED_BY_SHELL in os.environ:
        completion.complete(parser)
    given = _readable(parser, arguments)
    if given[:1] and given[0].startswith("-") and given[0] not in parser.flags_of_its_own():
        _refuse_first_flag(given[0], parser, of_commands)
    options, settings = parser.parse_known_args(given)
    options.settings = settings
    command = COMMANDS[options.command]
    if settings and not command.takes_settings:
        of_commands[options.command].chosen(options).refuse(settings, given)
    flags = [*of_commands[options.command].flags()]
    return _guarded(lambda: _execute(command, options, flags, of_commands))


def _refuse_first_flag(argument: str, parser: Parser, of_commands: Mapping[str, Parser]) -> NoReturn:
    """End with a line on a flag that stands where the command belongs."""
    flag = argument.partition("=")[0]
    own = parser.flags_of_its_own()
    having = [name for name, of_command in of_commands.items() if flag in of_command.flags() and flag not in own]
    is_setting = "=" in argument and flag.startswith("--") and not having and flag not in own  # such as --epochs=3
    hint = "" if having or is_setting else did_you_mean(flag, own)
    if not hint and (is_setting or "run" in having or len(having) == 1):
        name = having[0] if len(having) == 1 else "run"
        hint = f" Did you mean {f'recbole-posattn {name} {argument}'!r}?"
    commands = "" if hint else f" ({', '.join(having or COMMANDS)})"
    parser.error(f"a command{commands} comes before its flags; got {shown(argument)}.{hint}")


def _execute(
    command: Command, options: argparse.Namespace, flags: Sequence[str], of_commands: Mapping[str, Parser]
) -> int:
    """Run a command, after the import of its plugins; those of a command that takes settings are a setting."""
    plugins = getattr(options, "plugin", [])
    check_flags(options.settings, flags, of_commands, bool(plugins))
    if plugins and not command.takes_settings:
        from recbole_posattn.settings.plugins import import_plugins
        from recbole_posattn.settings.registry import hook_recbole

        hook_recbole()
        import_plugins(plugins)
    return command.module.execute(options)


def parsers(new: Callable[[str], Parser] = lambda name: Parser(prog=name)) -> dict[str, Parser]:
    """A parser of each command, by name; ``new`` creates one without arguments."""
    parsers = {name: new(name) for name in COMMANDS}
    for name, parser in parsers.items():
        COMMANDS[name].module.add_arguments(parser)
    return parsers


def launch(arguments: Sequence[str] | None = None) -> int:
    """``run_recbole_posattn.py``, with the flags of RecBole's ``run_recbole.py``; returns the exit code."""
    _write_any_character()
    parser = Parser(prog="run_recbole_posattn.py")
    run.add_arguments(parser)
    if _ASKED_BY_SHELL in os.environ:
        completion.complete(parser)
    options, settings = parser.parse_known_args(_readable(parser, arguments))
    options.settings = settings
    of_commands = parsers() if settings else {}
    return _guarded(lambda: _execute(COMMANDS["run"], options, [*parser.flags()], of_commands))


def _write_any_character() -> None:
    """Write ``?`` for characters such as ``±`` and ``γ`` that the output's encoding lacks, as in a pipe on Windows."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="replace")


def _readable(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> list[str]:
    """The arguments, if they are UTF-8: others could not be written into a log or a report."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    for argument in given:
        try:
            argument.encode()
        except UnicodeEncodeError:
            parser.error(f"argument {argument!r} is not UTF-8")
    return given


def _guarded(command: Callable[[], int]) -> int:
    """Run a command; an error that the user can correct ends in one line and exit code 2."""
    try:
        with interrupts.handled():
            try:
                code = command()
                sys.stdout.flush()  # not at the interpreter's end, where a closed pipe could not be caught
                return code
            except BaseException as error:
                _release_frames(error)
                raise
    except UserError as error:
        print(f"recbole-posattn: {one_line(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    except ProcessError as error:
        print(f"recbole-posattn: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except BrokenPipeError:  # the reader, such as head, has had enough
        discard_output()
        return 0
    except OSError as error:
        if error.errno not in _ENVIRONMENT:
            raise
        where = error.filename or ("output cannot be written" if error.errno in _FULL else "")
        print(f"recbole-posattn: {where and f'{where}: '}{error.strerror}", file=sys.stderr)
        return EXIT_USER_ERROR
    except ImportError as error:  # a missing package, or a version that RecBole does not run on
        if (error.name or "").startswith("recbole_posattn"):
            raise
        print(f"recbole-posattn: {one_line(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt as error:
        interrupted = error if isinstance(error, interrupts.Interrupted) else interrupts.Interrupted(signal.SIGINT)
        print(f"recbole-posattn: {interrupted}", file=sys.stderr)
        return interrupted.exit_code


def _release_frames(error: BaseException | None) -> None:
    """Release what the frames of an error still hold, so that loaders wait until their workers have cleaned up.

    Workers that still run when the process ends are killed by a signal, and leave their temporary folders behind.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
