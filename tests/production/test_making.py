"""Making a film: what lies in the folder, and that nothing finished is lost or made twice."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mask2dit import film
from mask2dit.errors import InputError, Mask2DiTError, OutputError, StoryboardError
from mask2dit.files import written_aside
from mask2dit.loading import load_pipeline
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import Directions, FilmInterrupted, FilmSettings, ModelAsked, make_film, scene_generator
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import read_video
from production.filming import SETTINGS, STEPS, Watched, files_in, press_control_c

ALL_STAGES = ["encoding", "denoising", "decoding", "joining"]
FILES = ["contact_sheet.png", "film.edl", "film.mp4", "film.otio", "film.webp", "index.html", "run.json", "storyboard.yaml"]
TAKE_FILES = [f"takes/scene-0{number}/take-1.{kind}" for number in (1, 2, 3) for kind in ("mp4", "safetensors")]
SCENE_FILES = [f"latents/scene-0{number}.safetensors" for number in (1, 2, 3)] + [f"scenes/scene-0{number}.mp4" for number in (1, 2, 3)]


def test_the_folder_holds_everything_and_nothing_else(whole: Path) -> None:
    assert sorted(files_in(whole)) == sorted(FILES + SCENE_FILES + TAKE_FILES)


def test_files_are_what_they_say(whole: Path, pipeline: Mask2DiTPipeline, board: Storyboard) -> None:
    values = pipeline.values
    size = (values.height * 2, values.width * 2)
    scenes = [read_video(whole / "scenes" / f"scene-0{number}.mp4") for number in (1, 2, 3)]
    assert [scene.shape for scene in scenes] == [(values.num_frames, *size, 3)] * 3
    assert np.array_equal(read_video(whole / "film.mp4"), np.concatenate(scenes))
    with av.open(str(whole / "film.mp4")) as container:
        assert container.streams.video[0].average_rate == values.fps
    with Image.open(whole / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 500
    with Image.open(whole / "film.webp") as preview:
        assert preview.n_frames == 3 * values.num_frames and (whole / "film.webp").stat().st_size <= 2_000_000
    assert Storyboard.read(whole / "storyboard.yaml") == board


def test_videos_show_what_the_pipeline_makes(whole: Path, pipeline: Mask2DiTPipeline, board: Storyboard) -> None:
    """The same call with the same generators, without any folder."""
    generators = [scene_generator(0, number) for number in (1, 2, 3)]
    result = pipeline(board, num_inference_steps=STEPS, generator=generators, output_type="latent")
    for number, latents in enumerate(result.scenes, start=1):
        assert torch.equal(load_file(whole / "latents" / f"scene-0{number}.safetensors")["latents"], latents)
        frames = film.frames_to_bytes(pipeline.decode_scene(latents))
        shown = read_video(whole / "scenes" / f"scene-0{number}.mp4")
        luma = np.array([0.2126, 0.7152, 0.0722])  # a random model's pictures are noise, and colour is stored at half the size
        assert np.abs(shown @ luma - np.stack([film.enlarge(frame, 2) for frame in frames]) @ luma).mean() < 4


def test_the_record_tells_how_it_was_made(whole: Path, pipeline: Mask2DiTPipeline, board: Storyboard) -> None:
    record = json.loads((whole / "run.json").read_text())
    assert (record["status"], record["stage"], record["process"]) == ("complete", "finished", None)
    assert record["storyboard"] == board.to_data()
    assert [(scene["number"], scene["take"], scene["inputs"]["seed"]) for scene in record["scenes"]] == [(1, 1, 0), (2, 1, 0), (3, 1, 0)]
    assert [take["jointly"] for take in record["takes"]] == [[2, 3], [1, 3], [1, 2]] and not any(take["known"] for take in record["takes"])
    for take in record["takes"]:
        content = (whole / "takes" / f"scene-0{take['scene']}" / "take-1.safetensors").read_bytes()
        assert take["latents"] == hashlib.sha256(content).hexdigest()[:16]
        assert take["made_with"] == record["made_with"] and take["inputs"]["caption"] == board.captions[take["scene"] - 1]
    assert {"torch", "diffusers", "mask2dit", "python"} <= record["versions"].keys()
    assert list(record["timings_seconds"]) == ALL_STAGES and all(seconds > 0 for seconds in record["timings_seconds"].values())
    made_with = record["made_with"]
    assert made_with["num_inference_steps"] == STEPS and made_with["height"] == pipeline.values.height
    assert (made_with["model"], made_with["attention_plan"], made_with["lora"]) == ("built-in", "symmetric", None)
    assert str(whole) not in (whole / "run.json").read_text()


def test_progress_counts_every_step(pipeline: Mask2DiTPipeline, board: Storyboard, tmp_path: Path) -> None:
    watched = Watched()
    make_film(pipeline, board, tmp_path / "fox", SETTINGS, progress=watched)
    assert watched.seen == [("encoding", 1, 1), ("denoising", STEPS, STEPS), ("decoding", 3, 3), ("joining", 6, 6)]


def test_settings_and_scenes_decide(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    """A scene's own value wins over the command's, the command's over the model's."""
    step = pipeline.values.compression.size_step
    board = Storyboard(scenes=[{"prompt": "a fox", "num_frames": 5, "seed": 9, "guidance_scale": 1.5}, {"prompt": "a bear"}])
    settings = FilmSettings(
        seed=4, height=2 * step, width=3 * step, num_inference_steps=2, guidance_scale=2.5, num_frames=9, display_scale=1
    )
    record = make_film(pipeline, board, tmp_path / "film", settings, asked=ModelAsked("mine"))
    inputs = [scene.inputs for scene in record.scenes]
    assert [(each.seed, each.num_frames, each.guidance_scale) for each in inputs] == [(9, 5, 1.5), (4, 9, 2.5)]
    assert (record.made_with.model, record.made_with.num_inference_steps) == ("mine", 2)
    assert read_video(tmp_path / "film" / "film.mp4").shape == (14, 2 * step, 3 * step, 3)


def test_a_scene_keeps_its_noise_when_others_come_and_go(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    """With no denoising to mix them, the first scene of two films of different length starts from the same noise."""
    seen: list[torch.Tensor] = []
    original = pipeline._start

    def watch(*args: object) -> list[torch.Tensor]:
        scenes = original(*args)
        seen.append(scenes[0].clone())
        return scenes

    pipeline._start = watch
    try:
        for count in (1, 3):
            make_film(
                pipeline, Storyboard.from_captions(["a fox"] * count), tmp_path / str(count), replace(SETTINGS, num_inference_steps=1)
            )
    finally:
        del pipeline._start
    assert torch.equal(seen[0], seen[1])


def test_a_window_of_one_makes_every_scene_by_itself(pipeline: Mask2DiTPipeline, board: Storyboard, tmp_path: Path) -> None:
    record = make_film(pipeline, board, tmp_path / "film", replace(SETTINGS, window=1))
    assert {(take.jointly, take.known) for take in record.takes} == {((), ())}
    first = make_film(pipeline, board.with_scenes(board.scenes[:1]), tmp_path / "first", SETTINGS)
    assert record.takes[0].latents == first.takes[0].latents  # as if there were no other scene
    with pytest.raises(InputError, match="window: got 0, expected at least one scene"):
        replace(SETTINGS, window=0)


def test_the_display_scale_is_chosen(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    record = make_film(pipeline, Storyboard.from_text("a fox"), tmp_path / "film", FilmSettings(num_inference_steps=1, num_frames=1))
    assert read_video(tmp_path / "film" / "film.mp4").shape[1] == record.made_with.height * record.display_scale >= 480


# Nothing is written before everything is checked.


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"height": 7}, "height"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
    ],
)
def test_mistakes_leave_no_trace(changes: dict, error: str, pipeline: Mask2DiTPipeline, board: Storyboard, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=error):
        make_film(pipeline, board, tmp_path / "films" / "fox", replace(SETTINGS, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_caption_over_the_limit_leaves_no_trace(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    with pytest.raises((InputError, StoryboardError), match=r"scene 2, prompt: got .* tokens"):
        make_film(pipeline, Storyboard.from_captions(["a fox", "fox " * 2500]), tmp_path / "fox", SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seed": -1}, "seed: got -1"),
        ({"seed": 2**63}, "seed: got 9223372036854775808"),
        ({"guidance_scale": float("nan")}, "guidance scale: got nan"),
        ({"guidance_scale": -1.0}, "guidance scale: got -1.0"),
        ({"num_frames": 10}, "take 9 or 13"),
        ({"display_scale": 0}, "display scale: got 0"),
        ({"solver": "euler"}, "solver: got 'euler'"),
        ({"guidance_interval": (0.5, 0.5)}, "guidance interval: got 0.5-0.5"),
        ({"step_cache": "pyramid:0"}, "step cache: got 'pyramid:0'"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_model_is_loaded(values: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        FilmSettings(**values)


# Stops and going on.


@pytest.mark.parametrize(
    ("stage", "step", "on_disk", "repeated"),
    [
        ("encoding", 0, "no scene yet", ALL_STAGES),
        ("denoising", 2, "a denoising that goes on", ALL_STAGES),
        ("decoding", 0, "latents of scenes 1 to 3", ["decoding", "joining"]),
        ("decoding", 2, "latents of scenes 1 to 3, video of scenes 1 and 2", ["decoding", "joining"]),
        ("joining", 1, "latents of scenes 1 to 3, video of scenes 1 to 3", ["joining"]),
    ],
)
def test_an_interrupted_film_goes_on_where_it_stopped(
    stage: str, step: int, on_disk: str, repeated: list[str], pipeline: Mask2DiTPipeline, board: Storyboard, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "fox"
    with pytest.raises(FilmInterrupted) as caught:
        make_film(pipeline, board, folder, SETTINGS, progress=Watched(stage, step, press_control_c))
    line = str(caught.value)
    assert line.startswith(f"interrupted while {stage}; in {folder}: {on_disk}; missing: ") and "\n" not in line
    record = json.loads((folder / "run.json").read_text())
    assert (record["status"], record["stage"]) == ("interrupted", stage)
    assert [path.name for path in folder.rglob(".*")] == []

    finished = files_in(folder)
    watched = Watched()
    make_film(pipeline, board, folder, SETTINGS, progress=watched)
    assert watched.stages == repeated
    if stage == "denoising":
        assert watched.seen[1] == ("denoising", STEPS - step, STEPS - step)  # the step that was being counted is on disk
    if stage == "decoding":
        assert watched.seen[0] == ("decoding", 3 - step, 3 - step)
    now = files_in(folder)
    assert all(now[name] == finished[name] for name in finished if name.startswith(("scenes/", "latents/scene", "takes/")))
    uninterrupted = files_in(whole)
    assert {name: content for name, content in now.items() if name != "run.json"} == {
        name: content for name, content in uninterrupted.items() if name != "run.json"
    }


def test_a_killed_run_goes_on_too(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    """What a kill leaves: status running, the current file missing, a part of it beside."""
    record = json.loads((finished / "run.json").read_text())
    record["status"], record["stage"], record["takes"][2]["display_scale"] = "running", "decoding", None
    (finished / "run.json").write_text(json.dumps(record))
    video = finished / "takes" / "scene-03" / "take-1.mp4"
    video.rename(video.with_name(".take-1.part.mp4"))
    watched = Watched()
    assert make_film(pipeline, board, finished, SETTINGS, progress=watched).status == "complete"
    assert watched.seen[0] == ("decoding", 1, 1)
    assert [path.name for path in finished.rglob(".*")] == []


def test_a_finished_film_is_not_made_again(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    before = files_in(finished)
    watched = Watched()
    record = make_film(pipeline, board, finished, SETTINGS, progress=watched)
    assert (record.status, watched.seen, files_in(finished)) == ("complete", [], before)
    again = make_film(pipeline, board, finished, SETTINGS, Directions(fresh=True), progress=watched)
    assert watched.stages == ALL_STAGES and [scene.take for scene in again.scenes] == [2, 2, 2]
    assert files_in(finished)["film.mp4"] == before["film.mp4"]


@pytest.mark.parametrize(
    ("lost", "stages"),
    [
        (["film.mp4"], ["joining"]),
        (["scenes/scene-02.mp4"], ["joining"]),
        (["latents/scene-02.safetensors"], ["joining"]),
        (["takes/scene-02/take-1.mp4", "scenes/scene-02.mp4"], ["decoding", "joining"]),
        (["takes/scene-02/take-1.safetensors", "takes/scene-02/take-1.mp4", "film.mp4"], ["decoding", "joining"]),
    ],
)
def test_a_lost_file_is_made_again(
    lost: list[str], stages: list[str], pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path
) -> None:
    before = files_in(finished)
    for name in lost:
        (finished / name).unlink()
    watched = Watched()
    make_film(pipeline, board, finished, SETTINGS, progress=watched)
    assert watched.stages == stages
    now = files_in(finished)
    assert {name: now[name] for name in before if name != "run.json"} == {name: before[name] for name in before if name != "run.json"}


def test_a_damaged_video_is_decoded_again(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    before = files_in(finished)
    video = finished / "takes" / "scene-01" / "take-1.mp4"
    video.write_bytes(video.read_bytes()[:-100])  # and with it its second name in scenes/
    watched = Watched()
    make_film(pipeline, board, finished, SETTINGS, progress=watched)
    now = files_in(finished)
    assert watched.stages == ["decoding", "joining"]
    assert {name: now[name] for name in before if name != "run.json"} == {name: before[name] for name in before if name != "run.json"}
    (finished / "film.mp4").write_bytes(b"")
    make_film(pipeline, board, finished, SETTINGS)
    assert files_in(finished)["film.mp4"] == before["film.mp4"]


@pytest.mark.slow
def test_a_fresh_film_that_was_stopped_goes_on(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    """By the same command as well as by one without --fresh; and directions make what is missing."""
    longer = board.with_scenes([*board.scenes, board.scenes[0]])
    make_film(pipeline, longer, finished, SETTINGS)
    for directions in (Directions(fresh=True), Directions(stay=True)):
        with pytest.raises(FilmInterrupted):
            make_film(
                pipeline, longer, finished, SETTINGS, Directions(fresh=True), progress=Watched("denoising scene 4", 1, press_control_c)
            )
        watched = Watched()
        record = make_film(pipeline, longer, finished, SETTINGS, directions, progress=watched)
        assert "denoising" not in watched.stages and ("denoising scene 4", STEPS - 1, STEPS - 1) in watched.seen
        assert len({scene.take for scene in record.scenes}) == 1


def test_subtitles_stay_true(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    make_film(pipeline, board, finished, SETTINGS, Directions(subtitles=True))
    assert (finished / "film.srt").read_text().count("-->") == 3
    make_film(pipeline, board.with_scenes(board.scenes[:2]), finished, SETTINGS)
    assert (finished / "film.srt").read_text().count("-->") == 2


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_a_scene_whose_latents_are_lost_is_made_again_with_the_others_known(
    harm: str, pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path
) -> None:
    before = files_in(finished)
    for name in ("takes/scene-02/take-1.safetensors", "latents/scene-02.safetensors"):
        (finished / name).unlink()
        if harm == "damaged":
            (finished / name).write_bytes(b"damaged")
    record = make_film(pipeline, board, finished, SETTINGS)
    assert [scene.take for scene in record.scenes] == [1, 2, 1]
    assert [known.scene for known in record.takes[-1].known] == [1, 3]
    now = files_in(finished)
    for number in (1, 3):
        for name in (f"scenes/scene-0{number}.mp4", f"latents/scene-0{number}.safetensors"):
            assert now[name] == before[name]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"num_inference_steps": 2}, {"guidance_scale": 1.0}, {"negative_prompt": "a bear"}])
def test_other_settings_make_another_film(changes: dict, pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    before = files_in(finished)
    watched = Watched()
    make_film(pipeline, board, finished, replace(SETTINGS, **changes), progress=watched)
    assert watched.stages == ALL_STAGES
    assert files_in(finished)["film.mp4"] != before["film.mp4"]
    watched = Watched()
    make_film(pipeline, board, finished, SETTINGS, progress=watched)  # and back: the takes are there
    assert watched.stages == ["joining"]
    assert files_in(finished)["film.mp4"] == before["film.mp4"]


def test_shortcuts_are_on_record_and_make_another_film(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    board, asked = Storyboard.from_text("a red fox walks"), {"solver": "unipc", "guidance_interval": (0.0, 0.6), "step_cache": "pyramid:3"}
    settings = replace(SETTINGS, num_inference_steps=5, num_frames=1, display_scale=1, **asked)
    record = make_film(pipeline, board, tmp_path / "fox", settings)
    generator = [scene_generator(0, 1)]
    made = pipeline(board, num_frames=1, num_inference_steps=5, generator=generator, output_type="latent", **asked).scenes[0]
    assert torch.equal(load_file(tmp_path / "fox" / "latents" / "scene-01.safetensors")["latents"], made)
    assert {name: getattr(record.made_with, name) for name in asked} == asked
    assert record.made_with.steps == "5 of unipc, guided from 0 to 0.6, pyramid:3"
    assert record.made_with.steps in (tmp_path / "fox" / "index.html").read_text()

    watched = Watched()
    make_film(pipeline, board, tmp_path / "fox", replace(settings, step_cache="pyramid:3.0"), progress=watched)
    assert watched.stages == []
    make_film(pipeline, board, tmp_path / "fox", replace(settings, step_cache="pyramid"), progress=watched)
    assert watched.stages == ["encoding", "denoising scene 1", "decoding", "joining"]


def test_a_film_from_before_there_were_shortcuts_opens_and_is_not_made_again(
    pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path
) -> None:
    record = json.loads((finished / "run.json").read_text())
    for place in (record["settings"], record["made_with"], *(take["made_with"] for take in record["takes"])):
        for name in ("solver", "guidance_interval", "step_cache"):
            assert place.pop(name) is None
    (finished / "run.json").write_text(json.dumps(record))
    watched = Watched()
    make_film(pipeline, board, finished, SETTINGS, progress=watched)
    assert watched.stages == []


def test_another_display_scale_only_decodes_again(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    watched = Watched()
    make_film(pipeline, board, finished, replace(SETTINGS, display_scale=3), progress=watched)
    assert watched.stages == ["decoding", "joining"]
    assert read_video(finished / "film.mp4").shape[1] == 3 * pipeline.values.height


def test_other_weights_make_another_film(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    parameter = next(iter(pipeline.transformer.parameters()))
    saved = parameter.detach().clone()
    try:
        parameter.data.mul_(1.01)
        watched = Watched()
        make_film(pipeline, board, finished, SETTINGS, progress=watched)
    finally:
        parameter.data.copy_(saved)
    assert watched.stages == ALL_STAGES


def test_an_earlier_film_stays_until_the_new_one_is_joined(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    before = files_in(finished)
    other = replace(SETTINGS, seed=1)
    with pytest.raises(FilmInterrupted, match=r"a denoising that goes on, the film as it was; missing: video of scenes 1 to 3"):
        make_film(pipeline, board, finished, other, progress=Watched("denoising", 1, press_control_c))
    now = files_in(finished)
    assert all(now[name] == before[name] for name in before if name != "run.json")
    with pytest.raises(FilmInterrupted, match=r"latents of scenes 1 to 3, the film as it was; missing: video of scenes 1 to 3, film.mp4"):
        make_film(pipeline, board, finished, other, progress=Watched("decoding", 0, press_control_c))
    assert files_in(finished)["film.mp4"] == before["film.mp4"]
    watched = Watched()
    make_film(pipeline, board, finished, SETTINGS, progress=watched)
    assert watched.stages == ["joining"] and files_in(finished)["film.mp4"] == before["film.mp4"]


def test_a_denoising_of_other_settings_is_not_taken_up(pipeline: Mask2DiTPipeline, board: Storyboard, whole: Path, tmp_path: Path) -> None:
    """Seed 1 stopped while denoising, then seed 0."""
    with pytest.raises(FilmInterrupted):
        make_film(pipeline, board, tmp_path, replace(SETTINGS, seed=1), progress=Watched("denoising", 1, press_control_c))
    watched = Watched()
    make_film(pipeline, board, tmp_path, SETTINGS, progress=watched)
    assert ("denoising", STEPS, STEPS) in watched.seen
    assert files_in(tmp_path)["film.mp4"] == files_in(whole)["film.mp4"]


# A full disk.


def fill_the_disk_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming to a file of this name fails as on a full disk."""
    import os

    replace_file = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr("os.replace", refuse)


@pytest.mark.parametrize(
    ("name", "on_disk", "missing"),
    [
        ("take-1.safetensors", "a denoising that goes on;", "video of scenes 1 to 3, film.mp4, contact_sheet.png, film.webp"),
        ("scene-02.mp4", "latents of scenes 1 to 3, video of scenes 1 and 2;", "video of scene 3, film.mp4, contact_sheet.png, film.webp"),
        ("film.mp4", "video of scenes 1 to 3;", "film.mp4, contact_sheet.png, film.webp"),
        ("film.webp", "film.mp4, contact_sheet.png;", "missing: film.webp;"),
        ("run.json", "no scene yet", "video of scenes 1 to 3"),
    ],
)
def test_a_full_disk_keeps_what_is_finished(
    name: str, on_disk: str, missing: str, pipeline: Mask2DiTPipeline, board: Storyboard, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "fox"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fill_the_disk_at(name, monkeypatch)
        with pytest.raises(OutputError) as caught:
            make_film(pipeline, board, folder, SETTINGS)
    line = str(caught.value)
    assert f"{name}: cannot be written (No space left on device)" in line and "\n" not in line
    assert on_disk in line and missing in line and "the same command goes on" in line
    assert [path.name for path in folder.rglob(".*")] == []
    if name != "run.json":
        assert json.loads((folder / "run.json").read_text())["status"] == "failed"
        make_film(pipeline, board, folder, SETTINGS)
        assert files_in(folder)["film.mp4"] == files_in(whole)["film.mp4"]


def test_a_folder_that_takes_no_files_is_found_out_before_the_work(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    before = files_in(finished)
    watched = Watched()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        with pytest.raises(OutputError, match="Read-only"):
            make_film(pipeline, board, finished, replace(SETTINGS, seed=5), progress=watched)
    assert watched.seen == [] and files_in(finished) == before


def test_out_of_memory_is_one_line(pipeline: Mask2DiTPipeline, board: Storyboard, model_folder: Path, tmp_path: Path) -> None:
    def exhausted() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB\n and a long report")

    with pytest.raises(Mask2DiTError, match=r"^out of memory while decoding; .*latents of scenes 1 to 3, video of scene 1;") as caught:
        make_film(pipeline, board, tmp_path / "fox", SETTINGS, progress=Watched("decoding", 1, exhausted))
    assert "\n" not in str(caught.value) and "; make smaller pictures or fewer frames (--height, --width, --frames);" in str(caught.value)

    counted = load_pipeline(model_folder, memory="8GiB")
    with pytest.raises(Mask2DiTError, match=r"; the next smaller setting is --memory 6\d\d(\.\d+)?MiB \(text encoder let go\); in "):
        make_film(counted, board, tmp_path / "counted", SETTINGS, progress=Watched("decoding", 1, exhausted))
    finished = make_film(counted, board, tmp_path / "counted", SETTINGS)  # the same command goes on, with what was saved
    assert finished.status == "complete" and finished.timings_seconds["denoising"] > 0


def test_a_bug_is_not_hidden_and_is_on_record(pipeline: Mask2DiTPipeline, board: Storyboard, tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_film(pipeline, board, tmp_path, SETTINGS, progress=Watched("decoding", 1, fail))
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


def test_written_aside_leaves_the_old_file_on_any_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_aside(path) as part:
        part.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
