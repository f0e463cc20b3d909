"""`mask2dit remake`: one scene again, with all others as they are."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import filming
from mask2dit.cli import model_options as options
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from mask2dit.production import Directions
    from mask2dit.production.directing import Film
    from mask2dit.storyboard import Storyboard


def remake(
    folder: filming.FolderArgument,
    scene: Annotated[int, typer.Option(help="Which scene, from 1.", show_default=False)],
    seed: Annotated[int | None, typer.Option(help="Its new seed.", show_default="one it has not had", min=0)] = None,
    seeds: Annotated[int | None, typer.Option(help="Make so many takes to choose from.", show_default=False, min=1, max=100)] = None,
    take: Annotated[int | None, typer.Option(help="Show this take of it; nothing is made.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option(help="What it shows now.", show_default="as before")] = None,
    dry_run: filming.DryRun = False,
    offline: options.Offline = False,
    memory: options.Memory = None,
    device: options.Device = None,
    attention: options.Attention = "auto",
    compiled: options.Compile = False,
) -> None:
    """Make one scene of a film again, with all others known and untouched; its earlier takes are kept.

    One take is in the film at once. Several (--seeds 4) are laid side by side in a picture, and --take chooses.
    """
    if take is not None and (seed, seeds, prompt) != (None, None, None):
        raise InputError("--take: got it with --seed, --seeds or --prompt, expected it alone; choose a take, or make new ones")
    if seed is not None and seeds is not None:
        raise InputError("--seeds: got it with --seed, expected one of them; --seeds tries seeds that the scene has not had")
    computing = options.Computing(offline, memory, device, attention, compiled)
    if seeds is not None:
        _candidates(folder, scene, seeds, prompt, dry_run, computing)
        return

    def change(film: "Film") -> "tuple[Storyboard, Directions]":
        from mask2dit.production import Directions
        from mask2dit.production.directing import remade, seed_of, with_take

        index = film.index(scene)
        if take is not None:
            return with_take(film, scene, take), Directions(stay=True, chosen=(index, take))
        is_same = seed == seed_of(film, scene) and prompt is None  # with the others known as they are now
        again = frozenset({index}) if is_same else frozenset[int]()
        return remade(film, scene, prompt=prompt, seed=seed), Directions(stay=True, again=again)

    filming.direct(folder, change, computing, dry_run=dry_run)


def _candidates(folder: Path, number: int, count: int, prompt: str | None, dry_run: bool, computing: options.Computing) -> None:
    from mask2dit.cli.progress import shown_notes

    with shown_notes() as console:
        from mask2dit.production.directing import next_seeds, open_film, remade
        from mask2dit.production.joining import write_candidates_sheet

        film = open_film(folder)
        seeds = next_seeds(film, number, count)
        board = remade(film, number, prompt=prompt, seed=seeds[0])
        if dry_run:
            typer.echo(f"{folder}: scene {number} with seeds {', '.join(map(str, seeds))}, all other scenes known; the film stays as it is")
            return
        work = filming.start(film.record.asked, console, computing)
        takes = work.candidates(film, board, number - 1, seeds)
        sheet = write_candidates_sheet(film.folder, number, takes)
    typer.echo(f"\nMade takes {', '.join(str(take.number) for take in takes)} of scene {number}: {sheet}")
    typer.echo("Choose one:")
    for take in takes:
        typer.echo(f"  mask2dit remake {shlex.quote(str(folder))} --scene {number} --take {take.number}    # seed {take.inputs.seed}")
