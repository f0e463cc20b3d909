"""Which token of the joint sequence belongs to which scene.

Owns the order `[text 1 … text n, video 1 … video n]`. Knows nothing of pixels (video_shape) or of who may attend to whom (plans).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mask2dit.errors import InputError


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """Token counts per scene in the joint sequence [all text | all video]."""

    text_lengths: tuple[int, ...]
    video_lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.text_lengths) != len(self.video_lengths) or not self.text_lengths:
            raise InputError(
                f"a layout needs one text length and one video length per scene, got {len(self.text_lengths)} text lengths and "
                f"{len(self.video_lengths)} video lengths; give both for each of one or more scenes"
            )
        if min(self.text_lengths) < 0 or min(self.video_lengths) < 1:
            raise InputError(
                f"token counts must be 0 or more for text and 1 or more for video, got text {self.text_lengths} and "
                f"video {self.video_lengths}; give one count per scene"
            )

    @property
    def num_scenes(self) -> int:
        """The number of scenes, S."""
        return len(self.text_lengths)

    @property
    def num_text_tokens(self) -> int:
        """Text tokens of all scenes: where the video begins."""
        return sum(self.text_lengths)

    @property
    def num_video_tokens(self) -> int:
        """Video tokens of all scenes."""
        return sum(self.video_lengths)

    @property
    def num_tokens(self) -> int:
        """Length of the joint sequence."""
        return self.num_text_tokens + self.num_video_tokens

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Tokens of each segment in the order of the joint sequence: the captions, then the videos."""
        return self.text_lengths + self.video_lengths

    def text(self, scene: int) -> slice:
        """Positions of one scene's caption in the joint sequence."""
        stop = sum(self.text_lengths[: scene + 1])
        return slice(stop - self.text_lengths[scene], stop)

    def video(self, scene: int) -> slice:
        """Positions of one scene's video segment in the joint sequence."""
        stop = self.num_text_tokens + sum(self.video_lengths[: scene + 1])
        return slice(stop - self.video_lengths[scene], stop)


def join_slices(slices: Sequence[slice]) -> tuple[slice, ...]:
    """The same positions in as few slices as possible, in ascending order."""
    joined: list[slice] = []
    for piece in sorted(slices, key=lambda piece: piece.start):
        if joined and joined[-1].stop == piece.start:
            joined[-1] = slice(joined[-1].start, piece.stop)
        else:
            joined.append(piece)
    return tuple(joined)


def subtract_slices(slices: Sequence[slice], others: Sequence[slice]) -> tuple[slice, ...]:
    """The positions of `slices` that are in none of `others`, in ascending order."""
    left = list(slices)
    for other in others:
        pieces = [(piece.start, min(piece.stop, other.start)) for piece in left]
        pieces += [(max(piece.start, other.stop), piece.stop) for piece in left]
        left = [slice(start, stop) for start, stop in pieces if start < stop]
    return join_slices(left)
