"""The named attention plans: which tokens meet which.

A plan says who may meet *across* scenes; inside a scene everything meets everything (paper, figure 2; `symmetric` is its mask). It is
turned into groups of queries that share their keys, so that no mask is ever built. Kernels belong to attention.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from mask2dit.errors import InputError
from mask2dit.scene_layout import SceneLayout, join_slices


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Queries that attend to the same keys: positions in the joint sequence."""

    queries: tuple[slice, ...]
    keys: tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Who may meet across scenes; the first word asks, the second is read."""

    name: str
    text_reads_text: bool
    text_reads_video: bool
    video_reads_text: bool
    video_reads_video: bool

    def groups(self, layout: SceneLayout) -> tuple[AttentionGroup, ...]:
        """The plan as query groups, each with all of its keys; together the queries are every token once."""
        return _groups(self, layout)


PLANS = {
    plan.name: plan
    for plan in (
        #             name                text→text text→video video→text video→video
        AttentionPlan("isolated", False, False, False, False),
        AttentionPlan("symmetric", False, False, False, True),
        AttentionPlan("shared-text", True, False, False, True),
        AttentionPlan("video-reads-text", False, False, True, True),
        AttentionPlan("full", True, True, True, True),
    )
}


def get_plan(name: str) -> AttentionPlan:
    """Look a plan up by its name; InputError names the choices."""
    try:
        return PLANS[name]
    except KeyError:
        raise InputError(f"plan: got {name!r}, expected one of {', '.join(PLANS)}") from None


@lru_cache(maxsize=128)
def _groups(plan: AttentionPlan, layout: SceneLayout) -> tuple[AttentionGroup, ...]:
    keys_seen: list[tuple[slice, ...]] = []  # not a dict: slices cannot be hashed before Python 3.12
    queries: list[list[slice]] = []
    for segment, keys in _segments(plan, layout):
        if segment.start == segment.stop:
            continue
        if keys not in keys_seen:
            keys_seen.append(keys)
            queries.append([])
        queries[keys_seen.index(keys)].append(segment)
    return tuple(AttentionGroup(join_slices(segments), keys) for segments, keys in zip(queries, keys_seen, strict=True))


def _segments(plan: AttentionPlan, layout: SceneLayout) -> Iterator[tuple[slice, tuple[slice, ...]]]:
    """Every segment of the joint sequence with the positions that it reads."""
    scenes = range(layout.num_scenes)
    for own in scenes:
        texts = [layout.text(other) for other in scenes if other == own or plan.text_reads_text]
        videos = [layout.video(other) for other in scenes if other == own or plan.text_reads_video]
        yield layout.text(own), join_slices(texts + videos)
    for own in scenes:
        texts = [layout.text(other) for other in scenes if other == own or plan.video_reads_text]
        videos = [layout.video(other) for other in scenes if other == own or plan.video_reads_video]
        yield layout.video(own), join_slices(texts + videos)
