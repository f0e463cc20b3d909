"""The named attention plans: which tokens meet which.

A plan says who may meet *across* scenes; inside a scene everything meets everything (paper, figure 2; `symmetric` is its mask). It is
turned into groups of queries that share their keys, so that no mask is ever built, and into few kernel calls whose results are merged.
Kernels belong to attention.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mask2dit.errors import InputError
from mask2dit.scene_layout import SceneLayout, join_slices, subtract_slices


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Queries that attend to the same keys: positions in the joint sequence."""

    queries: tuple[slice, ...]
    keys: tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """Groups of equal lengths, which one kernel call computes as a batch; one slice of queries each."""

    groups: tuple[AttentionGroup, ...]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPattern:
    """A plan at work on one layout, in both forms."""

    groups: tuple[AttentionGroup, ...]
    """Each with all of its keys; together the queries are every token once."""

    calls: tuple[AttentionCall, ...]
    """Together every (query, key) pair of the groups once; a query may be in several calls, whose softmaxes are then merged."""

    order: tuple[int, ...]
    """How the groups' slices of queries, one group after the other, are put back in the order of the joint sequence."""

    num_queries: int
    num_keys: int

    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    """What a backend has made of it, by a name of its own."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Who may meet across scenes; the first word asks, the second is read."""

    name: str
    text_reads_text: bool
    text_reads_video: bool
    video_reads_text: bool
    video_reads_video: bool
    known_reads_generated: bool = field(default=True, kw_only=True)

    def pattern(self, layout: SceneLayout, known: Set[int] = frozenset(), num_context: int = 0) -> AttentionPattern:
        """The plan on a layout in which the scenes `known` are given.

        num_context: video tokens of known scenes that follow the joint sequence as keys alone (`mask2dit.context_cache`); generated video
        reads them as any other video.
        """
        return _pattern(self, layout, frozenset(known) if not self.known_reads_generated else frozenset(), num_context)


PLANS = {
    plan.name: plan
    for plan in (
        #             name                text→text text→video video→text video→video
        AttentionPlan("isolated", False, False, False, False),
        AttentionPlan("symmetric", False, False, False, True),
        AttentionPlan("shared-text", True, False, False, True),
        AttentionPlan("video-reads-text", False, False, True, True),
        AttentionPlan("full", True, True, True, True),
        # As symmetric, but what known scenes compute depends on known scenes alone, so that it need not be computed again at every step.
        AttentionPlan("context-blind", False, False, False, True, known_reads_generated=False),
    )
}


def get_plan(name: str) -> AttentionPlan:
    """Look a plan up by its name; InputError names the choices."""
    try:
        return PLANS[name]
    except KeyError:
        raise InputError(f"plan: got {name!r}, expected one of {', '.join(PLANS)}") from None


@lru_cache(maxsize=128)
def _pattern(plan: AttentionPlan, layout: SceneLayout, known: frozenset[int], num_context: int) -> AttentionPattern:
    texts, videos = ([each for each in kind if each.queries[0].stop > each.queries[0].start] for kind in _rows(plan, layout, known))
    if num_context:
        context = slice(layout.num_tokens, layout.num_tokens + num_context)
        videos = [AttentionGroup(each.queries, join_slices([*each.keys, context])) for each in videos]
    groups = _grouped([*texts, *videos])
    calls = [AttentionCall(groups)]
    if len(groups) > 1:
        given = [each for each in videos if any(each.queries[0] == layout.video(scene) for scene in known)]
        generated = [each for each in videos if each not in given]
        calls = [call for rows in (generated, given, texts) for call in _calls(rows)]
    starts = [piece.start for group in groups for piece in group.queries]
    order = tuple(sorted(range(len(starts)), key=starts.__getitem__))
    return AttentionPattern(groups, tuple(calls), order, layout.num_tokens, layout.num_tokens + num_context)


def _rows(plan: AttentionPlan, layout: SceneLayout, known: frozenset[int]) -> Iterator[list[AttentionGroup]]:
    """The segments of text, then those of video, each with what it reads."""
    scenes = range(layout.num_scenes)

    def read(own: int, place: Callable[[int], slice], across: bool) -> list[slice]:
        return [place(other) for other in scenes if other == own or (across and (own not in known or other in known))]

    for place, reads_text, reads_video in (
        (layout.text, plan.text_reads_text, plan.text_reads_video),
        (layout.video, plan.video_reads_text, plan.video_reads_video),
    ):
        keys = [join_slices(read(own, layout.text, reads_text) + read(own, layout.video, reads_video)) for own in scenes]
        yield [AttentionGroup((place(own),), keys[own]) for own in scenes]


def _grouped(rows: Sequence[AttentionGroup]) -> tuple[AttentionGroup, ...]:
    """Rows with the same keys as one group."""
    keys_seen: list[tuple[slice, ...]] = []  # not a dict: slices cannot be hashed before Python 3.12
    queries: list[list[slice]] = []
    for row in rows:
        if row.keys not in keys_seen:
            keys_seen.append(row.keys)
            queries.append([])
        queries[keys_seen.index(row.keys)] += row.queries
    return tuple(AttentionGroup(join_slices(segments), keys) for segments, keys in zip(queries, keys_seen, strict=True))


def _calls(rows: Sequence[AttentionGroup]) -> Iterator[AttentionCall]:
    """One call for the keys that all rows share, and the rest of each row batched with those of its lengths."""
    if not rows:
        return
    shared = _shared([row.keys for row in rows]) if len(rows) > 1 else ()
    if shared:
        for queries in join_slices([piece for row in rows for piece in row.queries]):
            yield AttentionCall((AttentionGroup((queries,), shared),))
    batches: dict[tuple[int, ...], list[AttentionGroup]] = {}
    for row in rows:
        keys = subtract_slices(row.keys, shared)
        if keys:
            lengths = tuple(piece.stop - piece.start for piece in (*row.queries, *keys))
            batches.setdefault(lengths, []).append(AttentionGroup(row.queries, keys))
    yield from (AttentionCall(tuple(batch)) for batch in batches.values())


def _shared(keys: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The positions that are in all of them."""
    shared = keys[0]
    for other in keys[1:]:
        shared = subtract_slices(shared, subtract_slices(shared, other))
    return shared
