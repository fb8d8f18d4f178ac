"""The command ``wildpdiff``: its verbs, and the exit status of errors. Imports nothing heavy."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from wildpdiff.cli import (
    backbone,
    check,
    evaluate,
    fit,
    generate,
    inspect,
    predict,
    refine,
    suite,
    zoo,
)
from wildpdiff.cli.terminal import remark, remember_command
from wildpdiff.errors import WildpdiffError
from wildpdiff.registry import package_version, registered

LONGEST = 2000
"""Characters of a refusal; the fault is at its beginning, the remedy at its end."""

RESUMABLE = ("demo", "zoo", "reproduce", "domain")

app = typer.Typer(
    help="Generate LoRA adapters of new tasks from descriptions, without labels.",
    epilog="First steps: wildpdiff demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(suite.app, name="suite")
app.add_typer(backbone.app, name="backbone")
app.add_typer(zoo.app, name="zoo")
app.command(short_help="Fit a generator to a zoo.")(fit.fit)
app.command(short_help="Generate adapters from a description.")(generate.generate)
app.command(short_help="Refine an adapter on a few labels.")(refine.refine)
app.command(short_help="Predict whether an adapter beats the pretrained model.")(generate.trust)
app.command(short_help="Classify images or texts.")(predict.predict)
app.command(short_help="Score an adapter on labelled images or texts.")(check.check)
app.command(short_help="Compare generators with baselines.")(evaluate.evaluate)
app.command(short_help="Show how good an adapter, generator or zoo is, and what it holds.")(inspect.inspect)
for _name, _added in registered("commands").items():
    _app, _, _verb = _name.rpartition(" ")  # "suite export" is a verb of the group "suite"
    if isinstance(_added, typer.Typer):
        app.add_typer(_added, name=_name)
    else:
        _short = (_added.__doc__ or "").split("\n")[0]
        {"": app, "suite": suite.app}[_app].command(_verb, short_help=_short)(_added)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(package_version() or "not installed")
        raise typer.Exit()
    return wanted


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Generate LoRA adapters of new tasks from descriptions, without labels."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line of ``wildpdiff`` and return its exit status, see :func:`run`."""
    return run(app, "wildpdiff", arguments)


def run(commands: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        commands: of the program.
        program: its name.
        arguments: words after the program's name; ``sys.argv`` by default.

    Returns:
        0 where all went well; 2 for bad usage, bad input or a refusing machine; 1 for a bug; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes, and words letters, that the terminal's encoding does not know.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    remember_command(given, program)
    try:
        status = commands(args=given or ["--help"], prog_name=program, standalone_mode=False)
    except WildpdiffError as error:
        return _refuse(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except OSError as error:
        where = f" while writing {error.filename}" if error.filename else ""
        full = f"The disk is full{where}; nothing half-written was left. Free some space and run again."
        other = f"{error.filename or 'The system refuses'}: {error.strerror or error}."
        return _refuse(full if error.errno == errno.ENOSPC else other, 2)
    except Exception as error:
        if hasattr(error, "format_message"):  # bad usage
            context = getattr(error, "ctx", None)
            verb = program if context is None else context.command_path
            return _refuse(f"{str(error.format_message()).rstrip('.?')}. Try `{verb} --help`.", 2)
        if os.environ.get("WILDPDIFF_DEBUG") == "1":
            raise
        return _refuse(
            f"this is a bug of wildpdiff ({type(error).__name__}: {error}). Run it again with WILDPDIFF_DEBUG=1 in the "
            "environment and report what it prints, please.",
            1,
        )
    if status == 130:
        resumes = given[:1] and given[0] in RESUMABLE
        what = "The same command resumes here." if resumes else "Nothing half-written was left."
        typer.echo(f"\nStopped. {what}", err=True)
    return status if isinstance(status, int) else 0


def _refuse(sentence: str, status: int) -> int:
    words = " ".join(sentence.split())
    if len(words) > LONGEST:  # somebody's whole file may have got into it
        words = f"{words[: LONGEST // 2]} … {words[-LONGEST // 2 :]}"
    remark(f"Error: {words}")
    return status


if __name__ == "__main__":
    sys.exit(main())
