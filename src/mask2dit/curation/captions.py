"""Step 5, captions: each group described by a captioner, several at a time; step 6, reviews: whether the captions are as they must be.

What stands is not asked for again: a group keeps its row while its captioner's name is the same. A captioner that stops, stops the step;
what was written is kept, and the next run goes on from there. Whoever interrupts it waits for nobody.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED as FIRST
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import islice

from mask2dit.curation.captioners.base import TAG, Captioner, CaptionerStoppedError, GroupCaptions, GroupView
from mask2dit.curation.rows import CaptionRow, GroupRow, ReviewRow
from mask2dit.errors import Mask2DiTError, one_line
from mask2dit.storyboard import Storyboard

PICTURES = 4  # of each shot that a captioner gets
LAST_SECONDS = 1.5  # in which a captioner that was closed may write down what it spent


@dataclass(frozen=True, slots=True)
class Captioned:
    """Rows in the order of the groups, and why it stopped before the end, or ""."""

    rows: tuple[CaptionRow, ...]
    stopped: str = ""


def caption_groups(
    groups: Sequence[GroupRow],
    known: Sequence[CaptionRow],
    captioner: Captioner,
    view: Callable[[GroupRow], GroupView],
    step: Callable[[], None],
) -> Captioned:
    """Describe every group that `known` has no captions for by this captioner; one with a problem is asked for again.

    Whatever is raised meanwhile, a Ctrl-C too, closes the captioner if it can be closed.
    """
    rows = {row.group: row for row in known if row.captioner == captioner.name and not row.problem}
    missing = iter([group for group in groups if group.group not in rows])
    stopped = ""
    running: dict[Future[CaptionRow], GroupRow] = {}
    try:
        while True:
            # Not all at once: each waits with its pictures.
            for group in islice(missing, captioner.at_once - len(running) if not stopped else 0):
                running[_begun(captioner, view(group))] = group
            if not running:
                break
            for done in wait(running, return_when=FIRST).done:
                group = running.pop(done)
                try:
                    rows[group.group] = done.result()
                    step()
                except CaptionerStoppedError as error:
                    stopped = stopped or str(error)
    except BaseException:
        if callable(close := getattr(captioner, "close", None)):
            close()
        wait(running, LAST_SECONDS)
        raise
    return Captioned(tuple(rows[group.group] for group in groups if group.group in rows), stopped)


def _begun(captioner: Captioner, view: GroupView) -> Future[CaptionRow]:
    """A group in a thread of its own, for which the process does not wait at its end, as it does for those of an executor."""
    future: Future[CaptionRow] = Future()

    def work() -> None:
        try:
            future.set_result(_caption(captioner, view))
        except BaseException as error:  # for whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=work, name=f"caption {view.group}", daemon=True).start()
    return future


def _caption(captioner: Captioner, view: GroupView) -> CaptionRow:
    try:
        found = captioner.caption(view)
        return row_of(view.group, captioner.name, found)
    except CaptionerStoppedError:
        raise
    except Mask2DiTError as error:  # also of a description that no storyboard can have
        return CaptionRow(view.group, captioner.name, (), "", (), (), one_line(error))


def row_of(group: str, captioner: str, found: GroupCaptions) -> CaptionRow:
    """A captioner's words, with each description put behind its tag."""
    captions = Storyboard.from_data({"characters": dict(found.cast), "scenes": [{"prompt": prompt} for prompt in found.prompts]}).captions
    return CaptionRow(group, captioner, tuple(found.cast.items()), found.setting, tuple(found.prompts), captions)


# Reviews

_TAGGED = re.compile(rf"(?<!\w)({TAG})(?!\w)(?:\s*\(([^()]*)\))?")


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """How long a caption may be. `count`: its tokens; `counted_by`: who says so."""

    most: int
    count: Callable[[str], int]
    counted_by: str


def estimated_tokens(caption: str) -> int:
    """An upper estimate for English and T5's tokenizer, which is not at hand: 1.6 tokens a word, one for each mark, and the end."""
    words = re.findall(r"\w+", caption)
    return round(1.6 * len(words)) + len(re.findall(r"[^\w\s]", caption)) + 1


def review_captions(rows: Sequence[CaptionRow], num_shots: Mapping[str, int], limit: TokenLimit) -> list[ReviewRow]:
    """A row for each group: every character of one tag described alike, every tag described, no caption too long or empty."""
    found = []
    for row in rows:
        longest = max((limit.count(caption) for caption in row.captions), default=0)
        reasons = tuple(_flaws(row, num_shots[row.group], longest, limit))
        found.append(ReviewRow(row.group, not reasons, longest, reasons))
    return found


def _flaws(row: CaptionRow, num_shots: int, longest: int, limit: TokenLimit) -> Iterator[tuple[str, str]]:
    if row.problem:
        yield "no captions", row.problem
        return
    if len(row.captions) != num_shots:
        yield "no captions", f"{len(row.captions)} captions for {num_shots} shots"
    cast = dict(row.cast)
    for number, caption in enumerate(row.captions, 1):
        if not caption.strip():
            yield "empty", f"shot {number}: no words"
        for tag, description in _TAGGED.findall(caption):
            if tag not in cast:
                yield "unknown tag", f"shot {number}: {tag} is described nowhere"
            elif description and " ".join(description.split()) != " ".join(cast[tag].split()):
                yield "other description", f"shot {number}: {tag} is {description!r}, elsewhere {cast[tag]!r}"
    named = {tag for caption in row.captions for tag, _ in _TAGGED.findall(caption)}
    if unused := [tag for tag in cast if tag not in named]:
        yield "unused character", f"{', '.join(unused)}: described, but in no shot"
    if longest > limit.most:
        yield "too long", f"{longest} tokens, expected at most {limit.most} ({limit.counted_by})"
