"""A model's id on the Hub → a folder on disk with exactly the files that are needed, all of one commit and all there.

Owns the choice of files, the check that none is missing, and what each failure means to the reader. The transfer, the cache and the
access token are huggingface_hub's; what the files hold is checked where they are loaded.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mask2dit.errors import ModelError, one_line

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision

INDEX_FILE = "model_index.json"
LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
NETWORKS = ("transformer", "vae", "text_encoder")
COMPONENTS = (*NETWORKS, "tokenizer", "scheduler")
COMPONENT_FILES = ("*.json", "*.safetensors", "spiece.model", "*.txt")
MODEL_FILES = ("README.md", "LICENSE*", INDEX_FILE, *(f"{folder}/{name}" for folder in COMPONENTS for name in COMPONENT_FILES))
NO_LICENCE = "no licence is named on the model card"

_OWNER_OR_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")

Sizes = dict[str, int | None]  # bytes per file; None where nobody tells
Choose = Callable[[str, Collection[str]], list[str]]  # the files needed, out of an id's


@dataclass(frozen=True, slots=True)
class Download:
    """A model of the Hub on disk."""

    folder: Path
    """The snapshot, in diffusers' layout."""
    revision: str
    """The commit that it is: 40 hex digits."""
    licence: str
    """What the model card says of the licence, in one line."""


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form owner/name of the Hub; a relative path of two parts may have it, too."""
    parts = name.split("/")
    spelt = len(parts) == 2 and all(_OWNER_OR_NAME.fullmatch(part) for part in parts)
    return spelt and not ("--" in name or ".." in name or name.endswith(".git"))


def fetch_model(hub_id: str, *, revision: str | None = None, offline: bool = False, cache: Path | None = None) -> Download:
    """Fetch what a model folder needs and the cache has not got.

    revision: a branch, tag or commit; None is the main branch. offline: contact nothing. cache: None is huggingface_hub's own folder.
    Where the Hub cannot be reached, a complete copy in the cache is used. Raises ModelError, in one line.
    """
    folder = _fetch(_Repository(hub_id, revision, cache), offline, _model_files)
    return Download(folder, folder.name, _licence(folder))


def fetch_lora(hub_id: str, *, revision: str | None = None, offline: bool = False, cache: Path | None = None) -> Path:
    """Fetch the one .safetensors file of a repository of adapters, and nothing else; the arguments are those of `fetch_model`.

    The file is the one with diffusers' name, else the only one in the repository's root. Raises ModelError, naming the choices.
    """
    chosen: list[str] = []

    def choose(hub_id: str, names: Collection[str]) -> list[str]:
        chosen[:] = _lora_files(hub_id, names)
        return chosen

    return _fetch(_Repository(hub_id, revision, cache), offline, choose) / chosen[0]


def fetch_files(hub_id: str, choose: Choose, *, revision: str | None = None, offline: bool = False, cache: Path | None = None) -> Path:
    """Fetch the files that `choose` takes out of a repository's, and nothing else; the other arguments are those of `fetch_model`.

    The folder's name is the commit. Raises ModelError, in one line, and whatever `choose` raises.
    """
    return _fetch(_Repository(hub_id, revision, cache), offline, choose)


def _model_files(hub_id: str, names: Collection[str]) -> list[str]:
    if INDEX_FILE not in names:
        raise ModelError(f"{hub_id}: holds no {INDEX_FILE}, expected a model folder in diffusers' layout; check the name")
    for folder in NETWORKS:
        own = [name for name in names if name.startswith(f"{folder}/")]
        if own and not any(name.endswith(".safetensors") for name in own):
            raise ModelError(
                f"{hub_id}: {folder} has no weights as .safetensors, the only form that is read; use another model or --revision"
            )
    return sorted(name for name in names if any(_matches(name, pattern) for pattern in MODEL_FILES))


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)  # for fnmatch, * stands for slashes as well


def _lora_files(hub_id: str, names: Collection[str]) -> list[str]:
    found = sorted(name for name in names if _matches(name, "*.safetensors"))
    if LORA_FILE in found:
        return [LORA_FILE]
    if not found:
        raise ModelError(f"{hub_id}: holds no .safetensors file in its root, expected adapters as {LORA_FILE}; check the name")
    if len(found) > 1:
        raise ModelError(f"{hub_id}: holds {_some(found)}, expected {LORA_FILE} or only one; download the one you mean and give its path")
    return found


# A repository and its copy in the cache


@dataclass(frozen=True, slots=True)
class _Repository:
    hub_id: str
    revision: str | None
    cache: Path | None

    @property
    def cache_folder(self) -> Path:
        from huggingface_hub import constants

        return self.cache or Path(constants.HF_HUB_CACHE)

    def snapshot(self, revision: str | None) -> Path | None:
        """The folder in the cache, whole or not, without asking anybody."""
        from huggingface_hub import snapshot_download

        with suppress(OSError):  # an empty list: that all is there is checked here
            folder = snapshot_download(self.hub_id, revision=revision, cache_dir=self.cache, allow_patterns=[], local_files_only=True)
            return Path(folder)
        return None

    def ask(self) -> tuple[ResolvedRevision, Sizes]:
        """The commit and all its files, as the Hub tells them. Raises whatever goes wrong."""
        from huggingface_hub import HfApi, constants

        api, patience = HfApi(), constants.HF_HUB_ETAG_TIMEOUT
        api.model_info(self.hub_id, revision=self.revision, timeout=patience)  # finds a dead network; the next call would wait for ever
        commit = api.resolve_revision(self.hub_id, revision=self.revision, cache_dir=self.cache)  # noted in the cache, for later offline
        info = api.model_info(self.hub_id, revision=commit.resolved, files_metadata=True, timeout=patience)
        return commit, {file.rfilename: file.lfs.size if file.lfs else file.size for file in info.siblings or ()}

    def remembered(self, folder: Path) -> Sizes:
        """All files of a snapshot: as the Hub listed them at the time, else as the files themselves tell."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            return {file.path: file.size for file in get_cached_repo_tree(self.hub_id, revision=folder.name, cache_dir=self.cache)}
        except CachedRepoTreeNotFoundError:  # an older huggingface_hub, or a cache that was copied in part
            found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if os.path.isfile(path)}
            return dict.fromkeys(found | _implied(folder))


def _implied(folder: Path) -> set[str]:
    """The weights that must be there by what is there: the shards that an index names, and some beside a network's configuration."""
    names: set[str] = set()
    for index in folder.glob("*/*.safetensors.index.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # what is damaged is told when it is loaded
            names |= {f"{index.parent.name}/{shard}" for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    return names | {
        f"{name}/*.safetensors" for name in NETWORKS if (folder / name).is_dir() and not any((folder / name).glob("*.safetensors"))
    }


def _missing(folder: Path | None, sizes: Mapping[str, int | None]) -> list[str]:
    """The files that are not there, or not of their size."""

    def is_there(name: str, size: int | None) -> bool:
        path = folder / name if folder else None
        return path is not None and os.path.isfile(path) and size in (None, os.path.getsize(path))

    return [name for name, size in sizes.items() if not is_there(name, size)]


# Fetching


@dataclass(frozen=True, slots=True)
class _Away:
    """Why the Hub is not asked, and what to do about it."""

    reason: str
    remedy: str


def _fetch(repository: _Repository, offline: bool, choose: Choose) -> Path:
    if not is_hub_id(repository.hub_id):
        raise ModelError(f"{_plain(repository.hub_id)}: not an id of the Hub, expected owner/name, such as qth/Mask2DiT; check the name")
    if offline:
        return _from_cache(repository, choose, _Away("offline", "run once without --offline"))
    try:
        commit, listed = repository.ask()
    except Exception as error:  # httpx and huggingface_hub share no base
        _raise_if_refused(repository, error)
        away = _away(error)
    else:
        return _from_hub(repository, commit, {name: listed[name] for name in choose(repository.hub_id, listed)})
    return _from_cache(repository, choose, away)


def _from_cache(repository: _Repository, choose: Choose, away: _Away) -> Path:
    folder = repository.snapshot(repository.revision)
    if folder is None:
        name = repository.hub_id if repository.revision is None else f"{repository.hub_id} at {_plain(repository.revision)}"
        raise ModelError(f"{name}: not in the cache at {repository.cache_folder}, and {away.reason}; {away.remedy}, or check the name")
    known = repository.remembered(folder)
    sizes = {name: known[name] for name in choose(repository.hub_id, known)}
    if _missing(folder, sizes):
        raise _incomplete(repository, folder, sizes, f"{away.reason}; {away.remedy}")
    return folder


def _from_hub(repository: _Repository, commit: ResolvedRevision, sizes: Sizes) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    patterns = [glob.escape(name) for name in sizes]
    trouble: Exception | None = None
    try:
        folder = Path(snapshot_download(repository.hub_id, revision=commit, cache_dir=repository.cache, allow_patterns=patterns))
        for name in _missing(folder, sizes):  # it was in the cache, damaged: snapshot_download never looks at sizes
            hf_hub_download(repository.hub_id, name, revision=commit.resolved, cache_dir=repository.cache, force_download=True)
    except Exception as error:  # httpx, huggingface_hub and hf_xet share no base
        _raise_if_refused(repository, error)
        trouble = error
    found = repository.snapshot(commit.resolved)
    if found is None or _missing(found, sizes):
        raise _incomplete(repository, found, sizes, _cut_off(repository, trouble)) from trouble
    return found


# What failures mean


def _raise_if_refused(repository: _Repository, error: Exception) -> None:
    """Raise ModelError if the Hub itself has said no: then trying again, or the cache, is not the remedy."""
    from huggingface_hub import constants
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    hub_id, error = repository.hub_id, _cause(error)
    match error:
        case GatedRepoError():
            page = f"{constants.ENDPOINT}/{hub_id}"
            said = f"its owner lets in only who agrees to the terms; accept them at {page}, then run `hf auth login`"
        case DisabledRepoError():
            said = "has been switched off on the Hub; use another model"
        case RevisionNotFoundError():
            said = f"got revision {_plain(repository.revision or 'main')}, expected a branch, tag or commit of this model; check --revision"
        case RepositoryNotFoundError():
            said = "no such model on the Hub, or a private one; check the name, and for a private one run `hf auth login`"
        case HfHubHTTPError(response=response) if response.status_code in (401, 403):
            said = f"the Hub refuses access ({response.status_code}); run `hf auth login` with a token that may read this model"
        case HfHubHTTPError(response=response) if response.status_code // 100 == 4 and response.status_code not in (408, 429):
            said = f"the Hub answers {response.status_code} ({one_line(error, 100)}); check the name and --revision"
        case _:
            return
    raise ModelError(f"{hub_id}: {said}") from error


def _away(error: Exception) -> _Away:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return _Away("HF_HUB_OFFLINE is set", "run once without it")
    return _Away(f"the Hub cannot be reached ({_said(error)})", "check the network and run the same command again")


def _cut_off(repository: _Repository, trouble: Exception | None) -> str:
    """Why a download stopped, and the remedy."""
    again = "run the same command again, which fetches only these"
    match trouble:
        case None:
            return f"what came has not the size that the Hub lists; {again}"
        case OSError(errno=int(), strerror=str(reason)) if not isinstance(trouble, ConnectionError | TimeoutError):
            return f"{repository.cache_folder} cannot be written ({reason}); make room or choose another place, then {again}"
    return f"the download was cut off ({_said(trouble)}); {again}"


def _cause(error: Exception) -> Exception:
    """The error beneath the one that huggingface_hub makes of it, which says no more than that the cache has not got the file."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return error.__cause__ if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception) else error


def _said(error: Exception) -> str:
    error = _cause(error)
    return f"{type(error).__name__}: {one_line(error, 100)}"


def _incomplete(repository: _Repository, folder: Path | None, sizes: Sizes, why: str) -> ModelError:
    missing = _missing(folder, sizes)
    total = sum(size or 0 for size in sizes.values())
    there = total - sum(sizes[name] or 0 for name in missing)
    amount = f" ({there / 1e9:.1f} of {total / 1e9:.1f} GB are there)" if total else ""
    return ModelError(
        f"{repository.hub_id}: download incomplete: {len(missing)} of {len(sizes)} files missing{amount}: {_some(missing)}; {why}"
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(name if len(name) <= 72 else f"…{name[-71:]}" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# The licence


def _licence(folder: Path) -> str:
    """What the model card says; a card that is missing or odd is no error."""
    import yaml
    from huggingface_hub import metadata_load

    path = folder / "README.md"
    try:
        card: dict[str, Any] = (metadata_load(path) if path.is_file() else None) or {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return "the model card cannot be read"
    kind, name, link = (_plain(card.get(key)) for key in ("license", "license_name", "license_link"))
    if link and os.path.isfile(folder / link):  # os.path: no name is so odd that it is an error
        link = str(folder / link)
    title = f"{name} ({kind})" if name and kind else name or kind
    return ", ".join(part for part in (title, link) if part) or NO_LICENCE


def _plain(value: Any) -> str:
    """What stands on a card, whatever its type, as one short line."""
    words = value if isinstance(value, list) else [] if value is None else [value]
    text = ", ".join(" ".join(str(word).split()) for word in words)
    return "".join(letter for letter in text if letter.isprintable())[:200]
