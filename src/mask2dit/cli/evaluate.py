"""`mask2dit evaluate`: what films of several scenes are worth, anyone's, in numbers, a report and JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mask2dit.cli import model_options as options
from mask2dit.cli.reproduce import Making, beside_published, make_all
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mask2dit.evaluation.films import FilmSource
    from mask2dit.evaluation.measuring import Chosen, MetricAbout, Number, Progress, Results
    from mask2dit.evaluation.prompt_sets import PromptSetItem
    from mask2dit.extractors.base import Extractor

RESULTS, REPORT, STORE = "results.json", "report.html", "features"
PAPER_PANEL = "The paper's table"
RAY_PANEL = "On several CPUs, GPUs or machines"

Metrics = Annotated[
    str | None, typer.Option(help="Names with ',' between; see --list-metrics.", show_default="all of them", metavar="NAME,NAME")
]
Extractors = Annotated[
    list[str] | None,
    typer.Option(
        "--extractor",
        help="A network to measure with: judge, viclip, clip, siglip2, dinov2, videomae or i3d, and its weights; may be repeated.",
        metavar="NAME[=FOLDER, FILE OR HUB ID]",
        show_default=False,
    ),
]


def evaluate(
    films: Annotated[list[Path] | None, typer.Argument(help="Films' folders, videos, or folders of them.", show_default=False)] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two generators' films, side by side, instead.", metavar="A B", show_default=False)
    ] = None,
    storyboards: Annotated[
        str | None,
        typer.Option(
            help="Captions, matched by name: a folder of storyboards, of ST-Bench or of EntityBench, or benchmark, or playhouse.",
            show_default="those in films' folders",
        ),
    ] = None,
    cuts: Annotated[
        Path | None,
        typer.Option(
            help="A folder with a list of cuts for each video, fox.json for fox.mp4.", show_default="fox.cuts.json, else detected"
        ),
    ] = None,
    metrics: Metrics = None,
    extractor: Extractors = None,
    reference: Annotated[Path | None, typer.Option(help="Videos to compare the films with, for FVD.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of results, report and features.")] = Path("evaluation"),
    device: options.Device = None,
    offline: options.Offline = False,
    list_metrics: Annotated[bool, typer.Option("--list-metrics", help="Say what each metric is and stop.")] = False,
    reproduce_paper: Annotated[
        bool,
        typer.Option("--reproduce-paper", help="Make the films of the paper's table first, in four ways.", rich_help_panel=PAPER_PANEL),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="A model folder, or a Hub id.", show_default="built-in", rich_help_panel=PAPER_PANEL)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit of a Hub id.", show_default="main", rich_help_panel=PAPER_PANEL)
    ] = None,
    baseline_model: Annotated[
        str | None,
        typer.Option(help="For scenes made by themselves, such as a CogVideoX.", show_default="--model", rich_help_panel=PAPER_PANEL),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps.", show_default="the model's", min=1, rich_help_panel=PAPER_PANEL)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all films.", show_default="0", min=0, rich_help_panel=PAPER_PANEL)] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many storyboards.", show_default=False, min=1, rich_help_panel=PAPER_PANEL)
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Stay within this, such as 12GiB.", show_default="what is free", rich_help_panel=PAPER_PANEL)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="the model's", rich_help_panel=PAPER_PANEL)
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Look at films side by side, with Ray.", rich_help_panel=RAY_PANEL)] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster; implies --ray.", show_default="RAY_ADDRESS, or this machine", rich_help_panel=RAY_PANEL),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="With --ray: films at a time.", show_default="the GPUs or the CPUs", rich_help_panel=RAY_PANEL, min=1)
    ] = None,
) -> None:
    """Measure films of several scenes, anyone's.

    A film that cannot be read does not stop the others. What was seen is kept in the output's folder, so that the same command goes on
    where it was, and another metric needs no second look. The exit status is 1 if a film could not be measured. See docs/evaluation.md.
    """
    if list_metrics:
        _list_metrics()
        return
    ray = ray or ray_address is not None
    if workers is not None and not ray:
        raise InputError("--workers: got no --ray, expected it with --workers; add --ray, or leave --workers out")
    specs = extractor_specs([*(extractor or []), *(["viclip"] if reproduce_paper and not _sees_and_reads(extractor) else [])])
    making = Making(model, baseline_model, revision, steps, seed, limit, offline, memory, device, dtype)
    if not reproduce_paper:
        making.refuse()
    groups = _groups(films, compare, reproduce_paper)

    from mask2dit.cli.progress import shown_notes, shown_progress

    with shown_notes() as console:
        from mask2dit.evaluation.films import find_films
        from mask2dit.evaluation.measuring import choose
        from mask2dit.evaluation.metrics import METRICS
        from mask2dit.ray_cluster import imported_ray

        if ray:
            imported_ray()
        asked = storyboards or ("benchmark" if reproduce_paper else None)
        prompts = None if asked is None else _prompts(asked, limit)
        load = partial(load_extractors, specs, device, offline)
        networks = load()
        chosen = choose(metric_names(metrics, METRICS), networks)
        if reproduce_paper and prompts is not None:
            groups = {name: [path] for name, path in make_all(list(prompts.values()), making, output).items()}
        found = {name: find_films(paths, prompts, cuts) for name, paths in groups.items()}
        compared_with = find_films([reference]) if reference is not None else None
        on_ray = {"load": load, "address": ray_address, "workers": workers} if ray else None
        with shown_progress(console) as progress:
            results = _measured(found, compared_with, str(reference), chosen, networks, output / STORE, progress, on_ray)
        show(results, output)
        if reproduce_paper:
            typer.echo("\n" + "\n".join(beside_published(results)))
    if any(film.problem for group in results.groups for film in group.films):
        raise typer.Exit(1)


def _measured(
    films: "Mapping[str, Sequence[FilmSource]]",
    compared_with: "Sequence[FilmSource] | None",
    name: str,
    chosen: "Sequence[Chosen]",
    networks: "Mapping[str, Extractor]",
    folder: Path,
    progress: "Progress",
    on_ray: dict[str, Any] | None,
) -> "Results":
    """Look at all films, here or on Ray, and compute. compared_with: the films of FVD's reference, and what it is called."""
    from datetime import UTC, datetime

    from mask2dit.evaluation.features import Store
    from mask2dit.evaluation.measuring import gather, measure, wanted_features

    store, problems = Store(folder, networks), {}
    distances = [each for each in chosen if getattr(each.metric, "needs_reference", False)]  # all that a reference is looked at for
    if on_ray is not None:
        from mask2dit.evaluation.ray_measuring import look_on_ray

        every = [film for group in (*films.values(), compared_with or ()) for film in group]
        problems = look_on_ray(every, folder, wanted=wanted_features(chosen), progress=progress, **on_ray)
    gathered = gather(films, store, chosen, progress, problems)
    reference = None
    if compared_with is not None:
        reference = name, gather({"": compared_with}, store, distances, progress, problems)[""]
    return measure(gathered, chosen, networks, machine(), reference, datetime.now(UTC).isoformat(timespec="seconds"))


def _sees_and_reads(extractor: list[str] | None) -> bool:
    """Whether one of them can tell how well a scene shows its caption."""
    from mask2dit.evaluation.metrics.base import VIDEO

    return any(each.partition("=")[0] in VIDEO for each in extractor or [])


def show(results: "Results", output: Path) -> None:
    """Write results and report, and print the table."""
    from rich.console import Console

    from mask2dit.cli.files import write_text
    from mask2dit.evaluation.report import report

    write_text(output / RESULTS, results.model_dump_json(indent=1) + "\n")
    write_text(output / REPORT, report(results))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    _print(results, console)
    typer.echo(f"Wrote {output / REPORT} and {RESULTS}")


# What is asked


def _groups(films: list[Path] | None, compare: tuple[Path, Path] | None, reproduce: bool) -> dict[str, list[Path]]:
    """Films by group: one of all, or two to compare."""
    if reproduce:
        if films or compare:
            raise InputError("--reproduce-paper: makes its own films, expected none with it; leave films and --compare out")
        return {}
    if (films is None) == (compare is None):
        got = "nothing" if films is None else "films and --compare"
        raise InputError(f"evaluate: got {got}, expected films, or --compare A B; for example mask2dit evaluate films")
    if compare is None:
        return {"films": films or []}
    one, other = (path.resolve() for path in compare)
    if one == other:
        raise InputError(f"--compare: got {one.name} twice, expected two generators' films; name another folder")
    return {one.name: [compare[0]], other.name: [compare[1]]} if one.name != other.name else {str(path): [path] for path in compare}


def _prompts(asked: str, limit: int | None) -> "Mapping[str, PromptSetItem]":
    from mask2dit.evaluation.prompt_sets import load_prompt_set

    return {item.name: item for item in load_prompt_set(asked)[:limit]}


def metric_names(asked: str | None, every: Mapping[str, object]) -> list[str]:
    """Names of metrics as typed; None is all. Unknown ones are found by who looks them up."""
    names = list(every) if asked is None else [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise InputError(f"--metrics: got {asked!r}, expected some of {', '.join(every)}; leave it out for all of them")
    return names


def extractor_specs(asked: Sequence[str]) -> dict[str, str | None]:
    """name → weights, from NAME=WEIGHTS. Raises InputError."""
    from mask2dit.extractors import NAMES

    specs: dict[str, str | None] = {}
    for text in asked:
        name, _, weights = text.partition("=")
        if name not in ("judge", *NAMES):
            raise InputError(f"--extractor: got {name!r}, expected one of judge, {', '.join(NAMES)}; check the spelling")
        if name in specs:
            raise InputError(f"--extractor: got {name} twice, expected each name once; leave one out")
        specs[name] = str(Path(weights).resolve()) if weights and os.path.exists(weights) else weights or None  # workers have other folders
    return specs


def load_extractors(specs: Mapping[str, str | None], device: str | None, offline: bool) -> "dict[str, Extractor]":
    """Load networks by name; raises InputError or ModelError for weights that do not fit, before any film is looked at."""
    from mask2dit.cli.machine import checked_device
    from mask2dit.extractors import load_extractor

    loaded: dict[str, Extractor] = {}
    where = checked_device(device) if specs else "cpu"
    for name, weights in specs.items():
        if name == "judge":
            from mask2dit.playhouse.features import JudgeExtractor
            from mask2dit.playhouse.judge import load_judge

            loaded[name] = JudgeExtractor(load_judge(Path(weights) if weights else None).to(where))
        else:
            loaded[name] = load_extractor(name, weights, device=where, offline=offline)
    return loaded


def machine() -> dict[str, str]:
    """What the numbers were made on."""
    from importlib.metadata import version

    names = ("mask2dit", "torch", "transformers", "av", "numpy")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"platform": platform.platform(), "cores": str(cores), "python": platform.python_version()} | {
        name: version(name) for name in names
    }


# What is told


def _list_metrics() -> None:
    from mask2dit.evaluation.metrics import METRICS

    for metric in METRICS.values():
        needs = f"; extractors: {', '.join(metric.prefers)}" if metric.needs else ""
        typer.echo(f"{metric.name:24} {metric.about}{needs}")


def _print(results: "Results", console: "Console") -> None:
    table, instruments = _table(results)
    console.print(table)
    for line in (*instruments, *([f"reference: {results.reference}"] if results.reference else [])):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    for comparison in results.comparisons:
        console.print(f"\n{comparison.one} − {comparison.other}, film by film (*: the interval leaves out 0)", markup=False)
        reasons: dict[str, None] = {}
        for metric in results.metrics:
            number = comparison.differences[metric.name]
            if number.value is None:
                reasons[number.reason] = None
                continue
            clear = number.interval is not None and not number.interval[0] <= 0 <= number.interval[1]
            console.print(f"  {metric.title:52} {written(number, metric, sign=True)}{'  *' if clear else ''}", markup=False)
        for reason in reasons:
            console.print(f"  not compared: {reason}", style="yellow", markup=False)
    for line in _notes(results):
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def _table(results: "Results") -> tuple["Table", list[str]]:
    """The table, and what its last column stands for."""
    from rich.table import Table

    instruments: dict[str, int] = {}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("metric")
    for group in results.groups:
        table.add_column(f"{group.name}: value, 95 % interval, films", justify="right")
    table.add_column("with", style="dim")
    for metric in results.metrics:
        numbers = [group.values[metric.name] for group in results.groups]
        if any(number.value is not None for number in numbers):
            unit = f" ({metric.unit})" if metric.unit else ""
            number = instruments.setdefault(metric.instrument, len(instruments) + 1)
            table.add_row(metric.title + unit, *(written(each, metric) for each in numbers), str(number))
    return table, [f"{number}: {instrument}" for instrument, number in instruments.items()]


def written(number: "Number", metric: "MetricAbout", sign: bool = False) -> str:
    """A number with its interval and n, as people read it."""
    if number.value is None:
        return "–"
    form = f"{{:{'+' if sign else ''}.{_digits(number, metric)}f}}"
    text = form.format(number.value * metric.scale)
    if number.interval is not None:
        low, high = (form.format(each * metric.scale) for each in number.interval)
        text += f"  [{low}, {high}]"
    return f"{text}  n={number.num_films}" + (f", {number.count} scenes" if metric.of_set and number.count else "")


def _digits(number: "Number", metric: "MetricAbout") -> int:
    size = abs((number.value or 0) * metric.scale)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if metric.unit else 3


def _notes(results: "Results") -> list[str]:
    """What is missing and why."""
    notes: dict[str, None] = {}
    for group in results.groups:
        of = f" of {group.name}" if len(results.groups) > 1 else ""
        for metric in results.metrics:
            number = group.values[metric.name]
            if number.value is None:
                notes[f"not computed: {metric.name}{of}: {number.reason}"] = None
            elif number.reason:
                notes[f"{metric.name}{of}: {number.reason}"] = None
        for film in group.films:
            if film.problem:
                notes[f"left out: {film.name}{of}: {film.problem}"] = None
            for note in film.notes:
                notes[f"note: {film.name}{of}: {note}"] = None
    return list(notes)
