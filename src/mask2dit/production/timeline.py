"""A finished film's scenes in time, and what other programs read of them: a cut list (EDL), a timeline (OTIO), subtitles (SRT).

Owns times in the film and in the scene, and these three texts. Knows files by name only: it reads and writes none.
"""

import math
import re
import textwrap
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from mask2dit.errors import InputError

TIMECODE_RATES = tuple(
    Fraction(rate) for rate in (Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 48, 50, Fraction(60000, 1001), 60)
)
"""Frames per second that editing programs know, from slow to fast."""
SAME_RATE = Fraction(2, 100_000)  # of the rate: 29.97 means 30000/1001, 23.98 does not mean 24000/1001
LINE_COLUMNS = 42  # of a subtitle, as broadcasters have it
LINES_AT_ONCE = 2
SHORTEST_SUBTITLE_SECONDS = 1
EDL_COLUMNS = 80
EDL_TITLE_COLUMNS = 70
EDL_REEL_COLUMNS = 8
MARKER_COLUMNS = 60
PLAIN = str.maketrans(dict(zip("‘’‚“”„«»–—‑×", '\'\'\'"""""---x', strict=True)) | {"ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O"})


@dataclass(frozen=True, slots=True)
class Clip:
    """One scene of the film. Numbers count from 1 and may have gaps; `video` is named from the film's folder on, with '/'."""

    number: int
    caption: str
    num_frames: int
    video: str

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise InputError(f"scene {self.number}: got {self.num_frames} frames, expected at least 1; leave the scene out")
        path = PurePosixPath(self.video)
        if path.is_absolute() or ".." in path.parts or "\\" in self.video or ":" in self.video:
            raise InputError(
                f"scene {self.number}: got the video {self.video!r}, expected a name in the film's folder, such as scenes/a.mp4"
            )


@dataclass(frozen=True, slots=True)
class Timeline:
    """The scenes of a film in order, without gaps between them."""

    title: str
    fps: float
    width: int
    height: int
    clips: tuple[Clip, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.rate > 0):
            raise InputError(f"fps: got {self.fps}, expected a positive number of frames per second; use for example 8")
        if not self.clips:
            raise InputError("timeline: got no scenes, expected at least one; make a scene first")

    @property
    def rate(self) -> Fraction:
        """Frames per second as video_files writes them."""
        return Fraction(self.fps).limit_denominator(1001)

    @property
    def num_frames(self) -> int:
        return sum(clip.num_frames for clip in self.clips)

    @property
    def starts(self) -> tuple[int, ...]:
        """The frame of the film with which each clip starts; each clip ends before the frame with which the next one starts."""
        return tuple(accumulate((clip.num_frames for clip in self.clips[:-1]), initial=0))

    def seconds(self, frame: int) -> Fraction:
        """When a frame of the film starts."""
        return frame / self.rate

    def placed(self) -> Iterator[tuple[Clip, int, int]]:
        """Each clip with its first frame in the film and the one after its last."""
        for clip, start in zip(self.clips, self.starts, strict=True):
            yield clip, start, start + clip.num_frames


def edl(timeline: Timeline) -> str:
    """A CMX3600 list of cuts: source times within a scene's own file, record times within the film, both from 00:00:00:00.

    Plain ASCII, 80 columns. Timecode exists for few rates, so a film with another one is counted at a rate of which its own is a whole
    part (8 as 24, three for each picture: every time stays exact), or else at its own; a comment at the first cut says so.
    """
    counted, per_frame = _timecode_rate(timeline.rate)
    whole = math.ceil(counted)
    lines = [f"TITLE: {(_ascii(timeline.title) or 'UNTITLED')[:EDL_TITLE_COLUMNS].rstrip()}", "FCM: NON-DROP FRAME", ""]
    for event, (clip, start, end) in enumerate(timeline.placed(), start=1):
        times = " ".join(_timecode(frame * per_frame, whole) for frame in (0, clip.num_frames, start, end))
        reel = f"{'SCENE'[: EDL_REEL_COLUMNS - len(str(clip.number))]}{clip.number:02d}"
        name = _ascii(PurePosixPath(clip.video).name)
        lines += [f"{event:03d}  {reel:8} V     C        {times}", f"* FROM CLIP NAME: {name}", f"* FROM FILE: {_ascii(clip.video)}"]
        lines += _commented(clip.caption)
        if event == 1:
            lines += _commented(_rate_in_words(timeline, counted, per_frame))
        lines.append("")
    return "\n".join(lines)


def _timecode_rate(rate: Fraction) -> tuple[Fraction, int]:
    """Frames per second that timecode counts, and how many of them are one frame of the film."""
    for known in TIMECODE_RATES:
        times = round(known / rate)
        if times >= 1 and abs(rate * times - known) <= known * SAME_RATE:
            return known, times
    return rate, 1


def _timecode(frame: int, whole: int) -> str:
    """Hours, minutes, seconds and frames, `whole` frames to a second of timecode."""
    seconds, rest = divmod(frame, whole)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{rest:02d}"


def _rate_in_words(timeline: Timeline, counted: Fraction, per_frame: int) -> str:
    own, read_as = _short(timeline.rate), _short(counted)
    if counted not in TIMECODE_RATES:
        return f"THE FILM HAS {own} FPS, COUNTED {math.ceil(counted)} TO A SECOND HERE; FEW READERS KNOW THIS RATE: USE FILM.OTIO"
    if per_frame > 1:
        return f"TIMES AT {read_as} FPS: {per_frame} FRAMES FOR EACH FRAME OF THE FILM, WHICH HAS {own} FPS"
    return f"TIMES AT {read_as} FPS, AS THE FILM HAS"


def _short(rate: Fraction) -> str:
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


def _commented(text: str) -> list[str]:
    head = "* COMMENT: "
    return [head + line for line in textwrap.wrap(_ascii(text) or "(NOT IN LATIN LETTERS; SEE FILM.OTIO)", EDL_COLUMNS - len(head))]


def _ascii(text: str) -> str:
    """In one line what ASCII has of a text, '?' for each run of what it lacks; empty if no letter or digit is left."""
    letters = unicodedata.normalize("NFKD", text.translate(PLAIN))
    plain = "".join(letter if letter.isascii() else "\x7f" for letter in letters if not unicodedata.combining(letter))
    line = "".join(letter for letter in " ".join(re.sub("\x7f+", "?", plain).split()) if letter.isprintable())
    return line if any(letter.isalnum() for letter in line) else ""


def otio(timeline: Timeline) -> str:
    """An OpenTimelineIO timeline at the film's own rate: one video track, a clip per scene that refers to its file from the folder on.

    Each clip carries its caption as a marker, and under metadata["mask2dit"] its number, caption and place in the film.
    """
    import opentimelineio

    schema, times = opentimelineio.schema, opentimelineio.opentime
    counted, per_frame = _timecode_rate(timeline.rate)
    rate = float(counted / per_frame)

    def span(start: int, count: int) -> Any:
        return times.TimeRange(times.RationalTime(start, rate), times.RationalTime(count, rate))

    track = schema.Track(name="V1", kind=schema.TrackKind.Video)
    for clip, start, end in timeline.placed():
        own = span(0, clip.num_frames)
        caption = clip.caption.replace("\0", " ")  # the library ends a text there
        facts = {"scene": clip.number, "caption": caption, "film_start_frame": start, "film_end_frame": end}
        seconds = {"film_start_seconds": float(timeline.seconds(start)), "film_end_seconds": float(timeline.seconds(end))}
        placed = schema.Clip(
            name=f"Scene {clip.number}",
            media_reference=schema.ExternalReference(target_url=quote(clip.video), available_range=own),
            source_range=own,
            metadata={"mask2dit": facts | seconds},
        )
        short = textwrap.shorten(caption, MARKER_COLUMNS, placeholder="…")
        placed.markers.append(schema.Marker(name=short, marked_range=own, color=schema.MarkerColor.ORANGE, comment=caption))
        track.append(placed)
    facts = {"film": "film.mp4", "fps": timeline.fps, "width": timeline.width, "height": timeline.height}
    whole = schema.Timeline(
        name=timeline.title.replace("\0", " "), global_start_time=times.RationalTime(0, rate), metadata={"mask2dit": facts}
    )
    whole.tracks.append(track)
    return str(whole.to_json_string(indent=2)) + "\n"


def srt(timeline: Timeline) -> str:
    """The captions as subtitles: each from its scene's start to its end, at most two lines at once where the scene is long enough.

    A longer caption goes on in further subtitles, which share the scene's time by their number of lines, on whole frames.
    """
    blocks: list[str] = []
    for clip, start, end in timeline.placed():
        lines = _subtitle_lines(clip.caption)
        seconds = math.floor(timeline.seconds(clip.num_frames))
        count = min(math.ceil(len(lines) / LINES_AT_ONCE), max(1, seconds // SHORTEST_SUBTITLE_SECONDS), clip.num_frames)
        if not count:
            continue
        breaks = [round(len(lines) * part / count) for part in range(count + 1)]
        frames = [start + round((end - start) * place / len(lines)) for place in breaks]
        for (first, last), (begin, finish) in zip(pairwise(breaks), pairwise(frames), strict=True):
            span = f"{_clock(timeline.seconds(begin))} --> {_clock(timeline.seconds(finish))}"
            blocks.append("\n".join([str(len(blocks) + 1), span, *lines[first:last]]))
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _subtitle_lines(caption: str) -> list[str]:
    """Lines of about equal length; a caption may neither end a subtitle nor look like its times."""
    text = " ".join("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in caption).split()).replace("-->", "→")
    num_wide = sum(unicodedata.east_asian_width(letter) == "W" for letter in text)
    widest = LINE_COLUMNS // 2 if num_wide > len(text) / 4 else LINE_COLUMNS
    fewest = len(textwrap.wrap(text, widest))
    for columns in range(max(1, len(text) // max(1, fewest)), widest):
        if len(lines := textwrap.wrap(text, columns)) == fewest:
            return lines
    return textwrap.wrap(text, widest)


def _clock(seconds: Fraction) -> str:
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 3_600_000:02d}:{milliseconds // 60_000 % 60:02d}:{milliseconds // 1000 % 60:02d},{milliseconds % 1000:03d}"
