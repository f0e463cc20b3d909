"""The page of a film: one index.html that shows film, scenes, captions, takes and check, and opens from disk without a network.

Owns what the page says and which videos it carries inside. Its looks and the player's keys are in page.html; what is true of the film
is handed in.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mask2dit.errors import InputError
from mask2dit.film import pick
from mask2dit.production.timeline import Clip, Timeline

LARGEST_EMBEDDED = 24 * 2**20  # bytes of all videos inside one page; browsers become slow with more
LONG_CAPTION = 320  # characters; a longer one goes below the stills, not beside them
STILL_WIDTH = 480
STILL_QUALITY = 82
PICTURE_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"GIF8": "image/gif"}


@dataclass(frozen=True, slots=True)
class PageTake:
    """One take of a scene: a video (named from the film's folder on), a still, or both; `command` chooses it for the film."""

    label: str
    current: bool = False
    video: str | None = None
    still: bytes | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class PageScene:
    """What a clip of the timeline does not say. `made`: for example "jointly with scenes 1, 2, 3"; `notes`: further small print."""

    seed: int | None = None
    made: str = ""
    stills: tuple[bytes, ...] = ()
    takes: tuple[PageTake, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CutRow:
    """A cut that was asked for and the one that was found, as first frames in the film; None: not found."""

    asked: int
    found: int | None


@dataclass(frozen=True, slots=True)
class PageCheck:
    """What looking at the finished film found. `unwanted`: frames; `drift`: scene number and value; `notes`: what the reader must know."""

    cuts: tuple[CutRow, ...] = ()
    unwanted: tuple[int, ...] = ()
    sca: float | None = None
    drift: tuple[tuple[int, float], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PageData:
    """All that the page shows. `scenes`: one for each clip, in order; `film` and `files` are named from the film's folder on."""

    timeline: Timeline
    scenes: tuple[PageScene, ...]
    facts: tuple[tuple[str, str], ...] = ()
    check: PageCheck | None = None
    files: tuple[str, ...] = ()
    film: str = "film.mp4"

    def __post_init__(self) -> None:
        assert len(self.scenes) == len(self.timeline.clips), "a page has one scene for each clip"


def stills(frames: NDArray[np.uint8], count: int = 3) -> tuple[bytes, ...]:
    """Evenly spaced JPEG pictures of a scene [T, Y, X, 3], at most STILL_WIDTH wide."""
    return tuple(_jpeg(Image.fromarray(frame)) for frame in pick(frames, count))


def _jpeg(image: Image.Image) -> bytes:
    if image.width > STILL_WIDTH:
        image = image.resize((STILL_WIDTH, max(1, round(image.height * STILL_WIDTH / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=STILL_QUALITY)
    return buffer.getvalue()


def page(data: PageData, folder: Path) -> str:
    """The text of index.html, to stand in the film's `folder`, where the videos lie.

    Film and takes are put into the page while they have at most LARGEST_EMBEDDED bytes together; beyond that the takes, and then the film
    too, are played from the folder. Raises InputError for a video that is not there.
    """
    videos = _Videos(data, folder)
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    timeline = data.timeline
    return Template(template).substitute(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=escape(timeline.title or "Untitled"),
        facts="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in data.facts),
        ratio=f"{timeline.width / timeline.height:.4f}",
        size=f"{timeline.width} / {timeline.height}",
        film=videos.source(data.film),
        frame_seconds=f"{float(1 / timeline.rate):.9f}",
        strip="".join(_strip_button(data, index) for index in range(len(data.scenes))),
        now="".join(_now(clip, index == 0) for index, clip in enumerate(timeline.clips)),
        scenes="".join(_scene(data, index, videos) for index in range(len(data.scenes))),
        check=_check(data.check, timeline) if data.check else "",
        times=_times(timeline),
        files=_links(data.files),
        videos_note=videos.note(),
    )


@dataclass
class _Videos:
    """Which videos stand in the page itself, and what a <video> says in its src."""

    data: PageData
    folder: Path
    sizes: dict[str, int] = field(init=False)
    embedded: set[str] = field(init=False)

    def __post_init__(self) -> None:
        takes = [take.video for scene in self.data.scenes for take in scene.takes if take.video]
        try:
            self.sizes = {name: (self.folder / name).stat().st_size for name in [self.data.film, *takes]}
        except OSError as error:
            raise InputError(f"{error.filename}: there is no such video, expected one to show; make the scene again") from error
        if sum(self.sizes.values()) <= LARGEST_EMBEDDED:
            self.embedded = set(self.sizes)
        else:
            self.embedded = {self.data.film} if self.sizes[self.data.film] <= LARGEST_EMBEDDED else set()

    def source(self, name: str) -> str:
        if name not in self.embedded:
            return escape(quote(name))
        return f"data:video/mp4;base64,{base64.b64encode((self.folder / name).read_bytes()).decode()}"

    def note(self) -> str:
        if len(self.embedded) == len(self.sizes):
            return "Everything shown is inside this one file; only the links need the folder around it."
        megabytes = sum(self.sizes.values()) / 2**20
        outside = "the takes are" if self.data.film in self.embedded else "they are"
        return f"The videos are too large to stand all inside this page ({megabytes:.0f} MiB): {outside} played from the folder around it."


def _strip_button(data: PageData, index: int) -> str:
    timeline, clip, pictures = data.timeline, data.timeline.clips[index], data.scenes[index].stills
    start = timeline.starts[index]
    begin, end = timeline.seconds(start), timeline.seconds(start + clip.num_frames)
    picture = f'<img src="{_picture(pictures[len(pictures) // 2])}" alt="">' if pictures else '<span class="blank"></span>'
    return (
        f'<button type="button" data-scene="{index}" data-start="{float(begin):.6f}" data-end="{float(end):.6f}"'
        f' title="{escape(clip.caption)}"{" aria-current=true" if index == 0 else ""} aria-label="Play scene {clip.number}">'
        f'{picture}<span class="done"></span><span class="label"><b>{clip.number}</b> {_clock(begin)}</span></button>\n'
    )


def _now(clip: Clip, shown: bool) -> str:
    return f"<p{' class=on' if shown else ''}><b>{clip.number}</b><bdi>{escape(clip.caption)}</bdi></p>\n"


def _scene(data: PageData, index: int, videos: _Videos) -> str:
    timeline, clip, scene = data.timeline, data.timeline.clips[index], data.scenes[index]
    length = f"{clip.num_frames} frames, {_amount(timeline.seconds(clip.num_frames))} s"
    notes = [scene.made[:1].upper() + scene.made[1:], length, f"seed {scene.seed}" if scene.seed is not None else "", *scene.notes]
    pictures = "".join(f'<img src="{_picture(still)}" alt="">' for still in scene.stills)
    shown = f'<button type="button" class="stills" data-scene="{index}" aria-label="Play scene {clip.number}">{pictures}</button>'
    return (
        f'<article class="scene" id="scene-{clip.number}" data-scene="{index}">'
        f'<button type="button" class="number" data-scene="{index}" aria-label="Play scene {clip.number}">{clip.number}</button>'
        f'<div class="body">{shown if pictures else ""}'
        f'<div class="words{" long" if len(clip.caption) > LONG_CAPTION else ""}"><p class="caption" dir="auto">{escape(clip.caption)}</p>'
        f'<p class="note">{_spaced(notes)}</p></div>'
        f"{_takes(scene.takes, index, videos)}</div></article>\n"
    )


def _takes(takes: Sequence[PageTake], index: int, videos: _Videos) -> str:
    if not takes:
        return ""
    commands = "".join(
        f"<div>{escape(take.label)} instead:<code>{escape(take.command)}</code></div>"
        for take in takes
        if take.command and not take.current
    )
    figures = "".join(_take(take, index, videos) for take in takes)
    return f'<div class="takes">{figures}</div>' + (f'<div class="choose">{commands}</div>' if commands else "")


def _take(take: PageTake, index: int, videos: _Videos) -> str:
    """A player for a take with a video; the current one without a video of its own plays in the film."""
    picture = f'<img src="{_picture(take.still)}" alt="">' if take.still else '<span class="blank"></span>'
    shown = f'<button type="button" data-scene="{index}" aria-label="Play in the film">{picture}</button>' if take.current else picture
    if take.video:
        still = f'preload="none" poster="{_picture(take.still)}"' if take.still else 'preload="metadata"'
        video = f'<video muted loop playsinline {still} src="{videos.source(take.video)}"></video>'
        shown = f'<button type="button" data-take aria-label="Play {escape(take.label)}">{video}</button>'
    badge = ' <span class="badge">in the film</span>' if take.current else ""
    return f"<figure{' class=current' if take.current else ''}>{shown}<figcaption>{escape(take.label)}{badge}</figcaption></figure>"


def _check(check: PageCheck, timeline: Timeline) -> str:
    found = sum(cut.found is not None for cut in check.cuts)
    tiles = [(f"{found} of {len(check.cuts)}", "cuts found", found < len(check.cuts))] if check.cuts else []
    tiles += [(str(len(check.unwanted)), "unwanted cut" if len(check.unwanted) == 1 else "unwanted cuts", bool(check.unwanted))]
    tiles += [(f"{check.sca:.3f}", "SCA", False)] if check.sca is not None else []
    shown = "".join(f"<div{' class=bad' if bad else ''}><b>{value}</b> {name}</div>" for value, name, bad in tiles)
    rows = "".join(_cut(cut, timeline) for cut in check.cuts)
    cuts = _table(("Cut", "Asked", "Found", "Deviation"), rows) if rows else ""
    unwanted = "".join(_unwanted(frame, timeline) for frame in check.unwanted)
    largest = max((abs(value) for _, value in check.drift), default=0) or 1
    drift = "".join(
        f'<tr><td>{number}</td><td>{value:.3g}</td><td class="bar"><i style="width:{abs(value) / largest:.0%}"></i></td></tr>'
        for number, value in check.drift
    )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in check.notes)
    tables = f"<div>{cuts}{_table(('Unwanted cut', 'In'), unwanted) if unwanted else ''}</div>" + (
        _table(("Scene", "Drift", ""), drift) if drift else ""
    )
    return f'<section id="check"><h2>Check</h2><div class="tiles">{shown}</div><div class="tables">{tables}</div>{notes}</section>'


def _cut(cut: CutRow, timeline: Timeline) -> str:
    into = [f"Into scene {clip.number}" for clip, start, _ in timeline.placed() if start == cut.asked]
    first = f"<tr><td>{into[0] if into else 'Within a scene'}</td><td>{_moment(cut.asked, timeline)}</td>"
    if cut.found is None:
        return f'{first}<td class="bad">not found</td><td></td></tr>'
    off = cut.found - cut.asked
    deviation = f"{off:+d} frame{'s' if abs(off) != 1 else ''} <small>{_amount(timeline.seconds(off), '+')} s</small>" if off else "none"
    return f"{first}<td>{_moment(cut.found, timeline)}</td><td>{deviation}</td></tr>"


def _unwanted(frame: int, timeline: Timeline) -> str:
    inside = next((clip.number for clip, start, end in timeline.placed() if start <= frame < end), timeline.clips[-1].number)
    return f'<tr><td class="bad">{_moment(frame, timeline)}</td><td>scene {inside}</td></tr>'


def _times(timeline: Timeline) -> str:
    rows = ""
    for clip, start, end in timeline.placed():
        moments = "".join(f"<td>{_moment(frame, timeline)}</td>" for frame in (start, end, 0, clip.num_frames))
        rows += f'<tr><td><a href="#scene-{clip.number}">{clip.number}</a></td>{moments}<td>{_link(clip.video)}</td></tr>'
    return _table(("Scene", "Starts in the film", "Ends in the film", "Starts in its file", "Ends in its file", "File"), rows)


def _table(head: Iterable[str], rows: str) -> str:
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    return f'<div class="scroll"><table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>'


def _moment(frame: int, timeline: Timeline) -> str:
    """A frame of the film as time and as number."""
    return f"{_clock(timeline.seconds(frame), 3)} <small>{frame}</small>"


def _clock(seconds: Fraction, digits: int = 1) -> str:
    parts = round(seconds * 10**digits)
    whole, rest = divmod(parts, 10**digits)
    return f"{whole // 60}:{whole % 60:02d}.{rest:0{digits}d}"


def _amount(seconds: Fraction, sign: str = "") -> str:
    return f"{float(seconds):{sign}.3f}".rstrip("0").rstrip(".")


def _links(names: Iterable[str]) -> str:
    return "".join(f"<li>{_link(name)}</li>" for name in names)


def _link(name: str) -> str:
    return f'<a href="{escape(quote(name))}">{escape(name)}</a>'


def _spaced(parts: Iterable[str]) -> str:
    return " ".join(f"<span>{escape(part)}</span>" for part in parts if part)


def _picture(content: bytes) -> str:
    kind = next((kind for start, kind in PICTURE_TYPES.items() if content.startswith(start)), None)
    if kind is None:
        raise InputError("still: got bytes of no known picture, expected JPEG, PNG, WebP or GIF; encode it first")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
