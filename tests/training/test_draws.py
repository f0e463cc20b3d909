"""What a sample is depends on the seed and its number alone."""

import random
from collections import Counter
from pathlib import Path

import torch

from mask2dit.training.config import DiffusionRecipe
from mask2dit.training.data.files import read_clips_csv
from mask2dit.training.data.playhouse import PlayhouseScenes
from mask2dit.training.data.report import ClipReport
from mask2dit.training.data.scenes import ClipSettings, usable
from mask2dit.training.draws import NOISE, POSTERIOR, draw_for, draw_noise, generator_for
from mask2dit.training.parallel import own_numbers
from mask2dit.training.samples import Samples
from training.footage_folder import write_footage_folder


def recipe(**changes: object) -> DiffusionRecipe:
    known = {"none": 0.4, "all-but-last": 0.3, "random": 0.3}
    data = {"source": "playhouse", "level": "A", "num_stories": 5, "by_reference": 0.5}
    values = {"kind": "diffusion", "stage": "sft", "start_from": "model", "num_scenes": 3, "data": data, "known_sets": known}
    return DiffusionRecipe(**(values | {"num_steps": 10, "batch_size": 4, "learning_rate": 1e-3} | changes))


def samples(**changes: object) -> Samples:
    wanted = recipe(**changes)
    source, report = PlayhouseScenes("A", wanted.data.num_stories, wanted.data.by_reference), ClipReport()
    windows = usable(source, wanted.num_scenes, needs_groups=wanted.stage == "sft", report=report)
    return Samples(wanted, source, windows, ClipSettings(16, 24, 5, 8), report, 1000)


def test_a_sample_depends_on_its_number_alone() -> None:
    here, there = samples(), samples(batch_size=8, num_steps=99)
    there[3]
    for number in (7, 0):
        one, other = here[number], there[number]
        assert (one.captions, one.draw) == (other.captions, other.draw) and torch.equal(one.frames, other.frames)
    assert here[7].draw != here[8].draw and here[7].captions != here[8].captions


def test_noise_is_keyed_by_number_and_purpose() -> None:
    draws = [draw_noise(recipe(), number, purpose, (3,)) for number, purpose in ((1, NOISE), (2, NOISE), (1, POSTERIOR), (1, NOISE))]
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    keyed = [torch.randn(3, generator=generator_for(*key)).tolist() for key in ((0, 1), (0, 2), (1, 1), (0, 1, 1))]
    assert len({tuple(values) for values in keyed}) == 4


def test_known_sets_timesteps_and_empty_captions_follow_the_recipe() -> None:
    drawn = [draw_for(recipe(empty_caption=0.2), number, 1000) for number in range(2000)]
    assert all(len(draw.known) < 3 for draw in drawn), "one scene is always left to learn"
    counts = Counter(draw.known for draw in drawn)
    assert 0.36 < counts[frozenset()] / 2000 < 0.44
    assert 0.3 < counts[frozenset({0, 1})] / 2000 < 0.42  # all but the last, and a share of the random ones
    assert set(counts) == {frozenset(known) for known in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))}
    assert 0.16 < sum(draw.empty for draw in drawn) / 2000 < 0.24
    times = torch.tensor([draw.timestep for draw in drawn], dtype=torch.float64)
    assert times.min() >= 0 and times.max() <= 999 and 480 < times.mean() < 520 and 270 < times.std() < 307


def test_devices_share_a_step_without_gap_or_overlap() -> None:
    for devices in (1, 2, 4):
        numbers = [number for step in range(3) for rank in range(devices) for number in own_numbers(recipe(), step, rank, devices)]
        assert sorted(numbers) == list(range(12))
        assert [n for rank in range(devices) for n in own_numbers(recipe(), 2, rank, devices)] == [8, 9, 10, 11]


def test_every_group_is_seen_once_an_epoch_and_sft_takes_scenes_in_order() -> None:
    source = samples(empty_caption=0.0)
    for epoch in (0, 1):
        stories = [source._pick(number, 0, random.Random(0)) for number in range(5 * epoch, 5 * epoch + 5)]
        assert sorted(picks[0][0] for picks in stories) == list(range(5))
        assert all([scene for _, scene in picks] == [0, 1, 2] and len({group for group, _ in picks}) == 1 for picks in stories)


def test_pretrain_joins_unrelated_scenes() -> None:
    source = samples(stage="pretrain")
    picks = [source._pick(number, 0, random.Random(number)) for number in range(200)]
    assert all(len(set(pick)) == 3 for pick in picks)
    assert sum(len({group for group, _ in pick}) > 1 for pick in picks) > 180


def test_what_is_learned_does_not_depend_on_when_a_damaged_clip_was_met(tmp_path: Path) -> None:
    folder = write_footage_folder(tmp_path, 2)
    spoilt = folder / "clips" / "story-1-scene-0.mp4"
    content = spoilt.read_bytes()
    spoilt.write_bytes(content[: int(0.9 * len(content))])

    def opened() -> Samples:
        wanted = recipe(stage="base", num_scenes=1, known_sets={"none": 1.0})
        source, report = read_clips_csv(folder / "clips.csv"), ClipReport(tmp_path / "bad.jsonl")
        windows = usable(source, 1, needs_groups=False, report=report)
        return Samples(wanted, source, windows, ClipSettings(16, 24, 5, 8), report, 1000)

    forwards, backwards = opened(), opened()
    there = {number: forwards[number] for number in range(24)}
    back = {number: backwards[number] for number in reversed(range(24))}
    later = opened()
    assert forwards.report.counted() == "1 unreadable" and later.report.is_bad(later.source.groups[3][0].name)
    for number in range(24):
        for other in (back[number], later[number]):
            assert there[number].captions == other.captions and torch.equal(there[number].frames, other.frames)
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 2, "one line for each that met it for the first time"
