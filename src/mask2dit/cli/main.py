"""The `mask2dit` command: its subcommands, and how mistakes and Ctrl-C end: one line, no traceback, an exit status.

2: something the user can put right (and nothing was written). 1: the machine gave up, and the line says what is on disk. 130: Ctrl-C.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mask2dit import __version__
from mask2dit.cli import (
    batch,
    bench,
    check,
    curate,
    doctor,
    evaluate,
    export,
    extend,
    generate,
    import_,
    insert,
    remake,
    skip,
    storyboard,
    train,
    words,
    write,
)
from mask2dit.cli.machine import wait_briefly
from mask2dit.cli.quiet import quieten_imports
from mask2dit.cli.together import alone, in_a_team, leave_it_to_the_first, tell_torchrun
from mask2dit.errors import InputError, Mask2DiTError, ModelError, StoryboardError

WELCOME = """mask2dit makes films of several scenes from a storyboard. Type one of these:

  mask2dit generate "a red fox walks right in the meadow; the fox jumps on the beach at sunset; the fox sleeps in the forest at night"
  mask2dit storyboard --random -o story.yaml     write a storyboard to start from
  mask2dit doctor story.yaml                     what its film will be and take
  mask2dit generate story.yaml -o films/story    make its film
  mask2dit words                                 what the built-in model understands
  mask2dit --help                                everything else"""


class _Commands(TyperGroup):
    """Ends every mistake with one line."""

    def main(self, args: Any = None, prog_name: str | None = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        try:
            status = super().main(args, prog_name, *rest, **{**extra, "standalone_mode": False})
        except Exception as error:
            if not hasattr(error, "format_message"):  # typer's own errors; their classes moved between its versions
                raise
            leave_it_to_the_first()
            status = _fail(f"{error.format_message().rstrip('.')}; see `mask2dit --help`", 2)
        if standalone_mode:
            sys.exit(status if isinstance(status, int) else 0)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, ModelError, StoryboardError) as error:
            raise typer.Exit(_fail(str(error), 2)) from None
        except Mask2DiTError as error:
            raise typer.Exit(_fail(str(error), 1)) from None
        except KeyboardInterrupt as stop:
            typer.echo(str(stop) or "interrupted; nothing was written", err=True)
            raise typer.Exit(130) from None


def _fail(message: str, status: int) -> int:
    line = " ".join(message.split())
    typer.echo(f"error: {line}", err=True)
    tell_torchrun(line)
    return status


app = typer.Typer(cls=_Commands, add_completion=False, rich_markup_mode="rich", invoke_without_command=True)
app.command("generate")(in_a_team(generate.generate))
app.command("batch")(alone(batch.batch))
app.command("remake")(in_a_team(remake.remake))
app.command("insert")(in_a_team(insert.insert))
app.command("skip")(alone(skip.skip))
app.command("extend")(in_a_team(extend.extend))
app.command("doctor")(alone(doctor.doctor))
app.command("check")(alone(check.check))
app.command("bench")(alone(bench.bench))
app.command("evaluate")(alone(evaluate.evaluate))
app.command("storyboard")(alone(storyboard.storyboard))
app.command("write")(alone(write.write))
app.command("import")(alone(import_.import_))
app.command("export")(alone(export.export))
app.command("curate")(alone(curate.curate))
app.command("train")(train.train)
app.command("words")(alone(words.words))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mask2dit {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _welcome(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.", is_eager=True, callback=_show_version)] = False,
) -> None:
    """Films of several scenes from a storyboard."""
    if context.invoked_subcommand is None:
        typer.echo(WELCOME)


def main() -> None:
    """Entry point of the `mask2dit` script."""
    wait_briefly()
    quieten_imports()
    app(prog_name="mask2dit")
