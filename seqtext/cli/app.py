"""The `seqtext` command: one file a command, each a thin body over the same-named function of `seqtext.api`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seqtext import __version__
from seqtext.cli.check import check
from seqtext.cli.evaluate import evaluate
from seqtext.cli.export import export
from seqtext.cli.generate import generate
from seqtext.cli.inspect import app as inspect
from seqtext.cli.predict import predict
from seqtext.cli.recipes import app as recipes
from seqtext.cli.report import report
from seqtext.cli.score import score
from seqtext.cli.train import train
from seqtext.cli.translate import translate
from seqtext.cli.tune import tune
from seqtext.errors import InputError
from seqtext.training.processes import is_first, leave, several, tells


class Commands(TyperGroup):
    """The commands, which end as other tools do when the reader of their output has gone (`| head`)."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                print(file=sys.stderr)  # ends the line that has the terminal's ^C
            raise
        except BrokenPipeError:
            # Not for typer to see, which exits with 1.
            _drop_output()
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:  # of a full disk, say; what knows more of its files has raised an InputError already
            _drop_output()
            raise InputError(f"{error.filename or 'the output'}: {error.strerror or error}") from None
        return result


def _drop_output() -> None:
    """Leave nothing for Python to flush at its end into a closed pipe or a full disk."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="seqtext",
    cls=Commands,
    help="Text sequence tasks: train, evaluate and use recurrent models. Begin with: seqtext train ner, seqtext train "
    "sentiment, seqtext train lm or seqtext train translation",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Results go to stdout, progress and messages to stderr. Bad input exits with 2, an interruption with 130, "
    "output that nobody reads any more (`| head`) with 141.",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"seqtext {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


app.command()(train)
app.command()(tune)
app.command()(evaluate)
app.command()(predict)
app.command()(generate)
app.command()(score)
app.command()(translate)
app.command()(export)
app.add_typer(inspect, name="inspect")
app.command()(report)
app.add_typer(recipes, name="recipes")
app.command()(check)


def main() -> None:
    """Run the command line: 0 for success, 2 for bad input, 128 + the signal's number for an interruption.

    Of several processes, the first that has a message says it.
    """
    if several():
        # Torch warns that its search for parameters without a gradient has not found any.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        status = _run()
    except InputError as error:
        if tells(error):
            print(f"seqtext: {error}", file=sys.stderr)
        number = getattr(error, "signal", None)
        status = 128 + number if number else 2
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    leave(status)
    sys.exit(status)


def _run() -> int:
    """The exit status of the command."""
    try:
        # What is wrong with the command line is the same for all processes.
        return int(app(prog_name="seqtext", standalone_mode=is_first()) or 0)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        return int(end.code or 0)
    except Exception as error:
        if is_first() or not hasattr(error, "exit_code"):
            raise
        return int(error.exit_code)


def command() -> None:
    """`main`, in a process of its own."""
    # NLTK imports these where they are installed, which takes a second, for parts of it that no command uses.
    for name in ("scipy", "sklearn"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        main()
    finally:
        # Python, when it ends, looks through all there is for garbage: a fifth of a short command, with all of torch.
        gc.freeze()


if __name__ == "__main__":
    command()
