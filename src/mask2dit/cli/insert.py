"""`mask2dit insert`: new scenes between those of a film."""

from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import filming
from mask2dit.cli import model_options as options

if TYPE_CHECKING:
    from mask2dit.production import Directions
    from mask2dit.production.directing import Film
    from mask2dit.storyboard import Storyboard


def insert(
    folder: filming.FolderArgument,
    after: Annotated[int, typer.Option(help="Behind which scene; 0 for the beginning.", show_default=False)],
    prompt: Annotated[list[str], typer.Option(help="What a new scene shows; may be given several times.", show_default=False)],
    dry_run: filming.DryRun = False,
    offline: options.Offline = False,
    memory: options.Memory = None,
    device: options.Device = None,
    attention: options.Attention = "auto",
    compiled: options.Compile = False,
) -> None:
    """Put new scenes into a film, made with the scenes around them known; those stay as they are."""

    def change(film: "Film") -> "tuple[Storyboard, Directions]":
        from mask2dit.production import Directions
        from mask2dit.production.directing import inserted

        return inserted(film, after, prompt), Directions(stay=True)

    filming.direct(folder, change, options.Computing(offline, memory, device, attention, compiled), dry_run=dry_run)
