"""The forecast says what the loader would do, names all that is amiss, and reads no weights."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from mask2dit.errors import InputError, ModelError
from mask2dit.film_request import Shortcuts
from mask2dit.loading import builtin_model, check_film, choose_memory, folder_needs, load_pipeline
from mask2dit.memory import BASE_BYTES, GIB, Kept, MemoryMode, gib
from mask2dit.production import FilmSettings
from mask2dit.production.descriptions import differing_descriptions
from mask2dit.production.forecast import Forecast, Room, _choose, forecast
from mask2dit.production.forecast_report import COLUMNS, report, verdict
from mask2dit.production.speed import measure_speed, try_networks
from mask2dit.production.subject import find_subject
from mask2dit.published import COMPRESSION, MODELS, published
from mask2dit.storyboard import Storyboard
from mask2dit.video_shape import VideoShape

CPU = torch.device("cpu")
ROOM = Room(8 * GIB)
ONE_FRAME = FilmSettings(num_frames=1)  # quickest to count


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured in a moment; none of these tests asks how fast this machine is."""
    monkeypatch.setattr("mask2dit.production.speed.LONG_ENOUGH", 1e-4)
    monkeypatch.setattr("mask2dit.production.speed.ROUNDS", 1)


def forecast_of(model: str | Path | None, board: Storyboard, room: Room = ROOM, settings: FilmSettings | None = None) -> Forecast:
    subject = find_subject(str(model) if model else None)
    return forecast(board, subject, settings or ONE_FRAME, room, device=CPU)


def row(found: Forecast, name: str) -> str:
    """What stands behind a name in the report, in one line."""
    lines = report(found)
    first = next(index for index, line in enumerate(lines) if line.strip().startswith(f"{name} "))
    rest = (line.strip() for line in lines[first + 1 :])
    indented = [line.startswith(" " * 19) for line in lines[first + 1 :]] + [False]
    return " ".join([lines[first].strip().removeprefix(name).strip(), *(next(rest) for _ in range(indented.index(False)))])


# What will be made


def test_the_film_is_told_as_it_will_be(model_folder: Path, board: Storyboard) -> None:
    found = forecast_of(model_folder, board, settings=FilmSettings(num_inference_steps=7, guidance_scale=2.5))
    request = check_film(model_folder, board, num_inference_steps=7, guidance_scale=2.5)
    assert found.request == request and (found.problems, found.notes, found.shortage) == ((), (), None)
    assert row(found, "film") == "3 scenes of 9 frames (1.1 s); 3.4 s in all, at 8 frames per second"
    assert row(found, "size") == "24 by 16 pixels" and row(found, "steps") == "7, guidance 2.5: two predictions in each"
    assert row(found, "tokens") == "64 text + 18 video per scene, 246 in all"
    assert row(found, "captions") == "the longest is that of scene 1, 5 of 64 tokens"
    assert row(found, "model").endswith("in float32") and row(found, "device").startswith("cpu, 1 thread")
    assert verdict(found).startswith("It fits, and computes for about ")

    shortcuts = Shortcuts(solver="dpm++", guidance_interval=(0.0, 0.6), step_cache="pyramid")
    cheaper = replace(found, request=replace(found.request, num_inference_steps=10, shortcuts=shortcuts))
    assert row(cheaper, "steps") == "10 of dpm++, guidance 2.5: two predictions in 6 of them, one in the others"
    assert row(cheaper, "step cache").startswith("pyramid:2, approximate; ") and cheaper.num_predictions == 16


def test_scenes_of_their_own_length_have_lines_of_their_own(model_folder: Path) -> None:
    scenes = [{"prompt": "a fox", "num_frames": 17}, {"prompt": "a bear", "guidance_scale": 0.5}]
    found = forecast_of(model_folder, Storyboard(scenes=scenes), settings=FilmSettings())
    assert (row(found, "scene 1"), row(found, "scene 2")) == ("17 frames (2.1 s)", "9 frames (1.1 s)")
    assert row(found, "tokens") == "128 text + 48 video, 176 in all" and "guidance 3 and 0.5" in row(found, "steps")
    unguided = forecast_of(model_folder, Storyboard(scenes=scenes[1:]))
    assert row(unguided, "steps") == "2, without guidance: one prediction in each" and unguided.num_predictions == 2


@pytest.mark.slow
def test_lines_are_short(board: Storyboard, model_folder: Path) -> None:
    for room in (ROOM, Room(GIB // 8, asked=True), Room(GIB, asked=True, weights="int8")):
        told = [line for line in report(forecast_of(None, board, room)) if not line.startswith(("note: ", "problem: "))]
        assert max(map(len, told)) <= COLUMNS and "\N{NO-BREAK SPACE}" not in "".join(told)
        assert all(line == line.rstrip() for line in told)


def test_what_cannot_be_made_is_an_error(model_folder: Path, board: Storyboard) -> None:
    for settings, words in (
        (FilmSettings(height=17), "height: got 17"),
        (FilmSettings(num_inference_steps=2000), "got 2000, expected 1 to 1000"),
    ):
        with pytest.raises(InputError, match=words):
            forecast_of(model_folder, board, settings=settings)
        with pytest.raises(InputError, match=words):  # as where it is made
            load_pipeline(model_folder).check(board, **settings.asked())


# Memory


def ladder(board: Storyboard) -> list[int]:
    """Bytes of the ways to keep the built-in model on the CPU."""
    shape = check_film(builtin_model(), board, **ONE_FRAME.asked()).shape
    return [peak for _, peak in choose_memory(builtin_model(), None, device=CPU, dtype=torch.float32, shape=shape).ladder]


@pytest.mark.parametrize("rung", [pytest.param(0, marks=pytest.mark.slow), 2, pytest.param(-1, marks=pytest.mark.slow)])
def test_memory_is_chosen_as_the_loader_chooses(rung: int, board: Storyboard) -> None:
    folder, limit = builtin_model(), ladder(board)[rung]
    found = forecast_of(None, board, Room(limit, asked=True))
    chosen = choose_memory(folder, limit, device=CPU, dtype=torch.float32, shape=found.request.shape)
    assert found.choice == chosen and found.needs == folder_needs(folder, found.request.shape, torch.float32, CPU)
    assert row(found, "kept").startswith(chosen.mode.sentence) and found.shortage is None


def test_what_does_not_fit_is_a_problem_with_all_ways(board: Storyboard) -> None:
    limit = 100 * 2**20
    found = forecast_of(None, board, Room(limit, asked=True))
    with pytest.raises(InputError) as raised:
        choose_memory(builtin_model(), limit, device=CPU, dtype=torch.float32, shape=found.request.shape)
    assert found.shortage == found.problems[0] == str(raised.value)
    assert found.choice.peak_bytes == min(peak for _, peak in found.choice.ladder)
    told = report(found)
    assert f"problem: {found.shortage}" in told and sum("everything at once" in line for line in told) == 1
    assert verdict(found) == f"It does not fit: {found.choice.peak_bytes / 2**20:.0f} MiB are needed, and there are 100 MiB."


def test_a_small_model_is_kept_whole_unless_asked(board: Storyboard) -> None:
    limit = ladder(board)[-1]
    found = forecast_of(None, board, Room(limit))
    assert found.choice.mode == MemoryMode()
    assert found.shortage is not None and found.shortage.startswith(f"memory: got {gib(limit)} that are free, expected ")


def test_what_a_plan_keeps_from_step_to_step_counts(model_folder: Path) -> None:
    """Keys and values of two known scenes, in two branches, as the loader counts them; only where a call has known scenes."""
    subject, five = find_subject(str(model_folder)), Storyboard.from_text("a;b;c;d;e")
    plain, blind = (forecast(five, subject, ONE_FRAME, ROOM, device=CPU, plan=plan) for plan in (None, "context-blind"))
    config = subject.networks()[0].config
    tokens = plain.request.shape.layout(1).video_lengths[0] * 2
    assert blind.needs.kept_bytes == 2 * 2 * config.num_layers * tokens * config.num_attention_heads * config.attention_head_dim * 4
    stages = [found.choice.stages["denoising"] for found in (plain, blind)]
    assert stages[1] - stages[0] == blind.needs.kept_bytes and plain.needs.kept_bytes == 0
    place = {"device": CPU, "dtype": torch.float32, "shape": blind.request.shape.largest(3), "kept": Kept(2, 2)}
    assert blind.choice.stages == choose_memory(model_folder, None, **place).stages
    assert any(line.endswith("kept between steps: known scenes") for line in report(blind))
    assert row(blind, "plan").startswith("context-blind; known scenes are computed once") and row(plain, "plan") == "symmetric"
    three = forecast(Storyboard.from_text("a;b;c"), subject, ONE_FRAME, ROOM, device=CPU, plan="context-blind")
    assert three.needs.kept_bytes == 0 and row(three, "plan") == "context-blind"


def test_what_a_step_cache_keeps_is_told(model_folder: Path, board: Storyboard) -> None:
    found = forecast_of(model_folder, board, settings=FilmSettings(num_frames=1, step_cache="pyramid"))
    assert found.needs.kept_bytes > 0 and any(line.endswith("kept between steps: pyramid:2") for line in report(found))


def test_main_memory_may_be_what_is_too_small(board: Storyboard) -> None:
    subject = find_subject(None)
    request = check_film(builtin_model(), board)
    needs = folder_needs(builtin_model(), request.shape, torch.float32, CPU)
    assert _choose(needs, subject, request.shape, Room(2**40, main_bytes=0, weights="int8", asked=True), "cuda")[1] is None  # nothing waits
    smallest = max(needs.stages(MemoryMode(True, "group", True, "int8")).values()) + BASE_BYTES["cuda"]
    _, problem = _choose(needs, subject, request.shape, Room(smallest, main_bytes=0, weights="int8", asked=True), "cuda")
    assert problem is not None and " of main memory, of which 0 MiB is free, expected more of it for " in problem


def test_what_waits_on_disk_needs_room_there(board: Storyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(2**30, 2**30, 2**20))  # type: ignore[attr-defined]
    found = forecast_of(None, board, Room(ladder(board)[-1], asked=True))
    assert found.choice.mode.offload == "disk"
    assert len(found.problems) == 1 and "got 1 MiB of free disk, expected 28 MiB" in found.problems[0]
    assert verdict(found) == "It fits, but 1 problem must be put right first."


# Time


def test_time_is_steps_and_scenes(model_folder: Path, board: Storyboard) -> None:
    found = forecast_of(model_folder, board, settings=FilmSettings(num_inference_steps=5, num_frames=9))
    assert found.num_predictions == 10 and found.num_texts == 4  # three captions and an empty one
    timing, seconds = found.timing, found.stage_seconds
    assert seconds == {"encoding": 4 * timing.text, "denoising": 10 * timing.prediction, "decoding": 9 * timing.latent_frame}
    assert min(seconds.values()) > 0 and "calls of its networks" in timing.source


@pytest.mark.slow
def test_measured_rates_agree_with_whole_networks() -> None:
    """Within an order of magnitude, on a machine that does other things as well."""
    subject = find_subject(None)
    shape = VideoShape(128, 192, (5, 5), subject.values.compression)
    transformer, vae, text_encoder = subject.networks()
    speed = measure_speed(transformer, vae, shape, CPU, torch.float32)
    needs = folder_needs(builtin_model(), shape, torch.float32, CPU)
    call = needs.transformer.call
    by_rates = call.linear_flop / speed.linear + call.attention_flop / speed.attention, needs.vae.call.flop / speed.decoding
    tried = try_networks(transformer, vae, text_encoder, shape, CPU, torch.float32)
    assert all(0.1 < whole / rated < 10 for whole, rated in zip(tried, by_rates, strict=False))


def test_nothing_is_tried_that_would_take_long_or_does_not_fit(board: Storyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("networks were tried")

    monkeypatch.setattr("mask2dit.production.forecast.try_networks", fail)
    with pytest.raises(AssertionError):
        forecast_of(None, board)
    assert "short measurement" in forecast_of(None, board, Room(2**20, asked=True)).timing.source
    monkeypatch.setattr("mask2dit.production.forecast.TRIED_SECONDS", 0.0)
    found = forecast_of(None, board)
    assert "FLOP/s in linear layers" in found.timing.source and min(found.stage_seconds.values()) > 0


def test_a_full_device_is_one_line(board: Storyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mask2dit.production.speed.linear", full)
    with pytest.raises(InputError, match="cpu: out of memory while its speed was measured"):
        forecast_of(None, board)


# What is amiss


def test_all_captions_that_are_too_long_are_named(model_folder: Path) -> None:
    long = "fox " * 70
    scenes = [{"prompt": long}, {"prompt": "a fox"}, {"prompt": long, "negative_prompt": long}]
    found = forecast_of(model_folder, Storyboard(scenes=scenes))
    assert [problem.split(":")[0] for problem in found.problems] == ["scene 1, prompt", "scene 3, negative_prompt", "scene 3, prompt"]
    with pytest.raises(InputError) as raised:
        check_film(model_folder, Storyboard(scenes=scenes))
    assert found.problems[0] == str(raised.value)
    assert verdict(found) == "It fits, but 3 problems must be put right first."


def test_one_negative_prompt_for_all_is_told_once(model_folder: Path, board: Storyboard) -> None:
    found = forecast_of(model_folder, board, settings=FilmSettings(negative_prompt="fox " * 70))
    assert [problem.split(":")[0] for problem in found.problems] == ["scene 1, negative_prompt"]


def test_more_scenes_than_fit_into_a_call_take_several(model_folder: Path) -> None:
    found = forecast_of(model_folder, Storyboard.from_text("a;b;c;d;e"))
    three = forecast_of(model_folder, Storyboard.from_text("a;b;c"))
    assert found.notes == ("3 scenes are made jointly, and each further one with 2 known",) and not found.problems
    assert row(found, "at once") == "3 scenes, in 3 calls of the model; the model was trained on up to 3"
    assert found.needs == three.needs and found.num_predictions == 3 * three.num_predictions  # memory does not grow, time does


def test_unknown_words_are_noted_of_the_built_in_model_only(model_folder: Path) -> None:
    board = Storyboard.from_text("a red fox jumps; a wombat yodels 🦊")
    one = "scene 2: the built-in model does not know: wombat, yodels, 🦊; `mask2dit words` lists what it knows"
    assert forecast_of(None, board).notes == (one,)
    assert forecast_of(model_folder, board).notes == ()


DESCRIPTIONS = [
    ("Actor1 (short black hair, red coat) runs; Actor1 (Short  black hair, red coat) sits", []),
    (
        "Actor1 (short hair, red coat) runs; a dog; Actor1 (short hair, blue coat) sits",
        ["Actor1 is described in 2 ways: 'short hair, red coat' in scene 1, 'short hair, blue coat' in scene 3"],
    ),
    ("Actor1 (a red fox) jumps; Actor2 (a blue fox) jumps", []),  # two actors
    ("Actor1 (a red fox) jumps; Actor1 (the fox) sleeps; Actor1 (the same fox) grows", []),  # refers
    ("Actor1 (the fox) jumps; Actor1 (a red fox) sleeps", []),
    ("a man (on the left) waves; a man (on the right) waves", []),  # no name
    (
        "Anna (in red) waves; Anna (in blue) waves; Anna (in blue) sits",
        ["Anna is described in 2 ways: 'in red' in scene 1, 'in blue' in scenes 2, 3"],
    ),
    ("a red fox jumps; the blue fox sleeps", ["the fox is described in 2 ways: 'a red fox' in scene 1, 'the blue fox' in scene 2"]),
    ("a red fox jumps; the fox sleeps; The red fox spins", []),
    ("a red fox and a blue fox jump; the blue fox sleeps", []),
    ("a red fox jumps; a blue bear jumps", []),
    ("Actor1, a red fox, jumps; Actor2, a blue fox, sleeps", []),
    (
        "Actor1, a red fox, jumps; Actor1, a green fox, sleeps",
        ["Actor1 is described in 2 ways: 'a red fox' in scene 1, 'a green fox' in scene 2"],
    ),
]


@pytest.mark.parametrize(("story", "sentences"), DESCRIPTIONS, ids=[story[:40] for story, _ in DESCRIPTIONS])
def test_characters_described_in_two_ways_are_named(story: str, sentences: list[str]) -> None:
    assert differing_descriptions(Storyboard.from_text(story), in_known_words=True) == sentences


def test_names_come_from_the_list_of_characters_too() -> None:
    scenes = [{"prompt": "the old man walks"}, {"prompt": "the old man (in a hat) sits"}, {"prompt": "the old man sleeps"}]
    board = Storyboard(characters={"the old man": "grey beard"}, scenes=scenes)
    assert differing_descriptions(board) == ["the old man is described in 2 ways: 'grey beard' in scenes 1, 3, 'in a hat' in scene 2"]
    assert differing_descriptions(Storyboard.from_text("a red fox jumps; the blue fox sleeps")) == []  # words of another model


def test_random_stories_have_no_character_in_two_ways() -> None:
    from mask2dit.playhouse.captions import STYLES, random_storyboard

    for seed in range(50):
        for style in STYLES:
            board = Storyboard.from_data(random_storyboard(seed, "A", style, 4))
            assert differing_descriptions(board, in_known_words=True) == [], board.captions


# Which model


def empty_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def test_sizes_of_published_models() -> None:
    counts = {
        model.hub_id: [sum(value.numel() for value in network.parameters()) / 1e9 for network in model.networks()] for model in MODELS
    }
    assert counts["qth/Mask2DiT"] == counts["zai-org/CogVideoX-5b"] == pytest.approx([5.57, 0.2156, 4.762], rel=1e-3)
    assert counts["zai-org/CogVideoX-2b"] == pytest.approx([1.694, 0.2156, 4.762], rel=1e-3)
    transformer, vae, _ = MODELS[0].networks()
    assert 2 ** (len(vae.config.block_out_channels) - 1) == COMPRESSION.spatial
    assert (vae.config.temporal_compression_ratio, transformer.config.patch_size) == (COMPRESSION.temporal, COMPRESSION.patch)
    assert published("qth/mask2dit") is MODELS[0] and published("qth/Mask3DiT") is None


def test_a_published_model_is_counted_before_it_is_there(board: Storyboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = empty_cache(tmp_path / "hub", monkeypatch)
    began = time.perf_counter()
    found = forecast_of("zai-org/CogVideoX-2b", board, Room(8 * GIB), FilmSettings(height=48, width=48, num_frames=1))
    assert time.perf_counter() - began < 60 and list(cache.iterdir()) == []
    assert found.subject.is_large and found.dtype == torch.float16 and found.subject.values.window == 1
    assert found.choice.mode.text_first and found.problems == ()
    assert any("zai-org/CogVideoX-2b is not downloaded: counted with its published sizes" in note for note in found.notes)
    assert row(found, "captions") == "not checked; 226 tokens are read of each"
    assert "short measurement" in found.timing.source


def test_other_models_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, board: Storyboard) -> None:
    cache = empty_cache(tmp_path / "hub", monkeypatch)
    with pytest.raises(ModelError, match="somebody/films: not downloaded, or not all of it"):
        find_subject("somebody/films")
    with pytest.raises(ModelError, match="revision: got 'main' with the built-in model"):
        find_subject(None, revision="main")
    with pytest.raises(ModelError, match="leave out --inp"):
        find_subject("qth/Mask2DiT", inp=True)
    own = cache / "models--somebody--films"
    shutil.copytree(model_folder, own / "snapshots" / ("0" * 40))
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text("0" * 40)
    with pytest.warns(UserWarning, match="licence of these weights"):
        found = forecast_of("somebody/films", board)
    assert found.subject.name == "somebody/films" and found.subject.remark is None and found.caption_lengths is not None


def edited(model_folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(model_folder, target)
    index = target / "model_index.json"
    values = {key: value for key, value in (json.loads(index.read_text()) | changes).items() if value is not ...}
    index.write_text(json.dumps(values))
    return target


def test_published_folders_of_one_scene_are_known_by_their_name(model_folder: Path, tmp_path: Path) -> None:
    silent = edited(model_folder, tmp_path / "CogVideoX-2b", window=...)
    assert find_subject(str(silent)).values.window == 1
    assert find_subject(str(edited(model_folder, tmp_path / "other", window=...))).values.window == 3


def test_a_model_without_text_encoder_cannot_read_captions(model_folder: Path, tmp_path: Path, board: Storyboard) -> None:
    mute = edited(model_folder, tmp_path / "mute", tokenizer=[None, None], text_encoder=[None, None])
    found = forecast_of(mute, board)
    assert found.needs.text is None and len(found.problems) == 1 and "has no text encoder" in found.problems[0]


def test_networks_of_different_models_are_an_error(model_folder: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(model_folder, tmp_path / "mixed")
    shutil.rmtree(mixed / "transformer")
    tiny.transformer(in_channels=6, out_channels=6, max_text_seq_length=64).save_pretrained(mixed / "transformer")
    with pytest.raises(ModelError, match="reads 6 latent channels and the vae makes 4"):
        find_subject(str(mixed))
