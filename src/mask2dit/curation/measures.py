"""What is measured of a shot, from pictures uint8 [T, Y, X, 3] in sRGB alone: light, stillness, bars, text, dissolves, and its look.

No network and no file: each is a function of pixels, with its constants above it. How much moves is `mask2dit.motion`. What follows from a
number is decided elsewhere.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mask2dit.cut_detectors import made_small, srgb_to_lab

Frame = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float32]

# Light

LIGHT_SIDE = 128  # pixels


def lightness(pictures: Frame) -> tuple[float, float]:
    """Mean of CIELAB's lightness, 0 to 100, and contrast: its standard deviation in a picture, the mean over pictures."""
    planes = [srgb_to_lab(made_small(picture, LIGHT_SIDE))[:, :, 0] for picture in pictures]
    return float(np.mean([plane.mean() for plane in planes])), float(np.mean([plane.std() for plane in planes]))


# Stillness

STILL_SIDE = 128  # pixels
STILL_CHANGE = 8.0  # of 255 levels, in the mean of 3 × 3 pixels; a sleeper of the playhouse has 11.8 and more from picture to picture


def longest_still(pictures: Frame, per_second: float) -> float:
    """Seconds from the first to the last picture of the longest run whose every picture equals its first but for an encoder's noise."""
    longest, start = 0, 0
    first: Numbers | None = None
    for number, picture in enumerate(pictures):
        grey = cv2.cvtColor(made_small(picture, STILL_SIDE), cv2.COLOR_RGB2GRAY).astype(np.float32)
        if first is None or np.abs(cv2.blur(grey - first, (3, 3))).max() > STILL_CHANGE:
            first, start = grey, number
        longest = max(longest, number - start)
    return longest / per_second


# Black bars

BAR_LEVEL, BAR_SPREAD = 26, 14  # of 255 levels: the brightest of a bar, and how far it is from its darkest, but for 5 % at either end
EDGE_STEP = 16  # levels by which the picture beside a bar is brighter than the bar
EDGE_SHARE = 0.5  # of the edge's length at which it is
EDGE_WIDTH = 0.03  # of the picture's side: within it the picture begins, for an encoder blurs the edge
LARGEST_BAR = 0.46  # of the picture's side


def black_bars(pictures: Frame) -> tuple[float, float, float, float]:
    """Shares of the picture that black bars take at the top, bottom, left and right in every picture.

    A bar is nearly black, the same along its length, and has a straight edge to something brighter; a dark scene has none.
    """
    brightest = np.max([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures], axis=0).astype(np.int16)
    lit = brightest > BAR_LEVEL
    # What is black along its whole length says nothing about where bars across it end.
    rows, columns = lit.mean(axis=1) > 0.05, lit.mean(axis=0) > 0.05
    if not (rows.any() and columns.any()):
        return 0.0, 0.0, 0.0, 0.0
    upright, lying = brightest[:, columns], brightest[rows].T
    return _bar(upright), _bar(upright[::-1]), _bar(lying), _bar(lying[::-1])


def _bar(picture: NDArray[np.int16]) -> float:
    """The share that a bar at the top takes."""
    height = len(picture)
    low, middle, high = np.percentile(picture, (5, 50, 95), axis=1)
    dark = (high <= BAR_LEVEL) & (high - low <= BAR_SPREAD)
    size = height if dark.all() else int(dark.argmin())
    if not 2 <= size <= LARGEST_BAR * height:
        return 0.0
    begun = picture[size : size + max(3, round(EDGE_WIDTH * height))].max(axis=0) > np.median(middle[:size]) + EDGE_STEP
    return size / height if begun.mean() >= EDGE_SHARE else 0.0


# Text

TEXT_SIDE = 288  # pixels, the shorter side: what is smaller is enlarged
STROKE, STROKE_STEP = 0.045, 50  # of that side and levels: what is narrower and so much brighter or darker than beside it is a stroke
STEADY, STEADY_STEP = 3, 28  # pictures in a row in which a stroke of overlaid text stays as it is, and levels
LETTER_GAP = 0.05  # of the shorter side, within a line
LINE_HEIGHT, LINE_ASPECT = (0.018, 0.13), 1.8  # of the shorter side; width to height at least
DENSITY = (0.15, 0.68)  # share of a line that is stroke
TURNS = (1.5, 4.5)  # strokes that cross a row of pixels, in a width that is the line's height; texture has 0.6, and seldom above 1.4
INK_SPREAD = 25  # levels, between the brightest (darkest) of each letter
AROUND = 0.7  # share of strokes around a line to that in it: a line stands by itself, a texture does not
PERIODIC = 0.8  # correlation of a line with itself, moved on: a fence, not text
SEEN_AT_LEAST = 0.25  # of the time
Line = tuple[int, int, int, int]


def text_overlay(pictures: Frame) -> float:
    """Share of the picture that lines of overlaid text take, which stay where they are while the film goes on.

    Found by their strokes, without a network: a line in front of what is itself made of strokes is missed, and writing that the film shows
    counts as long as it stands still.
    """
    greys = [_grey_for_text(picture) for picture in pictures]
    count = min(STEADY, len(greys))
    shares = [_text_share(greys[start : start + count]) for start in range(len(greys) - count + 1)]
    return sorted(shares, reverse=True)[int(SEEN_AT_LEAST * (len(shares) - 1))]


def _grey_for_text(picture: Frame) -> Frame:
    height, width = picture.shape[:2]
    scale = TEXT_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8)


def _text_share(greys: list[Frame]) -> float:
    """Of the first of some pictures, in grey."""
    blurred = [cv2.blur(grey, (3, 3)) for grey in greys]
    steady = np.max(blurred, axis=0) - np.min(blurred, axis=0) < STEADY_STEP
    width = round(STROKE * TEXT_SIDE) | 1
    taken = np.zeros(greys[0].shape, bool)
    for polarity, bright in ((cv2.MORPH_TOPHAT, greys[0]), (cv2.MORPH_BLACKHAT, 255 - greys[0])):
        strokes = cv2.morphologyEx(greys[0], polarity, np.ones((width, width), np.uint8)) > STROKE_STEP
        for x, y, w, h in _lines((strokes & steady).astype(np.uint8)):
            if _is_text(bright, strokes, steady, (x, y, w, h)):
                taken[y : y + h, x : x + w] = True
    return float(taken.mean())


def _lines(strokes: Frame) -> list[Line]:
    """Boxes (x, y, width, height) of strokes that stand beside each other."""
    gap, shortest = round(LETTER_GAP * TEXT_SIDE) | 1, (round(0.012 * TEXT_SIDE), round(0.04 * TEXT_SIDE))
    joined = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))
    joined = cv2.morphologyEx(joined, cv2.MORPH_OPEN, np.ones(shortest, np.uint8))
    lines = []
    for x, y, w, h in cv2.connectedComponentsWithStats(joined, connectivity=4)[2][1:, :4].tolist():
        inside = x > 0 and y > 0 and x + w < strokes.shape[1] and y + h < strokes.shape[0]
        if inside and h < 3 * LINE_HEIGHT[1] * TEXT_SIDE:
            rows = strokes[y : y + h, x : x + w].mean(axis=1)
            lines += [(x, y + start, w, stop - start) for start, stop in _split(rows, 0, h)]
    low, high = (share * TEXT_SIDE for share in LINE_HEIGHT)
    return [(x, y, w, h) for x, y, w, h in lines if low <= h <= high and w >= LINE_ASPECT * h]


def _split(rows: NDArray[np.float64], start: int, stop: int) -> list[tuple[int, int]]:
    """Lines that touch, parted where there are fewest strokes."""
    quarter = (stop - start) // 4
    if stop - start < 0.05 * TEXT_SIDE or quarter == 0:
        return [(start, stop)]
    least = start + quarter + int(rows[start + quarter : stop - quarter].argmin())
    if rows[least] >= 0.4 * rows[start:stop].mean():
        return [(start, stop)]
    return _split(rows, start, least) + _split(rows, least, stop)


def _is_text(bright: Frame, strokes: Mask, steady: Mask, line: Line) -> bool:
    """bright: the picture in grey, with strokes brighter than what is beside them."""
    x, y, w, h = line
    box = strokes[y : y + h, x : x + w] & steady[y : y + h, x : x + w]
    density = float(box.mean())
    if not DENSITY[0] <= density <= DENSITY[1]:
        return False
    rows = box[h // 4 : h - h // 4].astype(np.int8)
    turns = float((np.diff(rows, axis=1) == 1).sum(axis=1).mean()) * h / w
    ink = [part.max() for part in np.array_split(np.where(box, bright[y : y + h, x : x + w], 0), max(2, w // h), axis=1)]
    low, high = np.percentile(ink, (15, 85))
    if not TURNS[0] <= turns <= TURNS[1] or high - low > INK_SPREAD:
        return False
    beside = max(3, h // 2)
    sides = _share(strokes, y, y + h, x - beside, x), _share(strokes, y, y + h, x + w, x + w + beside)
    above, below = _share(strokes, y - beside, y - 1, x, x + w), _share(strokes, y + h + 1, y + h + beside, x, x + w)
    return max(*sides, min(above, below)) <= AROUND * density and _likeness(box.mean(axis=0) - density, h) <= PERIODIC


def _share(strokes: Mask, top: int, bottom: int, left: int, right: int) -> float:
    part = strokes[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    return float(part.mean()) if part.size else 0.0


def _likeness(columns: NDArray[np.float64], height: int) -> float:
    """The highest correlation with itself, moved on by up to three heights."""
    shifts = range(max(3, height // 3), max(4, min(len(columns) // 2, 3 * height)))
    pairs = [(columns[shift:], columns[:-shift]) for shift in shifts]
    return max(_cosine(one, other) for one, other in pairs)


def _cosine(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(one @ other) / max(1e-6, float(np.linalg.norm(one)) * float(np.linalg.norm(other)))


# Dissolves

SHORTEST_BLEND, LONGEST_BLEND = 5, 2.5  # frames and seconds from the last clean frame to the next one
BLEND_CHANGE = 12.0  # of 255 levels, root of the mean square: how far the two pictures are apart at least
BLEND_SPREAD, BLEND_LEVEL = 0.4, 5.0  # share of the picture that changes, by so many levels: a thing that enters changes less
BLEND_LIKENESS = 0.8  # correlation of the two pictures above which only the light changes
BLEND_BESIDE = 0.25  # of its length: what is looked at before and after it
FEWEST_BESIDE = 3  # frames of standstill
BLEND_RESIDUE = 0.25  # what the blend of the two pictures leaves unexplained, as a share of their difference
BLEND_BEND = 0.12  # how far the share of the second picture is from rising evenly
BLEND_STEADY = 0.3  # speed of that share before and after, to that within
BLEND_OUTSIDE = 0.3  # change of any kind before and after, as a share of the difference: more in a pan
PLAIN, BLACK, WHITE = 6.0, 24.0, 225.0  # spread and levels of a picture to which all fades


def dissolves(thumbnails: Frame, fps: float) -> list[tuple[int, int]]:
    """(first mixed frame, first clean frame) of each dissolve and fade, rising, from one thumbnail per frame [T, y, x, 3].

    In a dissolve every frame is a blend of the pictures before and after it whose share rises evenly, from standstill to standstill; what
    moves, grows or flickers is not. Where much moves while it lasts, a long one is missed: it is better missed than a shot broken.
    """
    frames = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    found: list[tuple[float, int, int]] = []
    length = SHORTEST_BLEND
    while length <= LONGEST_BLEND * fps + 1 or length == SHORTEST_BLEND:
        beside = max(FEWEST_BESIDE, round(BLEND_BESIDE * length))
        before = np.arange(beside, max(beside, len(frames) - length - beside))
        change = frames[before + length] - frames[before]
        half = frames[before + length // 2] - frames[before] - length // 2 / length * change
        size = np.sqrt(np.square(change).mean(axis=1))
        likely = (size >= BLEND_CHANGE) & (np.sqrt(np.square(half).mean(axis=1)) < BLEND_RESIDUE * size)
        for start in before[likely].tolist():
            misfit = _misfit(frames[start - beside : start + length + beside + 1], beside)
            if misfit is not None:
                found.append((misfit, start + 1, start + length))
        length += 1 + length // 24
    chosen: list[tuple[int, int]] = []
    for _, first, clean in sorted(found):
        if all(clean < other or first > end for other, end in chosen):
            chosen.append((first, clean))
    return sorted(chosen)


def _misfit(frames: Numbers, beside: int) -> float | None:
    """How ill a blend explains frames [T, N] of which so many at either end are clean; None: it is none."""
    before, after = frames[beside], frames[-beside - 1]
    change, length = after - before, len(frames) - 2 * beside - 1
    if np.mean(np.abs(change) > BLEND_LEVEL) < BLEND_SPREAD:
        return None
    if not (_is_plain(before) or _is_plain(after)) and _cosine(before - before.mean(), after - after.mean()) > BLEND_LIKENESS:
        return None
    square = float(np.square(change).sum())
    even = ((np.arange(len(frames)) - beside) / length).clip(0, 1)
    bend = np.abs((frames - before) @ change / square - even)
    residue = np.sqrt(np.square(frames - before - even[:, None] * change).sum(axis=1) / square)
    inside = slice(beside, -beside)
    steady = max(bend[0], bend[-1]) * length / beside
    if bend[inside].max() > BLEND_BEND or residue[inside].max() > BLEND_RESIDUE:
        return None
    if steady > BLEND_STEADY or max(residue[0], residue[-1]) > BLEND_OUTSIDE:
        return None
    return float(bend.mean() + residue.mean() / 2 - 0.02 * np.log(length))  # of two that fit as well, the longer one


def is_blank(thumbnails: Frame) -> bool:
    """Whether all of them [T, y, x, 3] are black, or all white, as between a fade and the next."""
    return all(_is_plain(picture) for picture in thumbnails.reshape(len(thumbnails), -1).astype(np.float32))


def _is_plain(picture: Numbers) -> bool:
    return bool(picture.std() < PLAIN and not BLACK < picture.mean() < WHITE)


# Look

LOOK = (16, 9)  # pixels, width and height
LOOK_SIDE = 90  # pixels: of a larger picture every so many points are looked at, for there is one of every frame


def thumbnail(picture: Frame) -> Frame:
    """The look of a picture, [9, 16, 3] whatever its size."""
    step = max(1, min(picture.shape[:2]) // LOOK_SIDE)
    return np.asarray(cv2.resize(picture[::step, ::step], LOOK, interpolation=cv2.INTER_AREA), np.uint8)


def look(pictures: Frame) -> Frame:
    """The look of a shot, [3, 9, 16, 3]: its first, middle and last picture."""
    return np.stack([thumbnail(pictures[index]) for index in (0, (len(pictures) - 1) // 2, -1)])


def same_look(one: Frame, other: Frame) -> float:
    """How far two looks are apart, of 255 levels: root of the mean square."""
    return float(np.sqrt(np.square(one.astype(np.float32) - other).mean()))
