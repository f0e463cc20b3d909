"""`mask2dit bench`: how fast this machine computes films of several scenes, and by which form of attention."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mask2dit.cli import model_options as options
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from mask2dit.benchmarking import Results

FILE = "bench.json"
MOST_SCENES, MOST_ROUNDS = 64, 1000

Size = Annotated[str | None, typer.Option(help="playhouse, 2b or 5b: the model's widths.", show_default="5b on a GPU, else playhouse")]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend", help="grouped, merged, flex, or a kernel of diffusers by its name; may be repeated.", show_default="all that work"
    ),
]
Compiled = Annotated[bool | None, typer.Option("--compile/--no-compile", help="A step with compiled blocks, too.", show_default="on a GPU")]
Cells = Annotated[int | None, typer.Option(min=1, help="Pixels of a scene.", show_default="the size's; smaller on a CPU")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames of a scene.", show_default="the size's; fewer on a CPU")]


def bench(
    size: Size = None,
    scenes: Annotated[int, typer.Option(min=1, max=MOST_SCENES, help="Scenes of the step in which variants are compared.")] = 3,
    frames: Frames = None,
    height: Cells = None,
    width: Cells = None,
    backend: Backends = None,
    backward: Annotated[bool, typer.Option("--backward", help="Attention also with gradients.")] = False,
    compiled: Compiled = None,
    rounds: Annotated[int, typer.Option(min=1, max=MOST_ROUNDS, help="Interleaved rounds, of which medians are taken.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, in less than a minute.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the JSON and the plots.")] = Path("bench"),
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Measure this machine: attention by form and number of scenes, steps of a whole model, memory, errors.

    Weights are random, and nothing is downloaded.
    """
    from mask2dit.cli.progress import shown_notes, shown_progress

    with shown_notes() as console:
        place, numbers = options.checked_machine(None, "plain", device, dtype)
        from mask2dit.benchmarking import Results, check_output, check_room, choose_settings, free_bytes
        from mask2dit.benchmarking.plots import REMEDY, can_plot

        settings = choose_settings(
            size,
            device=place,
            dtype=numbers,
            scenes=scenes,
            frames=frames,
            height=height,
            width=width,
            backends=backend or (),
            backward=backward,
            compiled=compiled,
            rounds=rounds,
            quick=quick,
        )
        check_room(settings, free_bytes(place))
        check_output(output)
        if not can_plot():
            warnings.warn(f"matplotlib: not found, so there will be tables and JSON alone; {REMEDY}", stacklevel=1)
        results = Results(settings)
        try:
            with shown_progress(console) as progress:
                results.measure(progress)
        except KeyboardInterrupt:
            if results.machine is None:
                raise
            _write(results, output, console)
            raise KeyboardInterrupt(f"interrupted; what was measured so far is in {output / FILE}") from None
        _write(results, output, console)


def _write(results: "Results", output: Path, console: "Console") -> None:
    """Tables to the terminal, JSON and plots to the folder."""
    from rich.console import Console

    from mask2dit.benchmarking.plots import write_plots
    from mask2dit.benchmarking.report import report

    results.write(output / FILE)
    for part in report(results):
        Console(width=None if console.is_terminal else 140).print(part, highlight=False)
    written = [output / FILE]
    try:
        written += write_plots(results, output)
    except InputError as error:
        console.print(str(error), highlight=False, markup=False)
    typer.echo(f"written: {', '.join(map(str, written))}")
