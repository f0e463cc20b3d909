"""`mask2dit curate`: footage in, a training set out; again, and only what is missing is done; bad files are told and stop nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from mask2dit.curation import shots
from mask2dit.playhouse.features import facts_named
from mask2dit.playhouse.footage import read_truth
from mask2dit.training.data.files import read_groups_jsonl
from mask2dit.video_files import OpenVideo
from small_footage import moving, of_no_use, stories, write

Command = Callable[..., Result]
JUDGED = ("--extractor", "judge", "--min-seconds", "1", "--validation", "0")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of two stories each, of three shots each."""
    folder = tmp_path_factory.mktemp("footage")
    stories(folder / "one.mp4", count=2)
    stories(folder / "and 'two' 🦊.mp4", count=2, first=2_000_100)
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_stories_become_groups_with_true_captions(command: Command, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = command("curate", footage, "-o", "set", *JUDGED, "--captioner", "judge", "--shards", "4")
    assert result.exit_code == 0, result.output
    assert "groups: 10 pairs, 8 related, 4 groups" in result.output and "Wrote set/report.html" in result.output
    groups = read_groups_jsonl("set/train.jsonl").groups
    assert [len(group) for group in groups] == [3] * 4
    truth = {path.stem: read_truth(path) for path in footage.glob("*.mp4")}
    true = [facts_named(each.caption) for name in sorted(truth) for each in truth[name].shots]
    read = [facts_named(clip.caption) for group in groups for clip in group]
    assert [each["species"] for each in read] == [each["species"] for each in true]
    assert [each["place"] for each in read] == [each["place"] for each in true]
    page = Path("set/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 4 and "http" not in page.replace("http-equiv", "")

    # Again: nothing is decoded, nothing is written.
    before = files_of(Path("set"))
    monkeypatch.setattr(OpenVideo, "frames", None)
    monkeypatch.setattr(shots, "scan_piece", None)
    again = command("curate", footage, "-o", "set", *JUDGED, "--captioner", "judge", "--shards", "4")
    assert again.exit_code == 0 and again.output.splitlines()[-1] == result.output.splitlines()[-1]
    changed = {name for name, time in files_of(Path("set")).items() if before.get(name) != time}
    assert changed <= {".lock"}

    explained = command("curate", "-o", "set", "--explain", "one.mp4")
    assert explained.exit_code == 0 and "kept, 1 of 3 in " in explained.output and "unrelated" in explained.output
    unknown = command("curate", "-o", "set", "--explain", "three.mp4")
    assert unknown.exit_code == 2 and unknown.stderr.startswith("error: 'three.mp4': is no video of") and unknown.stderr.count("\n") == 1


def test_thresholds_change_without_decoding_and_captions_stay(command: Command, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = footage / "one.mp4"
    assert command("curate", video, "-o", "set", *JUDGED, "--captioner", "truth").exit_code == 0
    captions = lines(Path("set/captions/5-captions.jsonl"))
    assert [len(row["captions"]) for row in captions] == [3, 3]
    monkeypatch.setattr(shots, "scan_piece", None)
    result = command("curate", video, "-o", "set", *JUDGED, "--until", "groups", "--lower", "-1", "--upper", "2", "--group-size", "3-9")
    assert result.exit_code == 0 and "1 groups, 6 shots in groups" in result.output
    assert lines(Path("set/captions/5-captions.jsonl")) == captions
    # What this run did not come to would tell of other groups.
    assert sorted(path.name[0] for path in Path("set/steps").iterdir()) == sorted("1122233444")
    page = Path("set/report.html").read_text(encoding="utf-8")
    assert "with captions" not in page.partition("<section")[0]


def test_bad_files_are_told_and_stop_nothing(command: Command, footage: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "good.mp4").write_bytes((footage / "one.mp4").read_bytes())
    expected = of_no_use(folder, folder / "good.mp4")
    write(folder / "one frame.mp4", moving(1, 0))
    result = command("curate", folder, "-o", "set", "--until", "groups", *JUDGED)
    assert result.exit_code == 1
    for name, reason in expected.items():
        assert f"left out: {name}: {reason}" in result.output and "Traceback" not in result.output
    assert "6 videos, 2 readable" in result.output and "2 groups" in result.output
    page = Path("set/report.html").read_text(encoding="utf-8")
    assert all(name in page for name in expected)
    checks = {row["shot"]: row["reasons"] for row in lines(Path("set/steps/3-checks.jsonl"))}
    assert sum(any(kind == "short" for kind, _ in reasons) for reasons in checks.values()) == 1

    # The bad file is put right: it alone is looked at.
    (folder / "empty.mp4").unlink()
    (folder / "text.mp4").unlink()
    (folder / "sound.m4v").unlink()
    stories(folder / "broken.mp4", count=2, first=2_000_200)
    before = files_of(Path("set/work"))
    assert command("curate", folder, "-o", "set", "--until", "groups", *JUDGED).exit_code == 0
    after = files_of(Path("set/work"))
    assert before.items() <= after.items() and len({name.split("/")[-2] for name in after.keys() - before.keys()}) == 1


def test_damaged_work_is_told_and_mended(command: Command, footage: Path) -> None:
    asked = ("curate", footage / "one.mp4", "-o", "set", "--until", "groups", *JUDGED)
    assert command(*asked).exit_code == 0
    rows = Path("set/steps/4-groups.jsonl").read_text(encoding="utf-8")
    for pattern in ("shots/*/*/piece-0000.json", "features/look/*/*/piece-0000.npz"):
        (damaged,) = Path("set/work").glob(pattern)
        damaged.write_bytes(b"half a file")
        result = command(*asked)
        assert result.exit_code in (1, 2) and "run the same command again" in result.output and "Traceback" not in result.output
        assert command(*asked).exit_code == 0 and Path("set/steps/4-groups.jsonl").read_text(encoding="utf-8") == rows
    (pictures,) = Path("set/work").glob("shots/*/*/piece-0000.zip")
    pictures.unlink()
    other = ("curate", footage / "one.mp4", "-o", "set", "--until", "groups", "--min-seconds", "1")
    result = command(*other)
    assert result.exit_code in (1, 2) and "was damaged or taken away" in result.output + Path("set/steps/2-videos.jsonl").read_text()
    assert command(*other).exit_code == 0


def test_two_runs_do_not_share_a_set(command: Command, footage: Path) -> None:
    from filelock import FileLock

    Path("set/clips").mkdir(parents=True)
    Path("set/clips/.a.0123abcd.part.mp4").touch()
    with FileLock("set/.lock"):
        result = command("curate", footage, "-o", "set", "--until", "pieces")
    assert result.exit_code == 2 and "set: another process is at work on it; wait for its end" in result.stderr
    assert command("curate", footage, "-o", "set", "--until", "pieces").exit_code == 0 and not list(Path("set/clips").iterdir())


@pytest.mark.slow
def test_a_full_disk_costs_what_could_not_be_written_and_no_more(command: Command, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, writes = shots.to_jpeg, []

    def full(picture: np.ndarray) -> bytes:
        writes.append(1)
        if len(writes) > 120:
            raise OSError(28, "No space left on device")
        return whole(picture)

    monkeypatch.setattr(shots, "to_jpeg", full)
    result = command("curate", footage, "-o", "set", "--until", "groups", *JUDGED)
    assert result.exit_code == 1 and "No space left on device" in result.output and "Traceback" not in result.output
    assert "2 groups" in result.output
    assert not list(Path("set").rglob("*.part*"))
    monkeypatch.setattr(shots, "to_jpeg", whole)
    scans = []
    scan = shots.scan_piece
    monkeypatch.setattr(shots, "scan_piece", lambda *given: scans.append(given[0].name) or scan(*given))
    result = command("curate", footage, "-o", "set", "--until", "groups", *JUDGED)
    assert result.exit_code == 0 and "4 groups" in result.output and scans == ["one.mp4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "curate: got no footage, expected videos or folders of them"),
        (("none",), "none: there is no such file or folder, expected footage"),
        ((".",), ".: holds no footage, expected videos"),
        (("FOOTAGE", "--until", "soon"), "--until: got 'soon', expected one of pieces, shots, checks"),
        (("FOOTAGE", "--detector", "eye"), "cut detector: got 'eye', expected one of adaptive, content, transnetv2"),
        (("FOOTAGE", "--extractor", "eye"), "--extractor: got 'eye', expected one of judge, viclip"),
        (("FOOTAGE", "--captioner", "me"), "--captioner: got 'me', expected one of openai, gemini, local, truth, judge"),
        (("FOOTAGE", "--captioner", "openai"), "--captioner openai: got no model, expected its name or folder"),
        (("FOOTAGE", "--captioner", "openai", "--caption-model", "m"), "--captioner openai: got no endpoint, expected --base-url"),
        (("FOOTAGE", "--captioner", "local", "--caption-model", "nowhere"), "local captioner: nowhere: no such folder"),
        (("FOOTAGE", "--captioner", "gemini", "--caption-model", "m", "--max-cost", "3"), "--max-cost: got no prices to count it by"),
        (("FOOTAGE", "--group-size", "1"), "--group-size: got '1', expected a number of shots from 2"),
        (("FOOTAGE", "--lower", "0.9", "--upper", "0.2"), "thresholds: got 0.9 and 0.2, expected the lower below the upper"),
        (("FOOTAGE", "--validation", "2"), "--validation: got 2, expected a share of the videos"),
        (("FOOTAGE", "--max-text", "nan"), "--max-text: got nan, expected 0 or more"),
        (("FOOTAGE", "--max-seconds", "inf"), "--max-seconds: got inf, expected 0 or more"),
        (("FOOTAGE", "--min-seconds", "30"), "--min-seconds, --max-seconds: got 30 and 20, expected the first below the second"),
        (("FOOTAGE", "--piece-minutes", "0.1"), "--piece-minutes: got 0.1 minutes for shots of up to 20 s"),
        (
            ("FOOTAGE", "--captioner", "openai", "--caption-model", "m", "--base-url", "http://x", "--key-env", "NOT_THERE"),
            "--key-env: got",
        ),
        (("--explain", "a.mp4", "-o", "nowhere"), "has no videos yet; run the curation first"),
    ],
)
def test_mistakes_are_one_line(command: Command, footage: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    result = command("curate", *(footage if word == "FOOTAGE" else word for word in words))
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and said in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and not Path("curated").exists()


def test_captions_of_an_endpoint_with_a_budget_that_is_spent(command: Command, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chat_server import ChatServer, says

    monkeypatch.setenv("MASK2DIT_API_KEY", "sk-secret-marker")
    cast = says(json.dumps({"characters": {"Actor1": "a small round creature"}, "setting": "a painted stage"}))
    prompt = says(json.dumps({"prompt": "Actor1 moves across the stage.", "characters": ["Actor1"]}))
    asked = ("curate", footage / "one.mp4", "-o", "set", *JUDGED, "--captioner", "openai", "--caption-model", "tiny", "--at-once", "1")
    with ChatServer(*([cast, prompt, prompt, prompt] * 2)) as server:
        stopped = command(*asked, "--base-url", server.url, "--max-requests", "6")
        assert stopped.exit_code == 1 and "--max-requests" in stopped.output and len(server.questions) == 6
        assert "2 groups, 1 captioned" in stopped.output and "export: 1 groups, 3 clips" in stopped.output
        whole = command(*asked, "--base-url", server.url)
        assert whole.exit_code == 0 and "2 groups, 2 captioned" in whole.output and len(server.questions) == 8
        parts = [part["type"] for part in server.questions[0].data["messages"][-1]["content"]]
        assert parts.count("image_url") == 12 and server.questions[0].headers["authorization"] == "Bearer sk-secret-marker"
    assert not [path for path in Path("set").rglob("*") if path.is_file() and b"sk-secret-marker" in path.read_bytes()]
    assert "sk-secret-marker" not in stopped.output + whole.output
    captions = read_groups_jsonl("set/train.jsonl").groups[0]
    assert captions[0].caption == "Actor1 (a small round creature) moves across the stage."
