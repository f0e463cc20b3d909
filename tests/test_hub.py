"""The Hub: what is needed arrives and stays, at the commit that was named, and whatever fails is one line with the remedy.

huggingface_hub works for real here, against a Hub on this machine.
"""

import json
import random
import resource
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from itertools import chain, repeat
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hub_server import HubServer, Repository
from mask2dit import load_pipeline
from mask2dit.errors import ModelError
from mask2dit.hub import LORA_FILE, NO_LICENCE, fetch_files, fetch_lora, fetch_model, is_hub_id

MODEL = "qth/Mask2DiT"
CARD = """---
language: en
license: other
license_name: CogVideoX LICENSE
license_link: https://example.org/LICENSE
---

# A model
"""
SHARDS = [f"transformer/diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]
VAE = "vae/diffusion_pytorch_model.safetensors"
INDEX = json.dumps({"metadata": {}, "weight_map": {"a.weight": SHARDS[0].split("/")[1], "b.weight": SHARDS[1].split("/")[1]}})
NEEDED = {
    "README.md": CARD.encode(),
    "LICENSE": b"Use it well.",
    "model_index.json": b"{}",
    "transformer/config.json": b'{"num_layers": 2}',
    "transformer/diffusion_pytorch_model.safetensors.index.json": INDEX.encode(),
    SHARDS[0]: b"first" * 100,
    SHARDS[1]: b"second" * 100,
    "vae/config.json": b'{"latent_channels": 16}',
    VAE: b"vae" * 100,
    "text_encoder/config.json": b'{"d_model": 64}',
    "text_encoder/model.safetensors": b"t5" * 100,
    "tokenizer/spiece.model": b"pieces",
    "tokenizer/added_tokens.json": b"[]",
    "tokenizer/merges.txt": b"a b",
    "scheduler/scheduler_config.json": b'{"num_train_timesteps": 1000}',
}
UNWANTED = {
    ".gitattributes": b"*.safetensors",
    "text_encoder/pytorch_model.bin": b"pickled" * 100,
    "transformer/old.pt": b"pickled",
    "transformer/modelling.py": b"raise SystemExit",
    "transformer/older/config.json": b"{}",
    "transformer/spiece.model.bin": b"pickled",
    "safety_checker/model.safetensors": b"another",
    "pytorch_lora_weights.safetensors": b"adapters",
    "assets/film.mp4": b"video",
    "README_zh.md": b"card",
}


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    """A session of huggingface_hub's own that goes past any proxy; to make one takes 0.1 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        huggingface_hub.close_session()
        yield
    huggingface_hub.close_session()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with one model at main, which huggingface_hub takes for the only one; its cache is empty, and its patience short."""
    wait = time.sleep
    with HubServer() as server:
        server.repositories[MODEL] = Repository()
        server.repositories[MODEL].commit(NEEDED | UNWANTED, "main")
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses.json"),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": True,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(time, "sleep", lambda seconds: wait(min(seconds, 0.01)))  # between two attempts
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(hub_id: str = MODEL, fetch: object = fetch_model, **options: object) -> str:
    """What the error says: one line, not too long, with the id in front and a remedy behind a semicolon."""
    with pytest.raises(ModelError) as caught:
        fetch(hub_id, **options)  # type: ignore[operator]
    message = str(caught.value)
    assert message.isprintable() and len(message) < 500, message
    assert message.startswith(hub_id) and "; " in message, message
    return message


# Ids


@pytest.mark.parametrize("name", ["qth/Mask2DiT", "zai-org/CogVideoX-5b", "a/b", "A_1/b.c-d", "_a/b_"])
def test_an_id_is_owner_and_name(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    ["", "model", "./model", "../model", "model/", "/model", "a/b/c", "/a/b", "a/.", "a/..", "~/model", "a b/c", "a\\b", "a/b\n", "é/b"],
)
def test_paths_are_no_ids(name: str) -> None:
    assert not is_hub_id(name)


def test_ids_are_what_the_hub_allows() -> None:
    rng = random.Random(0)
    letters = "ab0_-./" + string.whitespace[:1]
    names = ["".join(rng.choices(letters, k=rng.randint(1, 7))) for _ in range(5000)]
    names += ["a" * length + "/" + "b" * other for length in (1, 96, 97) for other in (1, 96, 97)] + ["a/b.git", "a.git/b"]
    for name in names:
        try:
            validate_repo_id(name)
            allowed = name.count("/") == 1
        except HFValidationError:
            allowed = False
        assert is_hub_id(name) == allowed, name


def test_nothing_heavy_is_imported_to_know_an_id() -> None:
    code = (
        "import sys; from mask2dit.hub import is_hub_id; is_hub_id('a/b'); sys.exit(len({'huggingface_hub', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_no_id_is_never_asked_for(hub: HubServer) -> None:
    for name in ("model", "../model", "a/b/c"):
        assert "not an id of the Hub" in refusal(name)
        assert "not an id of the Hub" in refusal(name, fetch_lora, offline=True)
    assert not hub.asked


# What arrives


def test_the_needed_files_arrive_and_no_others(hub: HubServer) -> None:
    download = fetch_model(MODEL)
    assert contents(download.folder) == NEEDED
    assert sorted(hub.gets) == sorted(NEEDED)
    assert download.revision == hub.repositories[MODEL].refs["main"]
    assert download.licence == "CogVideoX LICENSE (other), https://example.org/LICENSE"
    assert Path(constants.HF_HUB_CACHE) in download.folder.parents


def test_a_model_arrives_whole(hub: HubServer, model_folder: Path) -> None:
    hub.repositories["tiny/model"] = Repository()
    hub.repositories["tiny/model"].commit(contents(model_folder), "main")
    folder = fetch_model("tiny/model").folder
    assert contents(folder) == contents(model_folder)
    load_pipeline(folder)


def test_another_cache_is_used_instead(hub: HubServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert other in fetch_model(MODEL, cache=other).folder.parents
    assert fetch_model(MODEL, cache=other, offline=True).folder.is_dir()
    assert not Path(constants.HF_HUB_CACHE).exists()
    assert str(constants.HF_HUB_CACHE) in refusal(offline=True)


def test_names_that_look_like_patterns_are_names(hub: HubServer) -> None:
    repository = hub.repositories[MODEL] = Repository()
    repository.commit({"[a].safetensors": b"adapters", "a.bin": b"pickled"}, "main")
    assert fetch_lora(MODEL).read_bytes() == b"adapters"


@pytest.mark.parametrize("by", ["branch", "tag", "commit", "slashed"])
def test_a_revision_is_that_commit(hub: HubServer, by: str) -> None:
    repository = hub.repositories[MODEL]
    old = repository.commit(NEEDED | {"model_index.json": b'{"old": 1}'}, "branch", "tag", "refs/pr/1")
    names = {"branch": "branch", "tag": "tag", "commit": old, "slashed": "refs/pr/1"}
    for offline in (False, True):
        download = fetch_model(MODEL, revision=names[by], offline=offline)
        assert download.revision == old
        assert (download.folder / "model_index.json").read_bytes() == b'{"old": 1}'
    assert fetch_model(MODEL).revision == repository.refs["main"] != old


def test_a_second_call_downloads_nothing(hub: HubServer) -> None:
    first = fetch_model(MODEL)
    hub.gets.clear()
    assert fetch_model(MODEL) == first
    assert not hub.gets


def test_a_branch_that_moved_brings_only_what_changed(hub: HubServer) -> None:
    before = fetch_model(MODEL)
    hub.gets.clear()
    new = hub.repositories[MODEL].commit(NEEDED | {VAE: b"better"}, "main")
    after = fetch_model(MODEL)
    assert after.revision == new and contents(after.folder) == NEEDED | {VAE: b"better"}
    assert {name for name in hub.gets if name.endswith(".safetensors")} == {VAE}
    assert contents(before.folder) == NEEDED


def test_a_branch_that_moves_meanwhile_does_not_mix_commits(hub: HubServer) -> None:
    repository = hub.repositories[MODEL]
    old = repository.refs["main"]
    hub.before[f"/api/models/{MODEL}/revision/{old}"] = lambda: repository.commit(dict.fromkeys(NEEDED, b"new"), "main")
    download = fetch_model(MODEL)
    assert download.revision == old != repository.refs["main"] and contents(download.folder) == NEEDED
    assert fetch_model(MODEL, offline=True) == download


def test_a_damaged_file_is_fetched_again(hub: HubServer) -> None:
    folder = fetch_model(MODEL).folder
    (folder / VAE).resolve().write_bytes(b"va")
    assert VAE in refusal(offline=True)
    hub.gets.clear()
    assert contents(fetch_model(MODEL).folder) == NEEDED
    assert hub.gets == [VAE]


# Without a network


def test_offline_asks_nobody(hub: HubServer) -> None:
    download = fetch_model(MODEL)
    asked = len(hub.asked)
    assert fetch_model(MODEL, offline=True) == download
    hub.close()
    assert fetch_model(MODEL, offline=True) == download
    assert fetch_model(MODEL, revision=download.revision, offline=True) == download
    assert len(hub.asked) == asked


def test_offline_needs_no_listing_of_the_hub(hub: HubServer, tmp_path: Path) -> None:
    download = fetch_model(MODEL)
    old = tmp_path / "old"  # as an older huggingface_hub would have left it
    shutil.copytree(constants.HF_HUB_CACHE, old, symlinks=True, ignore=shutil.ignore_patterns("trees"))
    copy = fetch_model(MODEL, offline=True, cache=old)
    assert contents(copy.folder) == NEEDED and (copy.revision, copy.licence) == (download.revision, download.licence)
    (copy.folder / SHARDS[1]).unlink()  # its index still names it
    message = refusal(offline=True, cache=old)
    assert f"download incomplete: 1 of {len(NEEDED)} files missing: {SHARDS[1]}; offline; run once without --offline" in message
    (copy.folder / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text("[]")  # damaged: told when it is loaded
    fetch_model(MODEL, offline=True, cache=old)
    (copy.folder / VAE).unlink()
    assert "1 of 14 files missing: vae/*.safetensors; offline" in refusal(offline=True, cache=old)


def test_offline_an_unknown_model_is_one_line(hub: HubServer) -> None:
    message = refusal("qth/Unknown", offline=True)
    assert message.startswith("qth/Unknown: not in the cache at ") and constants.HF_HUB_CACHE in message
    assert message.endswith("and offline; run once without --offline, or check the name")
    assert not hub.asked
    fetch_model(MODEL)
    assert f"{MODEL} at v2: not in the cache" in refusal(revision="v2", offline=True)
    assert "not in the cache" in refusal(revision="..", offline=True)
    assert "not in the cache" in refusal(revision="", offline=True)


def test_offline_a_missing_file_is_named(hub: HubServer) -> None:
    folder = fetch_model(MODEL).folder
    for name in (SHARDS[0], "model_index.json"):
        (folder / name).unlink()
        assert name in (message := refusal(offline=True)) and "run once without --offline" in message
    hub.gets.clear()
    assert contents(fetch_model(MODEL).folder) == NEEDED  # its content was still there
    assert not hub.gets


def test_a_dead_network_does_not_matter_where_all_is_cached(hub: HubServer) -> None:
    download = fetch_model(MODEL)
    hub.close()
    assert fetch_model(MODEL) == download
    assert fetch_model(MODEL, revision=download.revision) == download


def test_a_dead_network_is_told(hub: HubServer) -> None:
    hub.close()
    message = refusal()
    assert "not in the cache" in message and "the Hub cannot be reached (ConnectError" in message and "check the network" in message


def test_a_dead_network_and_half_a_copy_are_told(hub: HubServer) -> None:
    (fetch_model(MODEL).folder / VAE).unlink()
    hub.close()
    message = refusal()
    assert "download incomplete: 1 of" in message and VAE in message and "check the network" in message


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_like_a_dead_network(hub: HubServer, status: int) -> None:
    hub.status = status
    assert "the Hub cannot be reached" in (message := refusal()) and str(status) in message
    hub.status = None
    download = fetch_model(MODEL)
    hub.status = status
    assert fetch_model(MODEL) == download


def test_a_silent_hub_is_not_waited_for(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    hub.released.clear()
    start = time.monotonic()
    assert "the Hub cannot be reached (ReadTimeout" in refusal()
    assert time.monotonic() - start < 5


def test_the_offline_switch_of_huggingface_hub_holds(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    download = fetch_model(MODEL)
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model(MODEL) == download
    assert "HF_HUB_OFFLINE is set; run once without it" in refusal("qth/Other")
    assert len(hub.asked) == asked


# Cut off


def test_one_break_inside_a_file_is_mended_at_once(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50)
    hub.faults[SHARDS[1]] = iter(["half"])
    assert contents(fetch_model(MODEL).folder) == NEEDED
    assert [name for name in hub.gets if name.startswith(SHARDS[1])] == [SHARDS[1], f"{SHARDS[1]} bytes=300-"]


@pytest.mark.parametrize("fault", ["half", "drop"])
def test_a_download_cut_off_goes_on_with_what_is_missing(hub: HubServer, fault: str) -> None:
    hub.repositories[MODEL].sizes = {SHARDS[0]: 2_000_000_000, SHARDS[1]: 3_140_000_000}
    for shard in SHARDS:
        hub.faults[shard] = chain([fault], repeat("drop"))
        hub.before[shard] = lambda: others_first(hub)
    message = refusal()
    assert f"download incomplete: 2 of {len(NEEDED)} files missing (0.0 of 5.1 GB are there): {SHARDS[0]}, {SHARDS[1]}; " in message
    assert "the download was cut off (RemoteProtocolError: " in message and "run the same command again" in message
    offline = refusal(offline=True)
    assert "2 of" in offline and SHARDS[0] in offline and "run once without --offline" in offline

    hub.repositories[MODEL].sizes.clear()
    hub.before.clear()
    hub.faults.clear()
    hub.gets.clear()
    shutil.rmtree(next(Path(constants.HF_HUB_CACHE).glob("*/trees")))
    assert contents(fetch_model(MODEL).folder) == NEEDED
    assert sorted(hub.gets) == SHARDS


def others_first(hub: HubServer) -> None:
    """Let all other files arrive before this one fails."""
    for _ in range(500):
        if set(NEEDED) <= set(hub.gets):
            break
        threading.Event().wait(0.01)


def test_many_missing_files_are_still_one_line(hub: HubServer) -> None:
    many = {f"transformer/{'long_' * 12}{part:03}.safetensors": b"part" for part in range(15)}
    hub.repositories[MODEL].commit(NEEDED | many, "main")
    for name in many:
        hub.faults[name] = repeat("drop")
    assert "15 of" in (message := refusal()) and "and 12 more" in message


def test_a_hub_that_lists_files_and_gives_none_is_told(hub: HubServer) -> None:
    hub.repositories[MODEL].closed = 503, ""
    assert "15 of 15 files missing" in (message := refusal()) and "HfHubHTTPError: Server error '503 " in message
    hub.repositories[MODEL].closed = 403, ""
    assert "the Hub refuses access (403); run `hf auth login`" in refusal()


def test_a_hub_that_goes_away_in_between_is_told(hub: HubServer) -> None:
    def fail() -> None:
        hub.status = 503

    hub.before["model_index.json"] = fail
    hub.repositories[MODEL].commit(NEEDED | {f"vae/{part}.json": b"%d" % part for part in range(12)}, "main")
    assert "download incomplete: " in (message := refusal()) and "503" in message and "run the same command again" in message
    hub.status = None
    hub.before.clear()
    assert len(contents(fetch_model(MODEL).folder)) == len(NEEDED) + 12


def test_a_disk_that_takes_no_more_is_told(hub: HubServer) -> None:
    hub.repositories[MODEL].commit(NEEDED | {VAE: b"large" * 100_000}, "main")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        message = refusal()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert VAE in message and f"{constants.HF_HUB_CACHE} cannot be written (File too large); make room" in message
    assert fetch_model(MODEL).folder.is_dir()


def test_a_cache_that_cannot_be_made_is_told(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refusal(cache=tmp_path / "file" / "hub")
    assert f"{len(NEEDED)} of {len(NEEDED)} files missing" in message and "cannot be written (Not a directory)" in message


def test_what_weighs_other_than_listed_is_told(hub: HubServer) -> None:
    fetch_model(MODEL)
    hub.repositories[MODEL].listed_sizes = {"vae/config.json": 4}
    assert "has not the size that the Hub lists" in (message := refusal()) and "vae/config.json" in message


def test_an_interrupt_goes_through(hub: HubServer) -> None:
    main = threading.main_thread().ident
    assert main is not None
    hub.before[VAE] = lambda: signal.pthread_kill(main, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fetch_model(MODEL)
    hub.before.clear()
    assert contents(fetch_model(MODEL).folder) == NEEDED


# Refused


def test_an_unknown_model_is_one_line(hub: HubServer) -> None:
    message = refusal("qth/Unknown")
    assert message == "qth/Unknown: no such model on the Hub, or a private one; check the name, and for a private one run `hf auth login`"
    assert refusal("qth/Unknown", fetch_lora) == message


def test_an_unknown_revision_is_one_line(hub: HubServer) -> None:
    for revision in ("v9", "0" * 40, "a\nb"):
        message = refusal(revision=revision)
        assert f"got revision {' '.join(revision.split())}, expected" in message and message.endswith("check --revision")


def test_a_gated_model_is_one_line(hub: HubServer) -> None:
    hub.repositories[MODEL].closed = 403, "GatedRepo"
    message = refusal()
    assert f"accept them at {hub.url}/{MODEL}, then run `hf auth login`" in message
    hub.status, hub.error_code = 401, "GatedRepo"
    assert refusal() == message


@pytest.mark.parametrize(
    ("status", "expected"), [(401, "hf auth login"), (403, "hf auth login"), (404, "check the name"), (400, "check the name")]
)
def test_other_refusals_are_one_line(hub: HubServer, status: int, expected: str) -> None:
    hub.status = status
    assert str(status) in (message := refusal()) and expected in message


def test_a_model_that_was_switched_off_is_one_line(hub: HubServer) -> None:
    hub.status, hub.error_message = 403, "Access to this resource is disabled."
    assert "has been switched off on the Hub; use another model" in refusal()


def test_what_is_no_model_folder_is_refused_before_a_download(hub: HubServer) -> None:
    repository = hub.repositories[MODEL]
    repository.commit({name: content for name, content in NEEDED.items() if name != "model_index.json"}, "main")
    assert "holds no model_index.json, expected a model folder" in refusal()
    repository.commit({name: content for name, content in (NEEDED | UNWANTED).items() if name != "text_encoder/model.safetensors"}, "main")
    assert "text_encoder has no weights as .safetensors" in refusal()
    assert not hub.gets


# The licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: other\nlicense_link: https://example.org/L\n---\n", "other, https://example.org/L"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\nlicense_name: |\n  two\n  lines \x1b[31m\n---\n", "the model card cannot be read"),
        ('---\nlicense: other\nlicense_name: "two\\n lines\\e[31m"\n---\n', "two lines[31m (other)"),
        ("---\nlicense: 2024-01-01\n---\n", "2024-01-01"),
        ("---\nlicense: 2024-99-99\n---\n", "the model card cannot be read"),
        ("---\nlicense: {1: 2}\n---\n", "{1: 2}"),
        ("---\nlicense: " + "[" * 500 + "\n---\n", "the model card cannot be read"),
        ("---\nlicense: other\nlicense_link: " + "é" * 400 + "\n---\n", "other, " + "é" * 200),
        ("---\n- license\n---\n", "the model card cannot be read"),
        ("---\nlicense: 'open\n---\n", "the model card cannot be read"),
        ("---\nlanguage: en\n---\n", NO_LICENCE),
        ("# A model without front matter\n", NO_LICENCE),
        ("", NO_LICENCE),
        (b"---\nlicense: \xff\xfe\n---\n", "the model card cannot be read"),
        (None, NO_LICENCE),
    ],
)
def test_the_licence_is_what_the_card_says(hub: HubServer, card: str | bytes | None, licence: str) -> None:
    files = {"model_index.json": b"{}"} | ({} if card is None else {"README.md": card.encode() if isinstance(card, str) else card})
    hub.repositories[MODEL].commit(files, "main")
    assert fetch_model(MODEL).licence == licence


def test_a_licence_in_the_repository_is_named_where_it_lies(hub: HubServer) -> None:
    card = b"---\nlicense: other\nlicense_link: LICENSE\n---\n"
    hub.repositories[MODEL].commit(NEEDED | {"README.md": card}, "main")
    download = fetch_model(MODEL)
    assert download.licence == f"other, {download.folder / 'LICENSE'}"


# Adapters


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({LORA_FILE: b"1", "b.safetensors": b"2", "a.bin": b"3", "README.md": b"4"}, LORA_FILE),
        ({"film-style.safetensors": b"1", "old/a.safetensors": b"2", "a.bin": b"3"}, "film-style.safetensors"),
    ],
)
def test_adapters_are_one_file(hub: HubServer, files: dict[str, bytes], expected: str) -> None:
    hub.repositories["some/adapters"] = Repository()
    old = hub.repositories["some/adapters"].commit({"old.safetensors": b"old"}, "v1")
    hub.repositories["some/adapters"].commit(files, "main")
    for offline in (False, True):
        assert (path := fetch_lora("some/adapters", offline=offline)).name == expected
        assert path.read_bytes() == b"1"
    assert hub.gets == [expected]
    assert fetch_lora("some/adapters", revision="v1").read_bytes() == b"old"
    hub.close()
    assert fetch_lora("some/adapters", revision=old, offline=True).read_bytes() == b"old"
    assert fetch_lora("some/adapters") == path


def test_adapters_to_choose_from_are_named(hub: HubServer) -> None:
    repository = hub.repositories["some/adapters"] = Repository()
    repository.commit({f"{name}.safetensors": b"1" for name in ("high", "low")}, "main")
    message = refusal("some/adapters", fetch_lora)
    assert "holds high.safetensors, low.safetensors, expected" in message
    repository.commit({f"{name * 40}.safetensors": b"1" for name in string.ascii_letters}, "main")
    assert "and 49 more" in refusal("some/adapters", fetch_lora)
    repository.commit({"old/a.safetensors": b"1", "a.bin": b"2"}, "main")
    assert "holds no .safetensors file in its root" in refusal("some/adapters", fetch_lora)
    assert not hub.gets


def test_adapters_cut_off_are_told(hub: HubServer) -> None:
    hub.repositories["some/adapters"] = Repository()
    hub.repositories["some/adapters"].commit({LORA_FILE: b"1"}, "main")
    hub.faults[LORA_FILE] = repeat("drop")
    assert f"1 of 1 files missing (0.0 of 0.0 GB are there): {LORA_FILE}; " in refusal("some/adapters", fetch_lora)
    assert "run once without --offline" in refusal("some/adapters", fetch_lora, offline=True)


# Files of any kind


def test_files_are_those_that_were_chosen(hub: HubServer) -> None:
    def choose(hub_id: str, names: Collection[str]) -> list[str]:
        assert hub_id == MODEL and set(names) == set(NEEDED | UNWANTED)
        return ["transformer/old.pt", "README_zh.md"]

    folder = fetch_files(MODEL, choose)
    assert folder.name == hub.repositories[MODEL].refs["main"]
    assert contents(folder) == {name: UNWANTED[name] for name in ("transformer/old.pt", "README_zh.md")}
    asked = len(hub.asked)
    assert fetch_files(MODEL, choose, offline=True) == folder and len(hub.asked) == asked


def test_files_that_are_not_there_are_told(hub: HubServer) -> None:
    def choose(hub_id: str, names: Collection[str]) -> list[str]:
        raise ModelError(f"{hub_id}: holds {len(names)} files, expected another; check the name")

    assert f"holds {len(NEEDED | UNWANTED)} files" in refusal(fetch=lambda hub_id: fetch_files(hub_id, choose))
    assert not hub.gets
    assert "and offline" in refusal(fetch=lambda hub_id: fetch_files(hub_id, lambda *_: [], offline=True))


def test_a_pipeline_loads_by_its_id_and_names_the_licence(hub: HubServer, model_folder: Path) -> None:
    files = {path.relative_to(model_folder).as_posix(): path.read_bytes() for path in model_folder.rglob("*") if path.is_file()}
    commit = hub.repositories[MODEL].commit(files | {"README.md": CARD.encode()}, "main")
    with pytest.warns(UserWarning, match=r"qth/Mask2DiT at [0-9a-f]{12}; licence of these weights: CogVideoX LICENSE \(other\), https://"):
        pipeline = load_pipeline(MODEL)
    assert pipeline.fingerprint() == load_pipeline(model_folder).fingerprint()
    hub.close()
    with pytest.warns(UserWarning, match=str(commit)[:12]):
        assert load_pipeline(MODEL, offline=True, revision=str(commit)).fingerprint() == pipeline.fingerprint()
