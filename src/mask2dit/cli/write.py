"""`mask2dit write`: an idea becomes a storyboard, by way of a chat endpoint."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli.files import Overwrite, check_new, write_text
from mask2dit.cli.keys import OPENAI_KEYS, read_key

if TYPE_CHECKING:
    from mask2dit.storyboard import Storyboard
    from mask2dit.storyboard_writer import RejectedError, Vocabulary

NUM_EXAMPLES = 4  # stories of the built-in model's grammar that show its sentence forms


def write(
    idea: Annotated[str, typer.Argument(help="What the film is about, in a sentence or more.", show_default=False)],
    scenes: Annotated[int, typer.Option(help="How many scenes.", min=1, max=100)] = 5,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url", envvar="OPENAI_BASE_URL", help="An OpenAI-compatible endpoint, as http://localhost:8000/v1.", show_default=False
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The endpoint's model that writes.", show_default=False)] = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            "--key-env",
            help="The environment variable that holds the endpoint's key.",
            show_default=" or ".join(OPENAI_KEYS) + "; none is fine too",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default="show it")] = None,
    built_in_words: Annotated[bool, typer.Option("--built-in-words", help="Only in words that the built-in model knows.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer, per try.", min=0.1)] = 120.0,
    overwrite: Overwrite = False,
) -> None:
    """Write a storyboard from an idea, with the help of a chat endpoint.

    The answer is checked, and repaired once; one that cannot be used is kept in a file.
    """
    from mask2dit.chat import ChatClient, Endpoint
    from mask2dit.errors import EndpointError, InputError
    from mask2dit.storyboard_writer import RejectedError, write_storyboard

    check_new(output, overwrite)
    if not base_url:
        raise InputError("write: got no endpoint, expected --base-url or OPENAI_BASE_URL; for example --base-url http://localhost:8000/v1")
    if not model:
        raise InputError("write: got no model, expected the name of one that the endpoint has; name it with --model")
    endpoint = Endpoint(base_url, model, read_key(key_env, OPENAI_KEYS), timeout)
    with ChatClient(endpoint, tell=lambda said: typer.echo(f"note: {said}", err=True)) as client:
        try:
            written = write_storyboard(client, idea, scenes, _built_in_vocabulary() if built_in_words else None)
        except RejectedError as error:
            raise EndpointError(f"{error}; {_kept(error, output)}") from None
    for problem in written.problems:
        typer.echo(f"note: {' '.join(problem.split())}", err=True)
    _save(written.storyboard, output)


def _built_in_vocabulary() -> "Vocabulary":
    from mask2dit.cli.words import BUILT_IN_LEVEL
    from mask2dit.playhouse.captions import random_storyboard, unknown_words, words
    from mask2dit.storyboard_writer import Vocabulary

    stories = [random_storyboard(seed, BUILT_IN_LEVEL) for seed in range(NUM_EXAMPLES)]
    return Vocabulary(words(), [scene["prompt"] for story in stories for scene in story["scenes"]], unknown_words)


def _kept(error: "RejectedError", output: Path | None) -> str:
    """Write the answers aside, and say where they are."""
    from mask2dit.errors import OutputError

    beside = (output or Path("story.yaml")).with_suffix(".rejected.txt")
    number = 1
    while beside.exists():  # of an earlier try
        number += 1
        beside = beside.with_name(f"{(output or Path('story.yaml')).stem}.rejected-{number}.txt")
    text = "".join(f"--- answer {index} of {len(error.answers)}\n{answer}\n" for index, answer in enumerate(error.answers, start=1))
    try:
        write_text(beside, text)
    except OutputError as trouble:
        typer.echo(text)
        return f"what it answered stands above, since {trouble}"
    return f"what it answered is in {beside}"


def _save(board: "Storyboard", output: Path | None) -> None:
    from mask2dit.errors import OutputError

    if output is None:
        typer.echo(board.to_yaml(), nl=False)
        return
    try:
        board.write(output)
    except OutputError:
        typer.echo(board.to_yaml(), nl=False)  # it was waited and paid for
        raise
    typer.echo(f"Wrote {output}. Make its film:\n  mask2dit generate {shlex.quote(str(output))}")
