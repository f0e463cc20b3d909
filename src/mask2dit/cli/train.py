"""`mask2dit train`: a recipe becomes a model."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML file, see recipes/.", show_default=False)],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="key=value …", help="Changes of the recipe, such as num_steps=100.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The run's folder; a run in it is gone on with.", show_default="runs/<folder>/<recipe>"),
    ] = None,
    precompute: Annotated[bool, typer.Option("--precompute", help="Only fill the latent cache.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the recipe and what it needs.")] = False,
    devices: Annotated[int, typer.Option(help="How many devices the estimates are for.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="all", min=1)] = None,
) -> None:
    """Train what a recipe describes.

    The same command goes on where it stopped. For several devices: `torchrun --nproc-per-node 8 -m mask2dit train …`.
    """
    from mask2dit.cli.together import first_alone_says
    from mask2dit.training.config import read_recipe

    folder = output or _default_run(recipe)
    with first_alone_says():
        settings = read_recipe(recipe, changes or [], folder.parent)
    if dry_run:
        from mask2dit.training.estimate import described

        for line in described(settings, devices):
            typer.echo(line)
        return

    import torch

    from mask2dit.cli.quiet import quieten_libraries
    from mask2dit.training.run import fill_cache
    from mask2dit.training.run import train as train_recipe
    from mask2dit.training.stopping import TrainingStopped

    quieten_libraries()
    if threads is not None:
        torch.set_num_threads(threads)
    is_main = int(os.environ.get("RANK", "0")) == 0
    screen = Terminal(shown=is_main)
    try:
        result = (fill_cache if precompute else train_recipe)(settings, folder, screen)
    except TrainingStopped as stopped:
        screen.line(str(stopped))
        raise typer.Exit(stopped.status) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; the same command goes on from what is in {folder}") from None
    screen.line(f"written: {result}")


def _default_run(recipe: Path) -> Path:
    parent = recipe.parent.name
    return Path("runs") / recipe.stem if parent in ("", "recipes") else Path("runs") / parent / recipe.stem


class Terminal:
    """Lines with the time of day; live ones overwrite each other where a person watches."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._watched = shown, sys.stdout.isatty()
        self._live = False

    def line(self, text: str) -> None:
        if self._shown:
            sys.stdout.write(("\n" if self._live else "") + f"{time.strftime('%H:%M:%S')}  {text}\n")
            sys.stdout.flush()
            self._live = False

    def live(self, text: str) -> None:
        if not self._watched:
            self.line(text)
        elif self._shown:
            sys.stdout.write(f"\r\x1b[2K{text}")
            sys.stdout.flush()
            self._live = True
