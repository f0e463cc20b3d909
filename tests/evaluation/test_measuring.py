"""From films to numbers: each film is decoded once, what is kept is used again, and one bad film stops no other."""

import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from foreign_films import footage
from mask2dit.errors import InputError, OutputError
from mask2dit.evaluation import features, looking
from mask2dit.evaluation.facts import cosines
from mask2dit.evaluation.features import Store
from mask2dit.evaluation.films import FilmSource, cast_of, find_films
from mask2dit.evaluation.measuring import Results, choose, gather, measure, wanted_features
from mask2dit.evaluation.metrics import METRICS
from mask2dit.evaluation.prompt_sets import PromptSetItem
from mask2dit.extractors.base import Extractor
from mask2dit.storyboard import Storyboard
from mask2dit.video_files import read_video, write_video

NAMES = ("one", "three", "two")
CAPTIONS = ("the dog", "the cat in the hut", "the dog runs")


class Counted:
    """A real extractor that counts what it is asked for."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.name, self.weights, self.kinds, self.num_frames = extractor.name, extractor.weights, extractor.kinds, extractor.num_frames
        self.calls: list[str] = []

    def frames(self, pictures: np.ndarray) -> np.ndarray:
        self.calls.append("frame")
        return self.extractor.frames(pictures)

    def scene(self, pictures: np.ndarray) -> np.ndarray:
        self.calls.append("scene")
        return self.extractor.scene(pictures)

    def text(self, captions: Sequence[str]) -> np.ndarray:
        self.calls += ["text"] * len(captions)
        return self.extractor.text(captions)


class Silent:
    def start(self, stage: str, total: int) -> None: ...

    def step(self) -> None: ...

    def done(self) -> None: ...


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Films that are opened, in order."""
    opened: list[str] = []
    real = looking.open_video
    monkeypatch.setattr(looking, "open_video", lambda path: opened.append(path.stem) or real(path))
    return opened


def prompts(**characters: object) -> dict[str, PromptSetItem]:
    cast = (frozenset({"Actor1"}), frozenset({"Actor1", "Actor2"}), frozenset({"Actor2"}))
    board = Storyboard.from_captions(CAPTIONS)
    return {name: PromptSetItem(name, board, **{"characters": cast, **characters}) for name in NAMES}


def evaluated(
    folder: Path, groups: Mapping[str, Sequence[FilmSource]], networks: Mapping[str, Extractor], names: Sequence[str] = tuple(METRICS)
) -> Results:
    chosen = choose(names, networks)
    return measure(gather(groups, Store(folder, networks), chosen, Silent()), chosen, networks, {"platform": "here"})


def test_features_are_computed_once_and_shared(films: Path, networks: dict, tmp_path: Path, decoded: list[str]) -> None:
    counted = {name: Counted(network) for name, network in networks.items()}
    groups = {"films": find_films([films], prompts())}
    first = evaluated(tmp_path, groups, counted)
    assert sorted(decoded) == sorted(NAMES)  # visual, semantic, sequence, diversity and background share one decoding
    assert {kind: counted["clip"].calls.count(kind) for kind in ("scene", "frame", "text")} == {"scene": 9, "frame": 9, "text": 3}
    assert {kind: counted["dinov2"].calls.count(kind) for kind in ("scene", "frame")} == {"scene": 9, "frame": 9}
    for network in counted.values():
        network.calls.clear()
    decoded.clear()
    again = evaluated(tmp_path, groups, counted)
    assert decoded == [] and not any(network.calls for network in counted.values())
    assert again.model_copy(update={"date": first.date}) == first


def test_another_metric_needs_only_what_it_adds(films: Path, networks: dict, tmp_path: Path, decoded: list[str]) -> None:
    counted = {name: Counted(network) for name, network in networks.items()}
    groups = {"films": find_films([films], prompts())}
    evaluated(tmp_path, groups, counted, ["sca", "dynamic-degree"])
    assert not any(network.calls for network in counted.values())
    evaluated(tmp_path, groups, counted, ["sca", "visual-consistency"])
    assert counted["clip"].calls == ["scene"] * 9 and not counted["dinov2"].calls
    decoded.clear()
    evaluated(tmp_path, groups, counted, ["sca", "transition-deviation"])
    assert decoded == []


def test_what_was_measured_before_a_kill_is_not_measured_again(films: Path, networks: dict, tmp_path: Path) -> None:
    groups = {"films": find_films([films], prompts())}
    whole = evaluated(tmp_path / "whole", groups, networks)

    class Dies(Counted):
        def scene(self, pictures: np.ndarray) -> np.ndarray:
            if len(self.calls) >= 7:
                raise KeyboardInterrupt
            return super().scene(pictures)

    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "killed", groups, networks | {"dinov2": Dies(networks["dinov2"])})
    done = len(list((tmp_path / "killed").rglob("dinov2-scene/*.npy")))
    counted = Counted(networks["dinov2"])
    resumed = evaluated(tmp_path / "killed", groups, networks | {"dinov2": counted})
    assert 0 < done < 9 and counted.calls.count("scene") == 9 - done
    assert resumed.model_copy(update={"date": whole.date}).groups[0].values == whole.groups[0].values


def test_values_follow_from_the_features(films: Path, networks: dict, tmp_path: Path) -> None:
    results = evaluated(tmp_path, {"films": find_films([films], prompts())}, networks)
    film = next(film for film in results.groups[0].films if film.name == "one")
    video = read_video(films / "one.mp4")
    scenes = [video[start : start + 12] for start in (0, 12, 24)]
    taken = [scene[[0, 1, 3, 4, 6, 7, 9, 10]] for scene in scenes]  # eight a second of twelve
    clip = networks["clip"]
    seen = np.stack([clip.scene(pictures) for pictures in taken])
    ones, others = cosines(seen[[0, 0, 1]], seen[[1, 2, 2]]), cosines(seen, clip.text(CAPTIONS))
    assert film.values["visual-consistency"].value == pytest.approx(ones.mean(), abs=1e-5)
    assert film.values["semantic-consistency"].value == pytest.approx(others.mean(), abs=1e-5)
    dino = np.stack([networks["dinov2"].scene(pictures) for pictures in taken])
    assert film.values["inter-scene-consistency"].value == pytest.approx(cosines(dino[[0, 1]], dino[[1, 2]]).mean(), abs=1e-5)
    assert film.values["inter-scene-consistency"].count == 2
    assert results.groups[0].values["sca"].value == 1 and results.groups[0].values["sca"].num_films == 3


def test_each_metric_takes_the_extractor_that_fits_it_best(networks: dict) -> None:
    taken = {each.metric.name: each.extractor for each in choose(METRICS, networks)}
    assert taken["visual-consistency"] == taken["background-consistency"] == taken["fvd"] == "clip"
    assert taken["subject-consistency"] == taken["inter-scene-consistency"] == "dinov2" and taken["sca"] == ""
    assert {each.extractor for each in choose(["visual-consistency", "semantic-consistency"], {})} == {None}
    assert wanted_features(choose(["sca", "subject-consistency"], networks)) == {"dinov2": frozenset({"frame"})}
    with pytest.raises(InputError, match="--metrics: got 'beauty', expected some of visual-consistency"):
        choose(["beauty"], {})


def test_a_metric_without_an_extractor_says_which_would_do(films: Path, tmp_path: Path) -> None:
    results = evaluated(tmp_path, {"films": find_films([films])}, {})
    number = results.groups[0].values["subject-consistency"]
    assert number.value is None and "--extractor with one of dinov2, siglip2, clip" in number.reason
    assert results.groups[0].values["dynamic-degree"].value > 0


def test_missing_captions_are_no_zero(films: Path, networks: dict, tmp_path: Path) -> None:
    values = evaluated(tmp_path, {"films": find_films([films])}, networks).groups[0].values
    for name, reason in {"semantic-consistency": "no captions", "inter-scene-consistency": "who is in which scene"}.items():
        assert values[name].value is None and reason in values[name].reason
    assert values["visual-consistency"].num_films == 3


def test_a_film_of_another_number_of_scenes_than_its_storyboard(films: Path, networks: dict, tmp_path: Path) -> None:
    board = Storyboard.from_captions(CAPTIONS[:2])
    groups = {"films": find_films([films], prompts() | {"one": PromptSetItem("one", board)})}
    group = evaluated(tmp_path, groups, networks).groups[0]
    one = next(film for film in group.films if film.name == "one")
    assert one.values["semantic-consistency"].reason == "the storyboard has 2 scenes, the film has 3"
    assert one.values["visual-consistency"].value is not None and one.notes == ("the storyboard has 2 scenes, the film has 3",)
    assert group.values["semantic-consistency"].num_films == 2 and "not of 1" in group.values["semantic-consistency"].reason


def test_films_that_cannot_be_measured_are_named_and_the_others_go_on(films: Path, networks: dict, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    shutil.copytree(films, folder)
    (folder / "text.mp4").write_text("this is no video")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes((folder / "one.mp4").read_bytes()[:700])
    (folder / "two.cuts.txt").write_text("12 400")
    (folder / "three.cuts.txt").write_text("not a list")
    group = evaluated(tmp_path / "store", {"films": find_films([folder])}, networks).groups[0]
    problems = {film.name: film.problem for film in group.films}
    assert problems.pop("one") == "" and all(problems.values()) and not any("mistake of the program" in each for each in problems.values())
    assert "counted from 0 to 35" in problems["two"] and "three.cuts.txt" in problems["three"]
    assert group.values["visual-consistency"].num_films == 1 and group.values["visual-consistency"].interval is None


def test_a_scene_of_one_frame_is_left_out_of_what_needs_two(films: Path, networks: dict, tmp_path: Path) -> None:
    video = read_video(films / "one.mp4")
    write_video(tmp_path / "short.mp4", video[:13], 12)
    (tmp_path / "short.cuts.txt").write_text("12")
    film = evaluated(tmp_path / "store", {"films": find_films([tmp_path / "short.mp4"])}, networks).groups[0].films[0]
    assert film.scenes == ((0, 12), (12, 13)) and film.values["subject-consistency"].count == 1 and "one frame" in film.notes[0]


def test_groups_are_compared_film_by_film(films: Path, networks: dict, tmp_path: Path) -> None:
    other = tmp_path / "still"
    for name in NAMES:
        video = read_video(films / f"{name}.mp4")
        write_video(other / f"{name}.mp4", video[np.repeat([0, 12, 24], 12)], 12)
        shutil.copy(films / f"{name}.cuts.txt", other)
    groups = {"moving": find_films([films], prompts()), "still": find_films([other], prompts())}
    (comparison,) = evaluated(tmp_path / "store", groups, networks).comparisons
    assert (comparison.one, comparison.other) == ("moving", "still")
    moved = comparison.differences["dynamic-degree"]
    assert moved.value > 5 and moved.num_films == 3 and moved.interval is not None
    assert comparison.differences["diversity"].num_films == 3 and "--reference" in comparison.differences["fvd"].reason
    assert comparison.differences["subject-consistency"].value < 0 and comparison.differences["sca"].value == 0


def test_a_reference_gives_a_distance(films: Path, networks: dict, tmp_path: Path) -> None:
    chosen = choose(["fvd"], networks)
    store = Store(tmp_path, networks)
    gathered = gather({"films": find_films([films])}, store, chosen, Silent())
    same = measure(gathered, chosen, networks, {}, ("itself", gathered["films"]))
    assert same.groups[0].values["fvd"].value == pytest.approx(0, abs=1e-6)
    assert (
        same.groups[0].values["fvd"].count == 9
        and "frames a scene" in same.metrics[0].instrument
        and same.reference.startswith("itself: 3 videos, 9 scenes")
    )
    nothing = measure(gathered, chosen, networks, {}, ("broken", []))
    assert nothing.groups[0].values["fvd"].reason == "no reference video could be read"


def test_a_distance_is_never_below_zero_and_nor_is_its_interval(films: Path, networks: dict, tmp_path: Path) -> None:
    for index in range(6):
        shutil.copy(films / f"{NAMES[index % 3]}.mp4", tmp_path / f"{index}.mp4")
    chosen = choose(["fvd"], networks)
    gathered = gather({"films": find_films([tmp_path])}, Store(tmp_path / "store", networks), chosen, Silent())
    number = measure(gathered, chosen, networks, {}, ("itself", gathered["films"])).groups[0].values["fvd"]
    assert number.value == pytest.approx(0, abs=1e-6) and number.interval[0] == 0


def test_a_damaged_feature_is_computed_again(films: Path, networks: dict, tmp_path: Path) -> None:
    groups = {"films": find_films([films / "one.mp4"], prompts())}
    first = evaluated(tmp_path, groups, networks, ["semantic-consistency"])
    for kind, content in (("scene", b"x"), ("text", b"")):
        next((tmp_path / f"clip-{kind}").glob("*.npy")).write_bytes(content)
    counted = Counted(networks["clip"])
    again = evaluated(tmp_path, groups, {"clip": counted}, ["semantic-consistency"]).groups[0].values
    assert again["semantic-consistency"].value == pytest.approx(first.groups[0].values["semantic-consistency"].value, abs=1e-6)
    assert counted.calls == ["scene", "text"]


def test_pictures_for_the_report_come_back(films: Path, tmp_path: Path) -> None:
    groups = {"films": find_films([films / "one.mp4"])}
    first = evaluated(tmp_path, groups, {}, ["sca"]).groups[0].films[0]
    shutil.rmtree(tmp_path / "pictures")
    evaluated(tmp_path, groups, {}, ["sca"])
    assert len(first.strips) == 3 and all(Path(strip).is_file() for strip in first.strips)


def test_features_that_are_not_finite_are_refused(films: Path, networks: dict, tmp_path: Path) -> None:
    class Broken(Counted):
        def scene(self, pictures: np.ndarray) -> np.ndarray:
            return super().scene(pictures) * np.float32("nan")

    film = evaluated(tmp_path, {"films": find_films([films / "one.mp4"])}, {"clip": Broken(networks["clip"])}).groups[0].films[0]
    assert "not finite" in film.problem


def test_a_disk_that_refuses_ends_all(films: Path, networks: dict, tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        evaluated(tmp_path, {"films": find_films([films])}, networks)


def test_other_instruments_are_other_looks(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]) -> None:
    groups = {"films": find_films([films / "one.mp4"])}
    evaluated(tmp_path, groups, {}, ["sca"])
    before = features.looked_at_with()
    monkeypatch.setattr(features, "looked_at_with", lambda: [*before, "another"])
    evaluated(tmp_path, groups, {}, ["sca"])
    assert decoded == ["one", "one"]


def test_what_is_done_to_a_film_moves_consistencies_the_right_way_or_not_at_all(films: Path, networks: dict, tmp_path: Path) -> None:
    video, names = read_video(films / "three.mp4"), ("again", "double", "frozen", "shuffled")
    steps = np.arange(36)
    changed = {"again": steps, "double": steps.repeat(2), "frozen": steps // 12 * 12, "shuffled": steps[[*range(12)] * 3]}
    for name in names:
        footage.encode(tmp_path / f"{name}.mkv", video[changed[name]], Fraction(24 if name == "double" else 12), "ffv1")
        (tmp_path / f"{name}.cuts.txt").write_text("24 48" if name == "double" else "12 24")
    board = prompts()["three"]
    found = find_films([films / "three.mp4", tmp_path], dict.fromkeys(("three", *names), board))
    values = {film.name: film.values for film in evaluated(tmp_path / "store", {"films": found}, networks).groups[0].films}
    consistencies = [name for name in values["three"] if name.endswith("consistency")]
    for name in consistencies:
        for same in ("again", "double"):
            assert values[same][name].value == pytest.approx(values["three"][name].value, abs=0.01), (same, name)
    for name in ("subject-consistency", "background-consistency"):
        assert values["frozen"][name].value == pytest.approx(1) and values["three"][name].value < 0.9999
    for name in ("visual-consistency", "inter-scene-consistency"):
        assert values["shuffled"][name].value == pytest.approx(1) and values["three"][name].value < 0.999


def test_other_weights_are_other_features(films: Path, networks: dict, tmp_path: Path) -> None:
    groups = {"films": find_films([films / "one.mp4"])}
    evaluated(tmp_path, groups, networks, ["visual-consistency"])
    other = Counted(networks["clip"])
    other.weights = "others"
    evaluated(tmp_path, groups, {"clip": other}, ["visual-consistency"])
    assert other.calls == ["scene"] * 3


def test_names_of_films(films: Path, tmp_path: Path) -> None:
    assert [film.name for film in find_films([films])] == list(NAMES)
    with pytest.warns(UserWarning, match="one.mp4: is named twice, and counts once"):
        assert [film.name for film in find_films([films / "one.mp4", films])] == list(NAMES)
    shutil.copy(films / "one.mp4", tmp_path / "one.mp4")
    assert {film.name for film in find_films([films, tmp_path])} == {*NAMES, f"{tmp_path.name}/one"}
    (tmp_path / "one.mp4").rename(tmp_path / "one-variant-2.mp4")
    (variant,) = find_films([tmp_path], prompts())
    assert variant.captions == CAPTIONS and variant.cut_list is None
    with pytest.raises(InputError, match="none of which is named like a film"):
        find_films([tmp_path], {"other": prompts()["one"]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no film"):
        find_films([tmp_path / "empty"])
    with pytest.raises(InputError, match="no such file"):
        find_films([tmp_path / "missing.mp4"])


def test_cut_lists_may_lie_in_a_folder_of_their_own(films: Path, tmp_path: Path) -> None:
    videos, lists = tmp_path / "videos", tmp_path / "lists"
    for folder in (videos, lists):
        folder.mkdir()
    for name in NAMES:
        shutil.copy(films / f"{name}.mp4", videos)
    shutil.copy(films / "two.cuts.txt", videos)
    (lists / "one.json").write_text('{"lengths": [12, 24]}')
    found = {film.name: film for film in find_films([videos], cut_folder=lists)}
    assert (found["one"].cut_list.num_scenes, found["two"].cut_list.num_scenes, found["three"].cut_list) == (2, 3, None)
    (lists / "two.txt").write_text("12 24")
    assert "expected one list of cuts" in {film.name: film.problem for film in find_films([videos], cut_folder=lists)}["two"]
    with pytest.raises(InputError, match="no list named like a video"):
        find_films([videos / "three.mp4"], cut_folder=lists)
    with pytest.raises(InputError, match="expected a folder with a list of cuts"):
        find_films([videos], cut_folder=tmp_path / "missing")


def test_actor_tags_are_characters() -> None:
    board = Storyboard.from_captions(["Actor1 (a fox) walks", "Actor2 and Actor1", "the sea"])
    assert cast_of(board) == (frozenset({"Actor1"}), frozenset({"Actor1", "Actor2"}), frozenset())
    assert cast_of(Storyboard.from_captions(["the sea"])) is None
