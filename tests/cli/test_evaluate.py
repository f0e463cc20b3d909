"""`mask2dit evaluate`: a table, a report and JSON; or one clear line."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import Result

import tiny_extractors
from foreign_films import footage
from mask2dit.cli import evaluate as evaluate_module
from mask2dit.cli.reproduce import PUBLISHED, WAYS
from mask2dit.evaluation.measuring import Results
from mask2dit.storyboard import Storyboard

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with their cuts, and storyboards of their names."""
    folder = tmp_path_factory.mktemp("made")
    for name, sources in {"one": ("testsrc2", "mandelbrot"), "two": ("gradients", "life")}.items():
        parts = tuple(footage.Part(source, 12) for source in sources)
        footage.write_film(footage.Plan(name, parts, Fraction(12), (48, 64)), folder / "films")
        Storyboard.from_captions(["Actor1 (the fox) walks in the meadow", "Actor1 (the fox) sleeps"]).write(
            folder / "boards" / f"{name}.yaml"
        )
    return folder


@pytest.fixture
def films(command: Command, made: Path) -> Path:
    shutil.copytree(made, Path(), dirs_exist_ok=True)
    return Path("films")


def results(folder: str = "evaluation") -> Results:
    return Results.model_validate_json((Path(folder) / "results.json").read_text())


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    for part in parts:
        assert part in lines[0], (part, lines[0])


def test_without_any_network_cuts_motion_and_colours_are_measured(command: Command, films: Path) -> None:
    result = command("evaluate", films)
    assert result.exit_code == 0, result.output
    assert "Shot cut accuracy" in result.output and "1.000  [1.000, 1.000]  n=2" in result.output and "PySceneDetect" in result.output
    assert "not computed: visual-consistency: needs an extractor; add --extractor with one of viclip" in result.output
    (group,) = results().groups
    assert {film.name for film in group.films} == {"one", "two"} and group.values["dynamic-degree"].value > 1
    page = Path("evaluation/report.html").read_text()
    assert "Shot cut accuracy" in page and "http-equiv" in page


def test_captions_and_networks_give_everything(command: Command, films: Path) -> None:
    clip = tiny_extractors.clip(Path("clip"))
    words = ("--storyboards", "boards", "--extractor", f"clip={clip}", "--extractor", "judge", "--reference", films)
    result = command("evaluate", films, *words)
    assert result.exit_code == 0, result.output
    values = results().groups[0].values
    assert {name for name, number in values.items() if number.value is None} == set()
    assert values["fvd"].value == pytest.approx(0, abs=1e-4) and values["inter-scene-consistency"].count == 2
    instruments = {about.name: about.instrument for about in results().metrics}
    assert instruments["visual-consistency"].startswith("clip (clip · ") and instruments["fvd"].startswith("judge (level A · ")
    again = command("evaluate", films, *words, "--metrics", "semantic-consistency, sca")
    assert again.exit_code == 0 and [about.name for about in results().metrics] == ["semantic-consistency", "sca"]


def test_two_generators_side_by_side(command: Command, films: Path) -> None:
    shutil.copytree(films, "still")
    for name in ("one", "two"):
        footage.encode(Path(f"still/{name}.mp4"), [np.full((48, 64, 3), level, np.uint8) for level in [60] * 12 + [180] * 12], Fraction(12))
    result = command("evaluate", "--compare", films, "still", "-o", "both")
    assert result.exit_code == 0, result.output
    assert "films − still, film by film" in result.output
    (comparison,) = results("both").comparisons
    assert comparison.differences["dynamic-degree"].value > 1
    other = command("evaluate", "--compare", films / "one.mp4", "still/two.mp4", "-o", "single")
    assert other.exit_code == 0 and results("single").comparisons[0].differences["dynamic-degree"].num_films == 1


def test_one_bad_film_stops_no_other_and_shows_in_the_status(command: Command, films: Path) -> None:
    (films / "bad.mp4").write_text("no video")
    result = command("evaluate", films)
    assert result.exit_code == 1 and "left out: bad: films/bad.mp4: cannot be read as a video" in result.output
    assert results().groups[0].values["sca"].num_films == 2 and "bad" in Path("evaluation/report.html").read_text()


def test_only_bad_films_give_no_zero(command: Command) -> None:
    Path("bad.mp4").write_text("no video")
    result = command("evaluate", "bad.mp4")
    assert result.exit_code == 1 and "not computed: sca: no film could be measured" in result.output


def test_a_variable_frame_rate(command: Command) -> None:
    with av.open("vfr.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 240)
        for index, time in enumerate([*range(0, 240, 10), *range(240, 720, 20)]):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 if index < 24 else 200, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 240)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    result = command("evaluate", "vfr.mkv")
    assert result.exit_code == 0, result.output
    (film,) = results().groups[0].films
    (cut,) = film.found_cuts
    assert cut / film.fps == pytest.approx(1.0, abs=0.1) and film.scenes[-1][1] / film.fps == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("got nothing", "--compare A B")),
        (("films", "--compare", "films", "boards"), ("films and --compare",)),
        (("missing",), ("no such file",)),
        (("films", "--metrics", "beauty"), ("--metrics: got 'beauty'", "visual-consistency")),
        (("films", "--extractor", "resnet"), ("--extractor: got 'resnet'", "viclip, clip")),
        (("films", "--extractor", "judge", "--extractor", "judge"), ("judge twice",)),
        (("films", "--extractor", "clip=boards"), ("boards",)),
        (("films", "--extractor", "judge=boards"), ("boards", "no judge here")),
        (("films", "--storyboards", "nothing"), ("no such prompt set",)),
        (("films", "--storyboards", "playhouse"), ("none of which is named like a film",)),
        (("films", "--reference", "nothing"), ("nothing", "no such file")),
        (("films", "--workers", "2"), ("--ray",)),
        (("--compare", "films", "./films"), ("--compare: got films twice",)),
        (("films", "--cuts", "nothing"), ("--cuts: got nothing, expected a folder",)),
        (("films", "--metrics", ","), ("--metrics: got ','",)),
        (("films", "--limit", "1"), ("--limit: got 1", "--reproduce-paper")),
        (("films", "--steps", "2"), ("--steps: got 2", "--reproduce-paper")),
        (("films", "--reproduce-paper"), ("makes its own films",)),
        (("films", "--device", "cuda:77", "--extractor", "judge"), ("--device",)),
    ],
)
def test_mistakes_end_in_one_line_before_any_film_is_looked_at(
    command: Command, films: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    refused(command("evaluate", *words), *parts)
    assert not Path("evaluation").exists()


def test_metrics_are_listed(command: Command) -> None:
    result = command("evaluate", "--list-metrics")
    assert result.exit_code == 0 and result.output.count("\n") == 14 and "extractors: dinov2" in result.output


@pytest.mark.slow
def test_the_papers_table_is_made_and_measured_by_one_command(command: Command) -> None:
    boards = {"fox": "the red fox walks right in the meadow; the red fox jumps on the beach; the red fox sleeps in the forest at night"}
    for name, text in boards.items():
        Storyboard.from_text(text).write(Path("boards") / f"{name}.yaml")
    words = ("evaluate", "--reproduce-paper", "--storyboards", "boards", "--steps", 1, "--extractor", "judge")
    result = command(*words)
    assert result.exit_code == 0, result.output
    assert "4 films: about " in result.output and "published: Mask²DiT" in result.output and "here: extension" in result.output
    assert [group.name for group in results().groups] == [way.name for way in WAYS]
    runs = {way.name: json.loads(Path(f"evaluation/films/{way.name}/fox/run.json").read_text()) for way in WAYS}
    jointly = {name: [len(take["jointly"]) for take in run["takes"]] for name, run in runs.items()}
    known = {name: [len(take["known"]) for take in run["takes"]] for name, run in runs.items()}
    assert jointly == {"scene-by-scene": [0, 0, 0], "full": [2, 2, 2], "symmetric": [2, 2, 2], "extension": [1, 1, 0]}
    assert known == {"scene-by-scene": [0] * 3, "full": [0] * 3, "symmetric": [0] * 3, "extension": [0, 0, 2]}
    assert {run["made_with"]["attention_plan"] for run in runs.values()} == {"full", "symmetric"}
    before = {path: path.stat().st_mtime_ns for path in Path("evaluation/films").rglob("take-*.mp4")}
    again = command(*words)
    assert again.exit_code == 0 and {path: path.stat().st_mtime_ns for path in Path("evaluation/films").rglob("take-*.mp4")} == before
    for visual, semantic, sequence, _ in PUBLISHED.values():
        assert (visual + semantic) / 2 == pytest.approx(sequence, abs=0.0051)


def test_extractors_by_name_are_those_there_are() -> None:
    assert evaluate_module.extractor_specs(["clip=a/b", "judge"]) == {"clip": "a/b", "judge": None}
