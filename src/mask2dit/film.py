"""A film as people look at it: enlarged frames, the contact sheet, the animated preview.

Frames are uint8 [Y, X, 3]. Nothing here touches the disk: production decides what goes where, video_files writes videos.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mask2dit.errors import InputError

Frame = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COMFORTABLE_HEIGHT = 480  # pixels; smaller films are enlarged to at least this
LARGEST_SCALE = 64
PICTURES_PER_ROW = 5
SHEET_WIDTH, SHEET_WIDTH_UPRIGHT = 256, 168  # of a picture, at most
PREVIEW_WIDTH = 480
PREVIEW_FRAMES = 240  # more would not fit into the preview's bytes at a size worth watching
PREVIEW_BYTES = 2_000_000
PREVIEW_ATTEMPTS = ((480, 88), (480, 75), (400, 65), (320, 55), (256, 45), (192, 35), (128, 25))  # (width, quality), best first


def frames_to_bytes(frames: NDArray[np.float32]) -> Frame:
    """0..1 → 0..255, rounded; what lies outside is cut off."""
    return (np.nan_to_num(frames).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def choose_scale(height: int, wanted: int | None = None) -> int:
    """The wanted whole factor, or the smallest one that makes `height` comfortable."""
    if wanted is None:
        return max(1, math.ceil(COMFORTABLE_HEIGHT / height))
    if not 1 <= wanted <= LARGEST_SCALE:
        raise InputError(f"display scale: got {wanted}, expected a whole factor from 1 to {LARGEST_SCALE}; leave it out to have one chosen")
    return wanted


def enlarge(frame: Frame, scale: int) -> Frame:
    """Enlarge by a whole factor, smoothly: a small model's soft outlines turn into staircases with nearest-neighbour."""
    if scale == 1:
        return frame
    height, width, _ = frame.shape
    return np.asarray(Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.BICUBIC))


def pick(frames: Frame, count: int = PICTURES_PER_ROW) -> list[Frame]:
    """Evenly spaced frames of a scene [T, Y, X, 3], the first and the last among them."""
    return [frames[index] for index in sorted(set(np.linspace(0, len(frames) - 1, count).round().astype(int).tolist()))]


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One scene on the contact sheet: a few of its pictures, its caption, small print such as its length and seed, and its number."""

    pictures: Sequence[Frame]
    caption: str
    note: str = ""
    number: int | None = None
    """None counts the rows, from 1."""


@dataclass(frozen=True, slots=True)
class _SheetSizes:
    """Measures of the contact sheet in pixels; long films get smaller pictures, so that the sheet can still be opened."""

    picture: tuple[int, int]
    caption_lines: int
    margin: int = 48
    gap: int = 10
    number_column: int = 52
    title: int = 34
    caption: int = 19
    note: int = 14

    @property
    def strip_width(self) -> int:
        return PICTURES_PER_ROW * self.picture[0] + (PICTURES_PER_ROW - 1) * self.gap

    @property
    def width(self) -> int:
        return 2 * self.margin + self.number_column + self.strip_width


_PAPER, _INK, _GREY, _ACCENT = "#f7f5f0", "#26241f", "#8d887c", "#c2703d"
_SHEET_PIXELS = 60_000_000


def contact_sheet(title: str, subtitle: str, rows: Sequence[SheetRow]) -> Image.Image:
    """A row per scene, its pictures in order and its caption below them, under a title.

    Characters that the built-in font lacks are drawn as boxes.
    """
    sizes = _sizes(rows)
    captions = [_wrap(row.caption, _font(sizes.caption), sizes.strip_width, sizes.caption_lines) for row in rows]
    line = round(sizes.caption * 1.35)
    row_heights = [sizes.picture[1] + 12 + len(lines) * line + sizes.note + 34 for lines in captions]
    header = sizes.margin + sizes.title + sizes.note + 44
    sheet = Image.new("RGB", (sizes.width, header + sum(row_heights) + sizes.margin - 20), _PAPER)
    draw = ImageDraw.Draw(sheet)
    heading = _wrap(title or "Untitled", _font(sizes.title), sizes.width - 2 * sizes.margin, 1)[0]
    draw.text((sizes.margin, sizes.margin - 8), heading, _INK, _font(sizes.title))
    draw.text((sizes.margin + 1, sizes.margin + sizes.title + 6), subtitle, _GREY, _font(sizes.note + 1))
    top = header
    for place, (row, lines, height) in enumerate(zip(rows, captions, row_heights, strict=True), start=1):
        _draw_row(sheet, top, row.number or place, row, lines, sizes)
        top += height
    return sheet


def _sizes(rows: Sequence[SheetRow]) -> _SheetSizes:
    height, width, _ = rows[0].pictures[0].shape
    # The largest pictures that keep the whole sheet under _SHEET_PIXELS, between a stamp and a comfortable size.
    across = math.sqrt(_SHEET_PIXELS * width / (len(rows) * height * PICTURES_PER_ROW))
    across = min(max(96, round(across * 0.7)), _sheet_width(width, height))
    return _SheetSizes(picture=(across, max(1, round(across * height / width))), caption_lines=3 if len(rows) <= 60 else 1)


def sheet_picture(frame: Frame) -> Frame:
    """A frame as the contact sheet needs it: all scenes' are held till the end."""
    height, width, _ = frame.shape
    return np.asarray(_narrowed(Image.fromarray(frame), _sheet_width(width, height)))


def _sheet_width(width: int, height: int) -> int:
    return SHEET_WIDTH if width >= height else SHEET_WIDTH_UPRIGHT


def _draw_row(sheet: Image.Image, top: int, number: int, row: SheetRow, caption: Sequence[str], sizes: _SheetSizes) -> None:
    draw = ImageDraw.Draw(sheet)
    left = sizes.margin + sizes.number_column
    draw.text((sizes.margin, top - 6), str(number), _ACCENT, _font(sizes.title if number < 100 else sizes.caption))
    mask = _rounded(sizes.picture)
    for column, picture in enumerate(row.pictures[:PICTURES_PER_ROW]):
        image = Image.fromarray(picture).resize(sizes.picture, Image.Resampling.LANCZOS)
        sheet.paste(image, (left + column * (sizes.picture[0] + sizes.gap), top), mask)
    line = round(sizes.caption * 1.35)
    below = top + sizes.picture[1] + 12
    for index, text in enumerate(caption):
        draw.text((left, below + index * line), text, _INK, _font(sizes.caption))
    draw.text((left, below + len(caption) * line + 2), row.note, _GREY, _font(sizes.note))


def _rounded(size: tuple[int, int]) -> Image.Image:
    """A mask with round corners, drawn four times larger for smooth edges."""
    mask = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius=24, fill=255)
    return mask.resize(size, Image.Resampling.LANCZOS)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Lines that fit `width`; words longer than a line are broken, and what exceeds `max_lines` ends in '…'."""
    lines: list[str] = []
    rest = " ".join(text.split())
    while rest and len(lines) < max_lines:
        count = _fitting(rest, font, width)
        if count < len(rest):
            if len(lines) == max_lines - 1:
                lines.append(rest[: max(1, count - 1)].rstrip() + "…")
                break
            space = rest.rfind(" ", 0, count + 1)
            count = space if space > 0 else count
        lines.append(rest[:count].rstrip())
        rest = rest[count:].lstrip()
    return lines or [""]


def _fitting(text: str, font: Font, width: int) -> int:
    """How many characters from the start fit; at least one."""
    low, high = 1, min(len(text), 512)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return low


def preview_sheet(title: str, rows: Sequence[tuple[int, Sequence[Frame]]]) -> Image.Image:
    """A plain picture of a film in the making: a row of frames per scene, its number before them, under a line of text."""
    gap, column, size = 6, 30, 15
    height, width, _ = rows[0][1][0].shape
    across = max(len(frames) for _, frames in rows)
    sheet = Image.new("RGB", (column + across * (width + gap) + gap, size + 3 * gap + len(rows) * (height + gap)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((column + gap, gap), title, _GREY, _font(size))
    for row, (number, frames) in enumerate(rows):
        top = size + 3 * gap + row * (height + gap)
        draw.text((gap, top), str(number), _ACCENT, _font(size))
        for place, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (column + gap + place * (width + gap), top))
    return sheet


def preview_step(num_frames: int) -> int:
    """The preview of a film with `num_frames` takes every how-manieth frame."""
    return max(1, math.ceil(num_frames / PREVIEW_FRAMES))


def preview_frame(frame: Frame) -> Image.Image:
    """A frame as the preview keeps it: never wider than PREVIEW_WIDTH."""
    return _narrowed(Image.fromarray(frame), PREVIEW_WIDTH)


def animated_preview(frames: Sequence[Image.Image], fps: float, max_bytes: int = PREVIEW_BYTES) -> bytes:
    """An endless animated WebP of at most `max_bytes`: quality goes first, then size, then every second frame."""
    if not frames:
        raise InputError("preview: got no frames, expected at least one; make a scene first")

    def attempt(number: int) -> bytes:
        width, quality = PREVIEW_ATTEMPTS[number]
        return _webp([_narrowed(frame, width) for frame in frames], fps, quality)

    while True:
        encoded = attempt(0)
        if len(encoded) <= max_bytes:
            return encoded
        # The best of the smaller ones that fits, by halving the list: encoding a long film takes a while.
        low, high, best = 1, len(PREVIEW_ATTEMPTS) - 1, None
        while low <= high:
            middle = (low + high) // 2
            encoded = attempt(middle)
            if len(encoded) <= max_bytes:
                best, high = encoded, middle - 1
            else:
                low = middle + 1
        if best is not None:
            return best
        if len(frames) == 1:
            raise InputError(f"preview: got {len(encoded)} bytes for one frame, expected at most {max_bytes}; allow more")
        frames, fps = frames[::2], fps / 2


def _webp(frames: Sequence[Image.Image], fps: float, quality: int) -> bytes:
    buffer = io.BytesIO()
    milliseconds = max(1, round(1000 / fps))
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0, quality=quality, method=3)
    return buffer.getvalue()


def _narrowed(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
