"""`mask2dit doctor`: what a film will be, take, and stumble over, before anything is made."""

import shlex
from typing import TYPE_CHECKING, Any, cast

import typer

from mask2dit.cli import film_options as film
from mask2dit.cli import model_options as options

if TYPE_CHECKING:
    from mask2dit.weight_formats import Weights


def doctor(
    storyboard: film.StoryboardArgument,
    steps: film.Steps = None,
    guidance: film.Guidance = None,
    frames: film.Frames = None,
    height: film.Size = None,
    width: film.Size = None,
    negative_prompt: film.NegativePrompt = None,
    window: film.Window = None,
    solver: film.Solver = None,
    guidance_interval: film.GuidanceInterval = None,
    step_cache: film.StepCache = None,
    model: options.Model = None,
    revision: options.Revision = None,
    offline: options.Offline = False,
    inp: options.Inp = False,
    memory: options.Memory = None,
    weights: options.Weights = "plain",
    device: options.Device = None,
    dtype: options.Dtype = None,
    plan: options.Plan = None,
) -> None:
    """Say what a film will be and what it takes; nothing is made or downloaded.

    The exit status is 1 if there is a problem that would stop its making.
    """
    asked = dict(locals())
    board, source = film.read_storyboard(storyboard)

    from mask2dit.cli.progress import shown_notes

    with shown_notes(), film.naming(source):
        from mask2dit.production import FilmSettings
        from mask2dit.production.forecast import Room, forecast
        from mask2dit.production.forecast_report import report, verdict
        from mask2dit.production.subject import find_subject

        cheaper = film.shortcuts(solver, guidance_interval, step_cache)
        settings = FilmSettings(0, height, width, steps, guidance, frames, negative_prompt, window=window, **cheaper)
        place, numbers = options.checked_machine(memory, weights, device, dtype)
        subject = find_subject(model, revision=revision, offline=offline, inp=inp)
        room = Room(*options.memory_room(memory, place), cast("Weights", weights), options.memory_is_asked(memory, weights))
        found = forecast(board, subject, settings, room, device=place, dtype=numbers, plan=plan)
    typer.echo("\n".join([*report(found), "", verdict(found)]))
    if found.shortage is None:
        typer.echo(f"{'Then' if found.problems else 'Make it'}:\n  {_generate(**asked)}")
    if found.problems:
        raise typer.Exit(1)


def _generate(storyboard: str, **asked: Any) -> str:
    """The command that makes the film, with the options that differ from their defaults."""
    words = ["mask2dit", "generate", storyboard]
    for name, value in asked.items():
        if value is not None and value is not False and (name, value) != ("weights", "plain"):
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return shlex.join(words)
