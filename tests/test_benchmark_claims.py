"""benchmarks/claims.py: what its measures say of films whose readings are known, and what counts as shown."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask2dit.playhouse.facts import COLOURS, PLACES, SPECIES
from mask2dit.playhouse.judge import ActorReading, Reading

FOLDER = Path(__file__).parents[1] / "benchmarks"
STORIES = range(500_000, 500_008)


@pytest.fixture(scope="module")
def claims() -> Any:
    # Among all tests a folder of tests has the name of benchmarks/playhouse.py.
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "playhouse"}
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("claims", FOLDER / "claims.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("playhouse", None)
        sys.modules.update(others)
    return module


def read(told: Any, index: int, **other: str) -> Reading:
    """What a perfect judge reads in a true scene, but for `other`."""
    stage, hero = told.story.stages[index], told.story.actors[0]
    colour = other.get("colour", hero.colour)
    actors = {
        species: ActorReading(species, float(species == hero.species), colour, None, stage.roles[0].action, {}, {"size": hero.size - 1})
        for species in SPECIES
    }
    return Reading((hero.species,), hero.species, actors, other.get("place", stage.place), stage.light, None, None, {})


def films(claims: Any, change: Any = lambda told, index: {}) -> list[list[Any]]:
    told = [claims.told_short(seed, style) for seed in STORIES for style in claims.STYLES]
    return [[claims.Film(each, [read(each, index, **change(each, index)) for index in range(3)]) for each in told]]


def value(claims: Any, made: list[Any], name: str) -> float:
    return claims.summary(claims.measures(made)[name], None)["value"]


def test_true_films_are_right_and_leak_nothing(claims: Any) -> None:
    made = films(claims)
    for name in (*sys.modules["claims_page"].ALIGNMENT, "by reference: colour", "same colour", "same species"):
        assert value(claims, made, name) == 1, name
    for name in sys.modules["claims_page"].LEAKAGE:
        assert value(claims, made, name) == 0, name


def test_a_place_from_another_scene_is_a_leak(claims: Any) -> None:
    made = films(claims, lambda told, index: {"place": told.story.stages[(index + 1) % 3].place})
    assert value(claims, made, "leak: place") == 1 and value(claims, made, "own caption: place") == 0
    nowhere = films(claims, lambda told, index: {"place": next(p for p in PLACES if p not in {s.place for s in told.story.stages})})
    assert value(claims, nowhere, "leak: place") == 0 and value(claims, nowhere, "own caption: place") == 0


def test_colours_are_counted_where_they_are_named_and_where_not(claims: Any) -> None:
    def only_where_named(told: Any, index: int) -> dict[str, str]:
        wrong = COLOURS[(COLOURS.index(told.story.actors[0].colour) + 1 + index) % 8]
        return {} if (0, "colour") in told.named[index] else {"colour": wrong}

    made = films(claims, only_where_named)
    assert (value(claims, made, "own caption: colour"), value(claims, made, "by reference: colour")) == (1, 0)
    assert value(claims, made, "same colour") < 0.4


def test_trainings_are_pooled_and_paired_by_training_and_story(claims: Any) -> None:
    right, wrong = (
        films(claims)[0],
        films(claims, lambda told, index: {"place": "space" if told.story.stages[index].place != "space" else "cave"})[0],
    )
    cell = claims.summary(claims.measures([right, wrong])["own caption: place"], claims.measures([right, right])["own caption: place"])
    assert (cell["value"], cell["difference"], cell["stories"]) == (0.5, -0.5, 2 * len(STORIES))


def test_a_difference_is_shown_only_where_its_interval_says_so(claims: Any) -> None:
    def noisy(share: float) -> Any:
        rng = np.random.default_rng(0)
        return lambda told, index: {"colour": COLOURS[(COLOURS.index(told.story.actors[0].colour) + 1) % 8]} if rng.random() < share else {}

    names = ["symmetric", "isolated", "full", "video-reads-text", "shared-text", "symmetric, no SFT", "one by one"]
    same = {name: films(claims) for name in names}
    verdicts = {claim: shown for claim, shown, _ in claims.claims(claims.summarised(same))}
    assert not any(shown for claim, shown in verdicts.items() if "as well" not in claim)
    assert [shown for claim, shown in verdicts.items() if "as well" in claim] == [True]
    worse = same | {"isolated": films(claims, noisy(0.8)), "one by one": films(claims, noisy(0.8))}
    shown = {claim: shown for claim, shown, _ in claims.claims(claims.summarised(worse))}
    assert shown["Without video-to-video attention, scenes lose what only another scene knows"] is True
    assert shown["… while each caption is followed as well"] is False


def test_extensions_are_measured_against_the_scenes_before(claims: Any) -> None:
    told = [claims.long_tale(seed, "by-reference") for seed in STORIES]
    assert all(any((0, "colour") in named for named in each.named[:3]) for each in told)
    made = [[claims.Film(each, [read(each, index, **({"colour": "red"} if index == 5 else {})) for index in range(8)]) for each in told]]
    table = claims.measures(made, range(3, 8))
    assert len(table["same colour"][0, STORIES[0]]) == 3 + 4 + 5 + 6 + 7 and len(table["own caption: place"][0, STORIES[0]]) == 5
    reds = sum(each.story.actors[0].colour == "red" for each in told)
    assert claims.summary(claims.measures(made, range(5, 6))["by reference: colour"], None)["value"] == pytest.approx(reds / len(told))


def test_the_page_and_its_plots(claims: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["symmetric", "isolated", "full", "video-reads-text", "shared-text", "symmetric, no SFT", "full, no SFT", "one by one"]
    found = claims.summarised({name: films(claims) for name in names})
    machine = {"cpu": "a processor", "cores": 2}
    part = claims.page_part({"measures": found, "machine": machine, "stories": 8, "date": "today", "parameters": 3.6e6, "trainings": 1})
    assert "| claim | verdict | numbers |" in part and "**not shown**" in part and "NaN" not in part and "nan" not in part
    for svg in claims.plots(found, {}).values():
        assert svg.startswith("<svg") and "own caption: place" in svg
    page = tmp_path / "results.md"
    page.write_text(f"before\n{sys.modules['claims_page'].MARKS[0]}\nold\n{sys.modules['claims_page'].MARKS[1]}\nafter\n")
    monkeypatch.setattr(sys.modules["claims_page"], "PAGE", page)
    claims.write_page("new")
    assert page.read_text() == f"before\n{sys.modules['claims_page'].MARKS[0]}\n\nnew\n\n{sys.modules['claims_page'].MARKS[1]}\nafter\n"


def test_a_last_line_that_was_cut_off_is_filmed_again(claims: Any, tmp_path: Path) -> None:
    path = tmp_path / "films.jsonl"
    reading = claims.asdict(read(claims.told_short(500_000, "by-reference"), 0))
    line = claims.json.dumps({"seed": 1, "style": "by-reference", "scenes": [reading]})
    path.write_text(f"{line}\n{line[:50]}")
    assert [key for key, _ in claims._kept(path)] == [(1, "by-reference")]
    assert dict(claims._kept(path))[1, "by-reference"][0] == read(claims.told_short(500_000, "by-reference"), 0)
