"""`mask2dit curate`: long footage becomes a training set of scene groups with captions."""

import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mask2dit.cli import model_options as options
from mask2dit.cli.keys import GEMINI_KEYS, OPENAI_KEYS, read_key
from mask2dit.curation.settings import VALIDATION, CheckSettings, ShotSettings
from mask2dit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mask2dit.curation.captioners.base import Captioner
    from mask2dit.curation.captioners.opening import Kind
    from mask2dit.curation.captions import TokenLimit
    from mask2dit.curation.curating import Plan
    from mask2dit.extractors.base import Extractor
    from mask2dit.playhouse.features import JudgeExtractor

    Load = Callable[[], Mapping[str, Extractor]]

CAPTIONERS = ("openai", "gemini", "local", "truth", "judge")
IDENTITY, JUDGE = "judge-who", "judge"
PAPER_TOKENS = 226

FINDING, CHECKING = ShotSettings(), CheckSettings()
SHOTS, GROUPS, CAPTIONS, WORKERS = "Shots", "Groups", "Captions", "On several CPUs, GPUs or machines"


def curate(
    footage: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of them.", show_default=False)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The set's folder.")] = Path("curated"),
    explain: Annotated[
        str | None, typer.Option(help="Say of one video of the set why each shot was kept or dropped, and stop.", show_default=False)
    ] = None,
    until: Annotated[
        str, typer.Option(help="The last step: pieces, shots, checks, groups, captions, reviews or export.", metavar="STEP")
    ] = "export",
    validation: Annotated[float, typer.Option(help="Share of the videos that is held out for validation.")] = VALIDATION,
    shards: Annotated[
        int | None, typer.Option(help="Write webdataset shards, too, of so many groups each.", min=1, show_default=False)
    ] = None,
    detector: Annotated[str, typer.Option(help="adaptive, content or transnetv2.", rich_help_panel=SHOTS)] = FINDING.detector,
    min_seconds: Annotated[float, typer.Option(help="Shorter shots are dropped.", rich_help_panel=SHOTS, min=0)] = CHECKING.min_seconds,
    max_seconds: Annotated[float, typer.Option(help="Longer shots are split.", rich_help_panel=SHOTS, min=0.1)] = FINDING.max_seconds,
    max_text: Annotated[
        float, typer.Option(help="Share of the picture that text may take; 1: any.", rich_help_panel=SHOTS)
    ] = CHECKING.max_text,
    min_motion: Annotated[
        float, typer.Option(help="% of the picture per second; see the report.", rich_help_panel=SHOTS)
    ] = CHECKING.min_motion,
    piece_minutes: Annotated[
        float, typer.Option(help="Length of the pieces that are worked at side by side.", rich_help_panel=SHOTS, min=0.01)
    ] = FINDING.piece_seconds / 60,
    extractor: Annotated[
        str,
        typer.Option(
            help="What relevance is measured with: colours, viclip, clip, siglip2, dinov2, videomae, i3d or judge, and its weights.",
            metavar="NAME[=FOLDER, FILE OR HUB ID]",
            rich_help_panel=GROUPS,
        ),
    ] = "colours",
    lower: Annotated[float | None, typer.Option(help="Least relevance.", show_default="the extractor's", rich_help_panel=GROUPS)] = None,
    upper: Annotated[
        float | None, typer.Option(help="Above it: the same picture.", show_default="the extractor's", rich_help_panel=GROUPS)
    ] = None,
    group_size: Annotated[str, typer.Option(help="Shots per group: 3, or from 3 to 8 as 3-8.", rich_help_panel=GROUPS)] = "3",
    captioner: Annotated[
        str | None, typer.Option(help=f"Who writes captions: {', '.join(CAPTIONERS)}.", show_default="nobody", rich_help_panel=CAPTIONS)
    ] = None,
    caption_model: Annotated[
        str | None,
        typer.Option(help="The endpoint's model, or the folder of a local one.", show_default=False, rich_help_panel=CAPTIONS),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENAI_BASE_URL", help="The endpoint, as http://localhost:8000/v1.", show_default=False, rich_help_panel=CAPTIONS
        ),
    ] = None,
    key_env: Annotated[
        str | None,
        typer.Option(
            help="The environment variable that holds the key.",
            show_default=f"{' or '.join(OPENAI_KEYS)}; for gemini {' or '.join(GEMINI_KEYS)}",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(help="For this set, ever.", show_default="no limit", rich_help_panel=CAPTIONS, min=0)
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="For this set, ever; needs the prices.", show_default="no limit", rich_help_panel=CAPTIONS)
    ] = None,
    price_in: Annotated[float | None, typer.Option(help="Per million tokens asked.", show_default=False, rich_help_panel=CAPTIONS)] = None,
    price_out: Annotated[
        float | None, typer.Option(help="Per million tokens answered.", show_default=False, rich_help_panel=CAPTIONS)
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(help="At an even pace.", show_default="no limit", rich_help_panel=CAPTIONS)
    ] = None,
    at_once: Annotated[int, typer.Option(help="Groups that an endpoint describes at a time.", rich_help_panel=CAPTIONS, min=1)] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer, per try.", rich_help_panel=CAPTIONS, min=0.1)] = 120.0,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to be trained: its folder or Hub id, or built-in. Its tokenizer counts the captions' tokens.",
            show_default=f"{PAPER_TOKENS} tokens, estimated; built-in for truth and judge",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    device: options.Device = None,
    offline: options.Offline = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes, with Ray Data.", show_default="this one alone", rich_help_panel=WORKERS, min=1)
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", help="Address of a Ray cluster, or auto.", metavar="ADDRESS", show_default=False, rich_help_panel=WORKERS),
    ] = None,
) -> None:
    """Turn long footage into a training set: groups of shots that belong together, with captions that name characters alike.

    The same command goes on where it was, and does only what is missing; a file that cannot be read does not stop the others. A report
    shows what was kept and why. The exit status is 1 if something could not be done. See docs/curation.md.
    """
    if explain is not None:
        _explain(output, explain)
        return
    if not footage:
        raise InputError("curate: got no footage, expected videos or folders of them; for example mask2dit curate footage -o set")

    from mask2dit.cli.progress import shown_notes, shown_progress

    with shown_notes() as console:
        from mask2dit.curation.curating import REPORT, Plan, curate
        from mask2dit.curation.groups import THRESHOLDS, GroupSettings, read_sizes
        from mask2dit.curation.pieces import find_footage
        from mask2dit.curation.running import place_for

        specs, relevance, thresholds = _extractor(extractor, captioner)
        default_lower, default_upper = THRESHOLDS[thresholds]
        sizes = read_sizes(group_size)
        on_ray = ray is not None or (workers or 1) > 1
        where = device if on_ray else _device(device)  # Ray's machines have devices of their own
        asked = _Asked(
            captioner, caption_model, base_url, key_env, max_requests, max_cost, price_in, price_out, requests_per_minute, at_once, timeout
        )
        load = partial(load_networks, tuple(specs.items()), where, offline)
        tokens = _tokens(model, captioner, offline)
        with _captioner(asked, output, where or "cpu", load) as opened:
            plan = Plan(
                output,
                find_footage(footage, output),
                load,
                relevance,
                GroupSettings(default_lower if lower is None else lower, default_upper if upper is None else upper, *sizes),
                tokens,
                opened,
                ShotSettings(detector, max_seconds, piece_minutes * 60),
                CheckSettings(min_seconds=min_seconds, max_text=max_text, min_motion=min_motion),
                validation,
                shards,
                until,
                "cpu" if on_ray else str(where),
                on_gpu=device != "cpu",
            )
            try:
                with place_for(ray, workers) as place, shown_progress(console) as progress:
                    outcome = curate(plan, place, progress)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("interrupted; what was found is kept, and the same command goes on") from None
        for line in outcome.lines:
            typer.echo(line)
        typer.echo(f"Wrote {output / REPORT}")
        _tell_problems(plan)
    if not outcome.is_whole:
        raise typer.Exit(1)


def _explain(output: Path, video: str) -> None:
    from mask2dit.curation.curating import ROWS
    from mask2dit.curation.explaining import explain

    for line in explain(output / ROWS, video):
        typer.echo(line)


def _tell_problems(plan: "Plan") -> None:
    from mask2dit.curation.curating import ROWS
    from mask2dit.curation.rows import ScanRow, VideoRow, read_rows

    told = [("left out", row.name, row.problem) for row in read_rows(plan.folder / ROWS, VideoRow)]
    told += [("in part", row.name, row.problem) for row in read_rows(plan.folder / ROWS, ScanRow)]
    for what, name, problem in told:
        if problem:  # names may hold what a terminal obeys
            typer.echo("".join(letter if letter.isprintable() else "�" for letter in f"{what}: {name}: {problem}"), err=True)


def _device(device: str | None) -> str:
    from mask2dit.cli.machine import checked_device

    return str(checked_device(device))


# Extractors


def _extractor(asked: str, captioner: str | None) -> tuple[dict[str, str | None], str, str]:
    """name → weights of all that are needed, the one that groups are made by, and whose thresholds it has."""
    from mask2dit.cli.evaluate import extractor_specs

    ((name, weights),) = extractor_specs([asked]).items()
    specs = {IDENTITY if name == JUDGE else name: weights}
    relevance = next(iter(specs))
    if captioner == JUDGE:
        specs[JUDGE] = weights if name == JUDGE else None
    return specs, relevance, name


@cache
def load_networks(specs: "tuple[tuple[str, str | None], ...]", device: str | None, offline: bool) -> "Mapping[str, Extractor]":
    """Load extractors by name; the judge as two: what groups are made by is only who is on stage."""
    from mask2dit.cli.evaluate import load_extractors

    loaded: dict[str, Extractor] = {}
    for name, weights in specs:
        if name == IDENTITY:
            from mask2dit.playhouse.features import IDENTITY as WHO
            from mask2dit.playhouse.features import JudgeExtractor
            from mask2dit.playhouse.judge import load_judge

            loaded[name] = JudgeExtractor(load_judge(Path(weights) if weights else None).to(_device(device)), WHO)
        else:
            loaded |= load_extractors({name: weights}, device, offline)
    return loaded


# Captions


@dataclass(frozen=True)
class _Asked:
    """The options of a captioner, as typed."""

    kind: str | None
    model: str | None
    base_url: str | None
    key_env: str | None
    max_requests: int | None
    max_cost: float | None
    price_in: float | None
    price_out: float | None
    requests_per_minute: float | None
    at_once: int
    timeout: float


@contextmanager
def _captioner(asked: _Asked, output: Path, device: str, load: "Load") -> "Iterator[Captioner | None]":
    if asked.kind is None:
        yield None
        return
    if asked.kind not in CAPTIONERS:
        raise InputError(f"--captioner: got {asked.kind!r}, expected one of {', '.join(CAPTIONERS)}; choose one of them")
    if asked.kind in ("truth", JUDGE):
        from mask2dit.curation.captioners.playhouse import JudgeCaptioner, TruthCaptioner

        yield TruthCaptioner() if asked.kind == "truth" else JudgeCaptioner(cast("JudgeExtractor", load()[JUDGE]))
        return
    from mask2dit.curation.captioners.opening import CaptionerSettings, open_captioner
    from mask2dit.curation.captioners.spending import Budget

    if not asked.model:
        raise InputError(f"--captioner {asked.kind}: got no model, expected its name or folder; name it with --caption-model")
    if asked.kind == "openai" and not asked.base_url:
        raise InputError(
            "--captioner openai: got no endpoint, expected --base-url or OPENAI_BASE_URL; for example http://localhost:8000/v1"
        )
    budget = Budget(asked.max_requests, asked.max_cost, asked.price_in, asked.price_out, asked.requests_per_minute)
    settings = CaptionerSettings(
        cast("Kind", asked.kind),
        asked.model,
        "" if asked.kind == "local" else _base_url(asked),
        "" if asked.kind == "local" else read_key(asked.key_env, GEMINI_KEYS if asked.kind == "gemini" else OPENAI_KEYS),
        asked.timeout,
        at_once=asked.at_once,
        budget=budget,
        device=device,
    )
    with open_captioner(settings, output / "captions", tell=lambda said: typer.echo(f"note: {said}", err=True)) as opened:
        yield opened


def _base_url(asked: _Asked) -> str:
    # OPENAI_BASE_URL is not meant for Gemini.
    from_environment = asked.base_url == os.environ.get("OPENAI_BASE_URL")
    return "" if asked.base_url is None or (asked.kind == "gemini" and from_environment) else str(asked.base_url)


def _tokens(model: str | None, captioner: str | None, offline: bool) -> "TokenLimit":
    """How long captions may be, and who counts."""
    from mask2dit.curation.captions import TokenLimit, estimated_tokens

    if model is None and captioner not in ("truth", JUDGE):
        return TokenLimit(PAPER_TOKENS, estimated_tokens, "estimated from words, for T5")
    from mask2dit.loading import find_model, load_component
    from mask2dit.model_folder import check_model_folder, load_config
    from mask2dit.text import count_tokens

    folder = find_model(None if model == "built-in" else model, offline=offline)
    check_model_folder(folder)
    tokenizer, most = load_component(folder, "tokenizer"), load_config(folder, "transformer")["max_text_seq_length"]
    return TokenLimit(most, lambda caption: count_tokens(caption, tokenizer), f"the tokenizer of {model or 'the built-in model'}")
