"""`mask2dit check`: whether a film's cuts lie where they were asked for, and how its colours drift."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mask2dit.cli.files import Overwrite, check_new, write_text
from mask2dit.cut_lists import FILM, RECORD, CutList, read_cut_list, recorded_lengths
from mask2dit.errors import InputError


def check(
    film: Annotated[Path, typer.Argument(help="A film's folder, or any video.", show_default=False)],
    cuts: Annotated[
        str | None, typer.Option(help="First frames of scenes 2, 3 …, as 9,18, or a file with them; or none.", show_default="the folder's")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Frames of every scene, as 9,9,9, or a file with them.", show_default="the folder's")
    ] = None,
    seconds: Annotated[bool, typer.Option("--seconds", help="Times are in seconds, not in the video's own frames.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.", show_default=False)] = None,
    overwrite: Overwrite = False,
    at_least: Annotated[
        float | None, typer.Option(help="Exit with status 1 if the SCA is lower.", show_default=False, min=0, max=1)
    ] = None,
) -> None:
    """Say whether a film's cuts lie where they were asked for, and how its colours drift.

    Files of cuts or lengths are plain text or JSON, run.json among them. What is measured and how far to trust it: docs/check.md.
    """
    check_new(json_file, overwrite)
    video, asked = _find(film, cuts, lengths, seconds)

    from mask2dit.cuts import check_cuts, table
    from mask2dit.video_files import open_video

    with open_video(video) as opened:
        facts = opened.facts
        found = check_cuts(opened.frames(), asked.cuts(facts.fps))
        asked.check_end(found.num_frames, facts.fps)
    shape = f"{found.num_frames} frames at {facts.fps:.6g} per second, {facts.width} by {facts.height} pixels"
    typer.echo("\n".join([f"{video}: {shape}", "", *table(found, facts.fps if seconds else None)]))
    if json_file is not None:
        write_text(json_file, found.model_dump_json(indent=2) + "\n")
        typer.echo(f"Wrote {json_file}")
    if at_least is not None and found.sca < at_least:
        typer.echo(f"SCA {found.sca:.4f} is below {at_least:g}", err=True)
        raise typer.Exit(1)


def _find(film: Path, cuts: str | None, lengths: str | None, seconds: bool) -> tuple[Path, CutList]:
    """The video, and what it is checked against."""
    if cuts is not None and lengths is not None:
        raise InputError("check: got both --cuts and --lengths, expected one of them; leave one out")
    video = film / FILM if os.path.isdir(film) else film
    if not os.path.isfile(video):  # False also for what cannot be a name, where Path raises
        what = (
            "there is no such file, expected a video or a film's folder" if video == film else f"holds no {FILM}, expected a finished film"
        )
        raise InputError(f"{film}: {what}; check the name")
    if cuts is not None:
        return video, read_cut_list("--cuts", cuts, True, seconds)
    if lengths is not None:
        return video, read_cut_list("--lengths", lengths, False, seconds)
    record = video.parent / RECORD
    if video.name != FILM or not record.is_file():
        raise InputError(f"{film}: got no cuts to compare with, expected --cuts or --lengths; for example --cuts 9,18, or --cuts none")
    if seconds:
        raise InputError("--seconds: got no times, expected --cuts or --lengths with it; leave it out")
    return video, recorded_lengths(video.parent)
