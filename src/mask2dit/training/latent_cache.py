"""Videos and captions encoded once, so that training needs neither the autoencoder nor the text encoder.

A folder of safetensors shards. What they were made with stands in `made_with.json`; what they hold, in their own headers: a shard is
written aside and renamed, so that a stopped `--precompute` goes on with what is missing. Posterior mean and standard deviation are kept
(scaled, float16), so that training samples the posterior anew each time.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mask2dit.errors import InputError
from mask2dit.files import written_aside
from mask2dit.training.data.scenes import Clip

CLIPS_PER_SHARD = 256
CAPTIONS_PER_SHARD = 256


class LatentCache:
    """Read a cache folder, and with `create` begin or extend one. `made_with`: all that the encoded numbers depend on, as JSON values.

    Raises InputError where there is no such folder, or one that was made with something else.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any], has_captions: bool, create: bool = False) -> None:
        self.folder, self.has_captions = folder, has_captions
        self._handles: dict[Path, Any] = {}
        wanted = json.loads(json.dumps(dict(made_with)))
        note = folder / "made_with.json"
        if note.exists():
            found = _read_note(note)
            changed = [key for key in wanted | found if wanted.get(key) != found.get(key)]
            if changed:
                key = changed[0]
                raise InputError(
                    f"{folder}: is stale: made with {key} {found.get(key)!r}, expected {wanted.get(key)!r}; "
                    "delete it or name another latent_cache, and run --precompute"
                )
        elif not create:
            raise InputError(f"{folder}: there is no latent cache, expected one; run the same command with --precompute first")
        else:
            with written_aside(note) as part:
                part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        self._fingerprints = Fingerprints(folder / "fingerprints.json")
        self._place: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._index(path)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # data workers open their own

    def __contains__(self, clip: Clip) -> bool:
        return f"{self._fingerprints.of(clip)}.mean" in self._place

    def check(self, clips: Iterable[Clip], captions: Iterable[str]) -> None:
        """Raise InputError, with the counts, unless all of these are here."""
        clips = list(clips)
        absent = [clip.name for clip in clips if clip not in self]
        if absent:
            raise InputError(
                f"{self.folder}: lacks {len(absent)} of {len(clips)} clips, which are new or changed, such as {absent[0]}; run --precompute"
            )
        unknown = self.missing_captions(captions) if self.has_captions else []
        if unknown:
            raise InputError(f"{self.folder}: lacks {len(unknown)} captions, such as {unknown[0][:60]!r}; run --precompute")

    def moments(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a clip's scaled posterior, each [F, C, H, W], float16."""
        key = self._fingerprints.of(clip)
        return self._get(f"{key}.mean"), self._get(f"{key}.std")

    def prompt_embeds(self, caption: str) -> Tensor:
        """[L, E], in the text encoder's dtype."""
        return self._get(_caption_key(caption))

    def missing_captions(self, captions: Iterable[str]) -> list[str]:
        """Those that are not encoded yet, each once."""
        return [caption for caption in dict.fromkeys(captions) if _caption_key(caption) not in self._place]

    def add_clips(self, clips: list[Clip], mean: Tensor, std: Tensor) -> None:
        """Write one shard: mean and std [N, F, C, H, W]."""
        keys = [self._fingerprints.of(clip) for clip in clips]
        named = [(f"{key}.{name}", row) for name, rows in (("mean", mean), ("std", std)) for key, row in zip(keys, rows, strict=True)]
        self._write("latents", {name: row.half().contiguous() for name, row in named})
        self.save_fingerprints()

    def save_fingerprints(self) -> None:
        """Remember what was hashed, so that unchanged files are not read again."""
        self._fingerprints.save()

    def add_captions(self, captions: list[str], prompt_embeds: Tensor) -> None:
        """Write one shard: prompt_embeds [N, L, E]."""
        self._write("captions", {_caption_key(caption): row.contiguous() for caption, row in zip(captions, prompt_embeds, strict=True)})

    def _write(self, kind: str, tensors: dict[str, Tensor]) -> None:
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{kind}-*.safetensors")), default=-1)
        path = self.folder / f"{kind}-{number:05d}.safetensors"
        with written_aside(path) as part:
            try:
                save_file(tensors, str(part))
            except SafetensorError as error:
                raise OSError(str(error)) from error
        self._index(path)

    def _index(self, path: Path) -> None:
        try:
            with safe_open(str(path), framework="pt") as file:
                self._place |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: damaged ({error}); delete it and run --precompute again") from None

    def _get(self, key: str) -> Tensor:
        path = self._place.get(key)
        if path is None:
            raise InputError(f"{self.folder}: does not hold what is asked for: data or captions have changed; run --precompute again")
        if path not in self._handles:
            handle: Any = safe_open(str(path), framework="pt")
            self._handles[path] = handle.__enter__()
        return self._handles[path].get_tensor(key)  # type: ignore[no-any-return]


class Fingerprints:
    """The fingerprints of clips by name: a file's content is read again only when its size or time has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[str]] = _read_note(path) if path.exists() else {}

    def of(self, clip: Clip) -> str:
        signature = clip.signature
        known = self._known.get(clip.name)
        if known is None or known[0] != signature:
            known = self._known[clip.name] = [signature, clip.fingerprint()]
        return known[1]

    def save(self) -> None:
        with written_aside(self._path) as part:
            part.write_text(json.dumps(self._known) + "\n", encoding="utf-8")


def _caption_key(caption: str) -> str:
    return "caption." + sha256(caption.encode()).hexdigest()


def _read_note(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete the cache and run --precompute again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object; delete the cache and run --precompute again")
    return values


def encoder_digest(model: Path) -> str:
    """Of the autoencoder's encoding half, as float16, with its scaling factor: another decoder does not make a cache stale."""
    config = _read_note(model / "vae" / "config.json")
    digest = sha256(repr(config.get("scaling_factor")).encode())
    for path in sorted((model / "vae").glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for key in sorted(key for key in file.keys() if key.startswith("encoder.")):  # noqa: SIM118
                digest.update(key.encode() + file.get_tensor(key).half().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def text_digest(model: Path) -> str:
    """Of the files of text encoder and tokenizer."""
    digest = sha256()
    for name in ("text_encoder", "tokenizer"):
        for path in sorted(path for path in (model / name).iterdir() if path.suffix in (".json", ".safetensors", ".model")):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
    return digest.hexdigest()[:16]
