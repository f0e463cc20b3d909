"""Which shots are kept, which belong together, and whether their captions are as they must be."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from chat_server import ChatServer, Reply
from mask2dit.curation.captioners.base import CaptionError, CaptionerStoppedError, GroupCaptions, GroupView
from mask2dit.curation.captions import TokenLimit, caption_groups, estimated_tokens, review_captions, row_of
from mask2dit.curation.checks import CheckSettings, Look, check_shots
from mask2dit.curation.groups import GroupSettings, group_shots, pair_shots, read_sizes
from mask2dit.curation.rows import CaptionRow, CheckRow, GroupRow, PairRow, ShotRow
from mask2dit.errors import InputError


def shot(index: int, digest: str = "aa", **changes: object) -> ShotRow:
    row = ShotRow(
        shot=f"{digest}-{index}",
        name=f"{digest}.mp4",
        digest=digest,
        index=index,
        start=100 * index,
        stop=100 * index + 100,
        fps=25.0,
        begins="cut",
        ends="cut",
        pictures="",
        num_pictures=8,
        lightness=50.0,
        contrast=20.0,
        motion=5.0,
        still_seconds=0.0,
        bars=(0.0, 0.0, 0.0, 0.0),
        text=0.0,
        num_damaged=0,
    )
    return replace(row, **changes)


# Checks


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"stop": 30}, "short"),
        ({"num_damaged": 1}, "damaged"),
        ({"lightness": 1.0}, "black"),
        ({"contrast": 1.0}, "flat"),
        ({"still_seconds": 3.9}, "frozen"),
        ({"motion": 0.1}, "still"),
        ({"text": 0.05}, "text"),
        ({"bars": (0.3, 0.3, 0.0, 0.0)}, "bars"),
    ],
)
def test_each_fault_is_named_with_what_was_measured(changes: dict, kind: str) -> None:
    settings = CheckSettings(min_motion=0.5)
    good, bad = shot(1), shot(0, **changes)
    first, second = check_shots([bad, good], {}, settings)
    assert (first.kept, [each for each, _ in first.reasons]) == (False, [kind]) and kind in CheckRow.KINDS
    assert "expected" in first.reasons[0][1] and second == CheckRow(good.shot, True)


def test_a_shot_may_have_several_faults() -> None:
    (row,) = check_shots([shot(0, stop=10, text=0.5, num_damaged=3)], {}, CheckSettings())
    assert [kind for kind, _ in row.reasons] == ["short", "damaged", "text"]


def test_duplicates_are_those_of_a_slow_search() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 255, (12, 60)).astype(np.float32)
    looks, rows = {}, []
    for index in range(150):
        looks[f"aa-{index}"] = base[rng.integers(12)] + rng.normal(0, rng.choice([0.5, 1.4, 6.0]), 60).astype(np.float32)
        rows.append(shot(index))
    limit, kept, copies = 2.0, [], set()
    for row in rows:
        if any(np.sqrt(np.square(looks[row.shot] - looks[other]).mean()) < limit for other in kept):
            copies.add(row.shot)
        else:
            kept.append(row.shot)
    found = check_shots(rows, looks, CheckSettings(duplicate=limit))
    assert 20 < len(copies) < 130 and {row.shot for row in found if not row.kept} == copies
    assert all(kind == "duplicate" and "aa.mp4 at " in said for row in found for kind, said in row.reasons)


def test_a_look_is_near_to_its_own_copy_alone() -> None:
    rng = np.random.default_rng(1)
    one, other = (np.repeat(rng.integers(0, 255, (4, 9, 16, 3), dtype=np.uint8), 8, 1).repeat(8, 2) for _ in range(2))
    noisy = (one + rng.normal(0, 3, one.shape)).clip(0, 255).astype(np.uint8)
    looks = Look().scenes([one, noisy, other])
    assert np.abs(looks[0] - looks[1]).mean() < 1.5 < 20 < np.abs(looks[0] - looks[2]).mean()


# Groups

ANGLES = {"near": 10, "related": 40, "far": 90}  # degrees between neighbours
SETTINGS = GroupSettings(lower=0.6, upper=0.95)


def along(steps: list[str]) -> dict[str, np.ndarray]:
    """Features of shots whose neighbours are so far from each other."""
    total = np.cumsum([0, *(ANGLES[step] for step in steps)])
    return {f"aa-{index}": np.array([np.cos(angle), np.sin(angle)], np.float32) for index, angle in enumerate(np.deg2rad(total))}


def grouped(steps: list[str], settings: GroupSettings = SETTINGS, dropped: tuple[int, ...] = ()) -> tuple[list[str], list[list[int]]]:
    rows = [shot(index) for index in range(len(steps) + 1)]
    checks = {row.shot: CheckRow(row.shot, row.index not in dropped) for row in rows}
    pairs = pair_shots(rows, checks, along(steps), settings)
    return [pair.verdict for pair in pairs], [[int(name[3:]) for name in group.shots] for group in group_shots(rows, pairs, settings)]


def test_neighbours_are_related_between_the_thresholds() -> None:
    verdicts, groups = grouped(["related", "related", "far", "related", "near", "related", "related"])
    assert verdicts == ["related", "related", "unrelated", "related", "same picture", "related", "related"]
    assert groups == [[0, 1, 2], [5, 6, 7]]


def test_what_a_check_drops_ends_a_chain() -> None:
    verdicts, groups = grouped(["related"] * 6, dropped=(3,))
    assert verdicts == ["related", "related", "dropped", "dropped", "related", "related"] and groups == [[0, 1, 2], [4, 5, 6]]


def test_windows_do_not_overlap_and_ranges_are_split_evenly() -> None:
    assert grouped(["related"] * 10)[1] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert grouped(["related"] * 10, replace(SETTINGS, shortest=3, longest=8))[1] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    assert grouped(["related"], replace(SETTINGS, shortest=3, longest=8))[1] == []


def test_no_division_of_a_chain_has_more_shots_in_groups() -> None:
    for shortest in range(2, 8):
        for longest in range(shortest, 10):
            most = [0]  # shots in groups, of a chain of so many
            for length in range(1, 31):
                sizes = range(shortest, min(longest, length) + 1)
                most.append(max([most[-1], *(most[length - size] + size for size in sizes)]))
                groups = grouped(["related"] * (length - 1), replace(SETTINGS, shortest=shortest, longest=longest))[1]
                found = [len(group) for group in groups]
                assert sum(found) == most[length] and all(size in sizes for size in found), (shortest, longest, length)
                assert bool(groups) == (length >= shortest)
                assert len({*found}) <= 1 or max(found) - min(found) == 1


def test_groups_of_other_shots_have_other_names() -> None:
    def name(*borders: int) -> str:
        rows = [shot(index, shot=f"aa-{start}-{stop}", start=start, stop=stop) for index, (start, stop) in enumerate(pairwise(borders))]
        (group,) = group_shots(rows, [PairRow(one.shot, two.shot, 0.7, "related") for one, two in pairwise(rows)], SETTINGS)
        return group.group

    assert name(0, 40, 80, 120) == name(0, 40, 80, 120) != name(0, 50, 80, 120)
    assert name(0, 40, 80, 120).startswith("aa-0000000-0000120-")


def test_parts_of_one_shot_never_stand_in_a_group() -> None:
    rows = [shot(0), shot(1, ends="split"), shot(2, begins="split"), shot(3)]
    checks = {row.shot: CheckRow(row.shot, True) for row in rows}
    pairs = pair_shots(rows, checks, along(["related"] * 3), SETTINGS)
    assert [pair.verdict for pair in pairs] == ["related", "same picture", "related"]


def test_groups_never_go_from_one_video_to_another() -> None:
    rows = [shot(0), shot(1), shot(0, "bb"), shot(1, "bb")]
    checks = {row.shot: CheckRow(row.shot, True) for row in rows}
    features = {row.shot: np.array([1.0, 0.5 * index], np.float32) for index, row in enumerate(rows)}
    settings = GroupSettings(-1, 1, 2, 4)
    pairs = pair_shots(rows, checks, features, settings)
    assert [(pair.first, pair.second) for pair in pairs] == [("aa-0", "aa-1"), ("bb-0", "bb-1")]
    assert [group.digest for group in group_shots(rows, pairs, settings)] == ["aa", "bb"]


def test_random_chains_keep_their_laws() -> None:
    rng = random.Random(3)
    for _ in range(60):
        steps = rng.choices(list(ANGLES), [1, 6, 1], k=rng.randint(1, 40))
        low = rng.randint(2, 4)
        settings = replace(SETTINGS, shortest=low, longest=rng.choice([low, low + 3, 9]))
        verdicts, groups = grouped(steps, settings, tuple(rng.sample(range(len(steps)), k=min(2, len(steps)))))
        seen = [index for group in groups for index in group]
        assert seen == sorted(set(seen))
        for group in groups:
            assert group == list(range(group[0], group[-1] + 1)) and settings.shortest <= len(group) <= settings.longest
            assert all(verdicts[index] == "related" for index in group[:-1])


def test_sizes_and_thresholds_that_cannot_be() -> None:
    assert read_sizes("3") == (3, 3) and read_sizes(" 3 - 8 ") == (3, 8)
    for text in ("", "1", "8-3", "three", "3-8-9", "-3"):
        with pytest.raises(
            InputError, match=r"^--group-size: got .* expected a number of shots from 2, or a range; for example 3, or 3-8$"
        ):
            read_sizes(text)
    with pytest.raises(InputError, match=r"^thresholds: got 0.9 and 0.5, expected the lower below the upper"):
        GroupSettings(0.9, 0.5)


# Captions


class Speaker:
    """Describes groups by their name, refuses some, and stops at one."""

    name, features, at_once = "speaker 1", frozenset(), 3

    def __init__(self, refused: str = "", last: str = "") -> None:
        self.refused, self.last, self.asked = refused, last, []

    def caption(self, group: GroupView) -> GroupCaptions:
        self.asked.append(group.group)
        if group.group == self.last:
            raise CaptionerStoppedError("the budget is spent; raise --max-requests")
        if group.group == self.refused:
            raise CaptionError("refused: no words for this")
        return GroupCaptions({"Actor1": "a red fox"}, "", ("Actor1 runs.", "The night.", f"Actor1 sees {group.group}."))

    def summary(self) -> dict:
        return {}


GROUPS = [GroupRow(f"g{number}", "aa.mp4", "aa", ("a", "b", "c"), (0.7, 0.7)) for number in range(9)]


def described(speaker: Speaker, known: tuple[CaptionRow, ...] = ()) -> tuple[list[str], str]:
    found = caption_groups(GROUPS, known, speaker, lambda group: GroupView(group.group, ()), lambda: None)
    return [f"{row.group}{'!' if row.problem else ''}" for row in found.rows], found.stopped


def test_a_refused_group_does_not_stop_the_others_and_is_asked_for_again() -> None:
    speaker = Speaker(refused="g2")
    found = caption_groups(GROUPS, (), speaker, lambda group: GroupView(group.group, ()), lambda: None)
    assert [row.group for row in found.rows] == [group.group for group in GROUPS] and found.stopped == ""
    assert [row.problem for row in found.rows if row.problem] == ["refused: no words for this"]
    assert found.rows[0].captions == ("Actor1 (a red fox) runs.", "The night.", "Actor1 (a red fox) sees g0.")
    again = Speaker()
    assert described(again, found.rows)[0] == [group.group for group in GROUPS] and again.asked == ["g2"]


def test_a_captioner_that_stops_is_gone_on_with_later() -> None:
    speaker = Speaker(last="g4")
    rows, stopped = described(speaker)
    assert stopped == "the budget is spent; raise --max-requests" and "g4" not in rows and len(speaker.asked) <= 4 + speaker.at_once
    known = caption_groups(GROUPS, (), Speaker(last="g4"), lambda group: GroupView(group.group, ()), lambda: None).rows
    again = Speaker()
    assert described(again, known) == ([group.group for group in GROUPS], "")
    assert set(again.asked) == {group.group for group in GROUPS} - {row.group for row in known}


class Hanging(Speaker):
    """Says nothing until it is closed, and perhaps not even then."""

    def __init__(self, heeds: bool) -> None:
        super().__init__()
        self.heeds, self.closed, self.ended = heeds, threading.Event(), threading.Event()

    def caption(self, group: GroupView) -> GroupCaptions:
        (self.closed if self.heeds else threading.Event()).wait(20)
        self.ended.set()
        raise CaptionerStoppedError("closed")

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize("heeds", [True, False])
def test_an_interrupt_waits_for_nobody(heeds: bool) -> None:
    speaker, seen = Hanging(heeds), []

    def view(group: GroupRow) -> GroupView:
        seen.append(group)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return GroupView(group.group, ())

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        caption_groups(GROUPS, (), speaker, view, lambda: None)
    assert time.monotonic() - started < (1 if heeds else 2.5) and speaker.closed.is_set() and speaker.ended.is_set() == heeds


def test_a_process_that_is_interrupted_ends_while_its_endpoint_hangs(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys, threading
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_choosing import GROUPS, Speaker, caption_groups, GroupView
from mask2dit.chat import ChatClient, Endpoint

class Asking(Speaker):
    client = ChatClient(Endpoint(sys.argv[1], "tiny"))
    def caption(self, group):
        self.client.ask([{{"role": "user", "content": "?"}}])
    def close(self):
        self.client.close()

print("ready", flush=True)
caption_groups(GROUPS, (), Asking(), lambda group: GroupView(group.group, ()), lambda: None)
"""
    with ChatServer(Reply(fault="hang")) as server:
        environment = os.environ | {"NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", script, server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout and process.stdout.readline() == "ready\n"
            while len(server.questions) < 3:
                time.sleep(0.02)
                assert process.poll() is None
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=20)[1]
            assert time.monotonic() - started < 4 and errors.rstrip().endswith("KeyboardInterrupt"), errors


def test_another_captioner_writes_all_anew() -> None:
    known = caption_groups(GROUPS, (), Speaker(), lambda group: GroupView(group.group, ()), lambda: None).rows
    other = Speaker()
    other.name = "speaker 2"
    described(other, known)
    assert len(other.asked) == len(GROUPS)


LIMIT = TokenLimit(12, lambda caption: len(caption.split()), "words")


def reviewed(cast: dict[str, str], *prompts: str) -> list[str]:
    row = row_of("g", "speaker", GroupCaptions(cast, "", prompts))
    (review,) = review_captions([row], {"g": 3}, LIMIT)
    assert review.kept == (not review.reasons)
    return [kind for kind, _ in review.reasons]


def test_captions_are_reviewed() -> None:
    fox, bear = {"Actor1": "a red fox"}, {"Actor1": "a red fox", "Actor2": "a bear"}
    assert reviewed(fox, "Actor1 runs.", "It rains.", "Actor1 sleeps.") == []
    assert reviewed(fox, "Actor1 runs.", "Actor2 sleeps.", "Rain.") == ["unknown tag"]
    assert reviewed(fox, "Actor1 (a blue fox) runs.", "Rain.", "Actor1 sleeps.") == ["other description"]
    assert reviewed(fox, "Actor1 runs.", "Rain.") == ["no captions"]
    assert reviewed(bear, "Actor1 runs " + "on and on " * 4, "Actor2 sits.", "Rain.") == ["too long"]
    assert reviewed(bear, "Actor1 runs.", "Actor1 sits.", "Rain.") == ["unused character"]
    row = CaptionRow("g", "speaker", (), "", (), (), "refused")
    assert review_captions([row], {"g": 3}, LIMIT)[0].reasons == (("no captions", "refused"),)
    empty = CaptionRow("g", "speaker", (), "", ("a", " ", "b"), ("a", " ", "b"))
    assert review_captions([empty], {"g": 3}, LIMIT)[0].reasons == (("empty", "shot 2: no words"),)


def test_the_estimate_of_tokens_errs_upwards() -> None:
    assert estimated_tokens("Actor1 (a red fox) runs.") == round(1.6 * 5) + 3 + 1
    assert estimated_tokens("") == 1
