"""One scene again, one more, one less: the others stay the same files, byte for byte."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mask2dit.errors import InputError
from mask2dit.pipeline import Mask2DiTPipeline
from mask2dit.production import Directions, FilmInterrupted, FilmRecord, make_candidates, make_film
from mask2dit.production.directing import inserted, next_seeds, open_film, remade, retry_cuts, skipped, with_take
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import read_video, write_video
from production.filming import SETTINGS, STEPS, Watched, files_in, press_control_c

STAY = Directions(stay=True)


def direct(pipeline: Mask2DiTPipeline, folder: Path, board: Storyboard, directions: Directions = STAY, **options: object) -> FilmRecord:
    return make_film(pipeline, board, folder, open_film(folder).record.settings, directions, base=folder, **options)


def scene_files(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_in(folder).items() if name.startswith(("scenes/", "latents/"))}


def test_one_scene_again_leaves_the_others_alone(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    before = scene_files(finished)
    times = {name: (finished / name).stat().st_mtime_ns for name in before}
    record = direct(pipeline, finished, remade(open_film(finished), 2))
    now = scene_files(finished)
    changed = {name for name in now if now[name] != before[name]}
    assert changed == {"scenes/scene-02.mp4", "latents/scene-02.safetensors"}
    assert all((finished / name).stat().st_mtime_ns == times[name] for name in times.keys() - changed)
    take = record.takes[-1]
    assert (take.scene, take.number, take.inputs.seed) == (2, 2, 1) and [known.scene for known in take.known] == [1, 3]
    assert Storyboard.read(finished / "storyboard.yaml").scenes[1].seed == 1
    film = read_video(finished / "film.mp4")
    assert np.array_equal(film, np.concatenate([read_video(finished / "scenes" / f"scene-0{number}.mp4") for number in (1, 2, 3)]))


def test_a_remade_scene_is_what_the_pipeline_makes_with_the_others_known(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from mask2dit.production import scene_generator

    latents = {n: load_file(finished / "latents" / f"scene-0{n + 1}.safetensors")["latents"] for n in range(3)}
    board = remade(open_film(finished), 2, seed=7, prompt="a robot spins")
    direct(pipeline, finished, board)
    expected = pipeline(
        board,
        known_scenes={0: latents[0], 2: latents[2]},
        num_inference_steps=STEPS,
        generator=[None, scene_generator(7, 2), None],
        output_type="latent",
    ).scenes
    now = [load_file(finished / "latents" / f"scene-0{n + 1}.safetensors")["latents"] for n in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(expected, now, strict=True))


def test_the_same_seed_again_is_made_again(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    """Jointly made at first, now with the others known: another take."""
    record = direct(pipeline, finished, remade(open_film(finished), 2, seed=0), replace(STAY, again=frozenset({1})))
    assert [scene.take for scene in record.scenes] == [1, 2, 1]
    assert record.takes[-1].latents != record.takes[1].latents


def test_several_takes_are_made_and_one_is_chosen(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    film = open_film(finished)
    before = files_in(finished)
    seeds = next_seeds(film, 3, 2)
    takes = make_candidates(pipeline, remade(film, 3, prompt="an owl", seed=seeds[0]), finished, 2, seeds, film.record.settings)
    assert [(take.scene, take.number, take.inputs.seed, take.prompt) for take in takes] == [(3, 2, 1, "an owl"), (3, 3, 2, "an owl")]
    now = files_in(finished)
    assert all(now[name] == before[name] for name in before if name not in ("run.json", "index.html"))
    film = open_film(finished)
    assert film.record.status == "complete" and film.storyboard.scenes[2].prompt == "a bear sleeps"
    make_film(pipeline, film.storyboard, finished, SETTINGS, progress=(watched := Watched()))
    assert watched.seen == []  # the film is as it was
    record = direct(pipeline, finished, with_take(film, 3, 3), replace(STAY, chosen=(2, 3)), progress=(watched := Watched()))
    assert watched.stages == ["joining"] and record.scenes[2].take == 3
    assert (finished / "scenes" / "scene-03.mp4").read_bytes() == now["takes/scene-03/take-3.mp4"]
    chosen = Storyboard.read(finished / "storyboard.yaml").scenes[2]
    assert (chosen.prompt, chosen.seed) == ("an owl", 2)
    back = direct(pipeline, finished, with_take(open_film(finished), 3, 1), replace(STAY, chosen=(2, 1)))
    assert back.scenes[2].take == 1 and scene_files(finished) == {name: before[name] for name in scene_files(finished)}


def test_insert_skip_and_extend_touch_nothing_else(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    before = scene_files(finished)
    record = direct(pipeline, finished, inserted(open_film(finished), 1, ["a robot", "a fish"]))
    now = scene_files(finished)
    assert [scene.number for scene in record.scenes] == [1, 4, 5, 2, 3]
    for old, new in ((1, 1), (2, 4), (3, 5)):
        for name in ("scenes/scene-0{}.mp4", "latents/scene-0{}.safetensors"):
            assert now[name.format(new)] == before[name.format(old)]
    watched = Watched()
    record = direct(pipeline, finished, skipped(open_film(finished), 2), progress=watched)
    assert watched.stages == ["joining"] and "scenes/scene-02.mp4" not in scene_files(finished)
    assert len(read_video(finished / "film.mp4")) == 4 * 9 and [number for number, _ in record.shown] == [1, 3, 4, 5]
    record = direct(pipeline, finished, skipped(open_film(finished), 2, False), progress=watched)
    assert watched.stages == ["joining"] * 2 and scene_files(finished) == now
    record = direct(pipeline, finished, inserted(open_film(finished), 5, ["an owl"]))
    assert [known.scene for known in record.takes[-1].known] == [2, 3]  # own numbers of scenes 4 and 5
    assert scene_files(finished).items() > now.items()


def test_scenes_to_remember_keep_their_numbers_right(finished: Path) -> None:
    film = open_film(finished)
    scenes = [scene.model_copy(update={"remember": (1, 3)} if n == 1 else {}) for n, scene in enumerate(film.storyboard.scenes)]
    board = film.storyboard.model_copy(update={"remember": (2,)}).with_scenes(scenes)
    moved = inserted(replace(film, storyboard=board), 1, ["new"])
    assert moved.scenes[2].remember == (1, 4) and moved.remember == (3,)


def test_an_insertion_that_was_stopped_is_not_made_twice(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    def insert(watched: Watched) -> FilmRecord:
        return direct(pipeline, finished, inserted(open_film(finished), 2, ["a robot"]), progress=watched)

    for stage, step in (("denoising scene 3", 1), ("decoding", 0), ("joining", 4)):
        with pytest.raises(FilmInterrupted):
            insert(Watched(stage, step, press_control_c))
    watched = Watched()
    record = insert(watched)
    assert watched.stages == ["joining"] and len(record.scenes) == 4 and len(record.takes) == 4
    assert len(Storyboard.read(finished / "storyboard.yaml").scenes) == 4


def test_a_remake_that_was_stopped_goes_on_with_its_seed(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    for stage, step in (("denoising scene 2", 1), ("decoding", 0), ("joining", 2)):
        with pytest.raises(FilmInterrupted):
            direct(pipeline, finished, remade(open_film(finished), 2), progress=Watched(stage, step, press_control_c))
    record = direct(pipeline, finished, remade(open_film(finished), 2), progress=(watched := Watched()))
    assert watched.stages == ["joining"] and [take.inputs.seed for take in record.takes_of(2)] == [0, 1]
    assert next_seeds(open_film(finished), 2, 2) == [2, 3]


def test_takes_are_tried_in_a_film_that_is_whole(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    film = open_film(finished)
    for board in (inserted(film, 1, ["an owl"]), film.storyboard.with_scenes(film.storyboard.scenes[:2])):
        before = files_in(finished)
        with pytest.raises(InputError, match="its storyboard has changed, or it is not complete"):
            make_candidates(pipeline, board, finished, 0, [4], film.record.settings)
        assert files_in(finished)["takes/scene-01/take-1.mp4"] == before["takes/scene-01/take-1.mp4"]


def test_a_changed_storyboard_makes_what_changed(pipeline: Mask2DiTPipeline, board: Storyboard, finished: Path) -> None:
    """The same as by command, from the file."""
    before = scene_files(finished)
    scenes = list(board.scenes)
    scenes[0] = scenes[0].model_copy(update={"prompt": "a blue owl walks"})
    record = make_film(pipeline, board.with_scenes(scenes), finished, SETTINGS)
    assert [scene.take for scene in record.scenes] == [2, 1, 1] and [known.scene for known in record.takes[-1].known] == [2, 3]
    watched = Watched()
    make_film(pipeline, board, finished, SETTINGS, progress=watched)
    assert watched.stages == ["joining"] and scene_files(finished) == before


def test_a_locked_scene_that_is_lost_is_named(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    for name in ("takes/scene-01/take-1.safetensors", "latents/scene-01.safetensors"):
        (finished / name).unlink()
    before = files_in(finished)
    with pytest.raises(InputError, match=r"take-1.safetensors: is lost or damaged, expected the latents of scene 1; put it back, or make"):
        direct(pipeline, finished, remade(open_film(finished), 2))
    assert files_in(finished) == before
    again = direct(pipeline, finished, remade(open_film(finished), 1))  # as the line says
    assert [scene.take for scene in again.scenes] == [2, 1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda film: remade(film, 9), "--scene: got 9, expected a scene of .* from 1 to 3"),
        (lambda film: remade(film, 0), "--scene: got 0"),
        (lambda film: inserted(film, -1, ["x"]), "--after: got -1"),
        (lambda film: inserted(film, 4, ["x"]), "--after: got 4"),
        (lambda film: with_take(film, 1, 2), r"--take: got 2, expected a take of scene 1 \(1\)"),
        (lambda film: skipped(film, 12), "--scene: got 12"),
    ],
)
def test_scenes_that_are_not_there(change: object, words: str, finished: Path) -> None:
    with pytest.raises(InputError, match=words):
        change(open_film(finished))


def test_a_folder_without_a_film(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run.json, expected a film folder"):
        open_film(tmp_path)


def test_a_film_longer_than_the_window_is_extended(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    watched = Watched()
    record = make_film(pipeline, Storyboard.from_text("a;b;c;d;e"), tmp_path, SETTINGS, progress=watched)
    assert watched.stages == [
        "encoding",
        "denoising",
        "decoding",
        "denoising scene 4",
        "decoding",
        "denoising scene 5",
        "decoding",
        "joining",
    ]
    assert [(take.jointly, [known.scene for known in take.known]) for take in record.takes[2:]] == [
        ((1, 2), []),
        ((), [2, 3]),
        ((), [3, 4]),
    ]
    latents = {take.scene: take.latents for take in record.takes}
    assert all(known.latents == latents[known.scene] for take in record.takes for known in take.known)  # as they are: no round trip


def test_given_scenes_are_known_and_shown_as_they_are(pipeline: Mask2DiTPipeline, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (11, 4, 6, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)  # 32 × 48, 12 a second
    write_video(tmp_path / "walk.mp4", frames, 12)
    board = Storyboard(scenes=[{"prompt": "a fox", "given": "walk.mp4"}, {"prompt": "a bear"}])
    record = make_film(pipeline, board, tmp_path / "film", SETTINGS, base=tmp_path)
    assert [scene.inputs.num_frames for scene in record.scenes] == [5, 9]  # 7 frames at 8 a second
    assert [known.scene for known in record.takes[1].known] == [1] and record.takes[0].known == ()
    shown = read_video(tmp_path / "film" / "scenes" / "scene-01.mp4")
    assert shown.shape[0] == 5 and np.abs(shown[0].mean((0, 1)) - frames[0].mean((0, 1))).max() < 8
    again = make_film(pipeline, Storyboard.read(tmp_path / "film" / "storyboard.yaml"), tmp_path / "film", SETTINGS, base=tmp_path / "film")
    assert again == record
    longer = direct(pipeline, tmp_path / "film", inserted(open_film(tmp_path / "film"), 2, ["an owl"]))
    assert [scene.take for scene in longer.scenes] == [1, 1, 1]
    with pytest.raises(InputError, match="is given as a video"):
        remade(open_film(tmp_path / "film"), 1)


def test_other_seeds_are_tried_while_cuts_are_amiss(pipeline: Mask2DiTPipeline, finished: Path) -> None:
    """The best film found stays, whatever was tried last."""
    said: list[str] = []
    scores = iter([0.5, 0.8, 0.6, 0.6])
    first = open_film(finished).record
    poor = first.model_copy(update={"check": judged(first, next(scores))})

    def make(board: Storyboard, directions: Directions) -> FilmRecord:
        record = direct(pipeline, finished, board, directions)
        is_back = directions.chosen is not None
        return record.model_copy(update={"check": judged(record, 0.8 if is_back else next(scores))})

    best = retry_cuts(poor, finished, 0.9, 3, make, said.append)
    assert best.check is not None and best.check.sca == 0.8
    assert [scene.take for scene in open_film(finished).record.scenes] == [1, 2, 1]
    assert len(open_film(finished).record.takes) == 6 and len(said) == 5


def judged(record: FilmRecord, sca: float) -> object:
    """A check that misses the first cut."""
    assert record.check is not None
    return record.check.model_copy(update={"sca": sca, "missed": record.check.asked[:1], "unwanted_scenes": ()})
