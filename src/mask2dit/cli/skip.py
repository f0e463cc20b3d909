"""`mask2dit skip`: a scene out of the film, and back."""

from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import filming
from mask2dit.cli import model_options as options

if TYPE_CHECKING:
    from mask2dit.production import Directions
    from mask2dit.production.directing import Film
    from mask2dit.storyboard import Storyboard


def skip(
    folder: filming.FolderArgument,
    scene: Annotated[int, typer.Option(help="Which scene, from 1.", show_default=False)],
    back: Annotated[bool, typer.Option("--back", help="Show it again.")] = False,
    dry_run: filming.DryRun = False,
    offline: options.Offline = False,
    memory: options.Memory = None,
    device: options.Device = None,
) -> None:
    """Leave a scene out of a film without losing it; --back shows it again. Nothing is made anew."""

    def change(film: "Film") -> "tuple[Storyboard, Directions]":
        from mask2dit.production import Directions
        from mask2dit.production.directing import skipped

        return skipped(film, scene, not back), Directions(stay=True)

    filming.direct(folder, change, options.Computing(offline, memory, device), dry_run=dry_run)
