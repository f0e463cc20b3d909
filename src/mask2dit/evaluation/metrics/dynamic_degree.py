"""Dynamic degree: how much moves in a scene. Beside every consistency, for a still film is perfectly consistent.

The speed of the fastest 5 % of a picture's points (`mask2dit.motion`), eight pictures a second; the mean over scenes. VBench (CVPR 2024)
takes the same 5 % of RAFT's flow and asks whether they pass a threshold; ours is the speed itself.
"""

from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import FilmMetric
from mask2dit.motion import flow_instrument


def _measure(film: FilmFacts, extractor: str) -> Value:
    return Value.mean([scene.motion for scene in film.look.scenes if scene.motion is not None], "no scene has two pictures")


METRIC = FilmMetric(
    "dynamic-degree",
    "Dynamic degree",
    "% of the picture per second",
    "neither",
    _measure,
    instrument=flow_instrument,
    about="speed of the fastest 5 % of a picture, by optical flow",
)
