"""SCA, shot cut accuracy: whether a film is cut where it was asked to be.

exp(−NSD), NSD = (Σ |found − asked| over matched cuts + price × cuts missed or unwanted) / frames of the film. Cuts are matched one to one
so that the sum is least, at most half a scene apart; the price is the film's mean scene length. Source: HoloCine (2025) gives the form
with a fixed price; the price is ours, and `cuts.PRICE`. Which detector found the cuts stands beside the number.
"""

from mask2dit.cuts import PRICE, detector
from mask2dit.evaluation.facts import FilmFacts, Value
from mask2dit.evaluation.metrics.base import FilmMetric


def cut_instrument() -> str:
    """The detector, and the price."""
    return f"{detector()}; a missed or unwanted cut costs {PRICE:g} mean scene length"


NOT_ASKED = "where the cuts were asked for is not known; name it with --cuts"


def _measure(film: FilmFacts, extractor: str) -> Value:
    if film.look.cuts_are == "detected":
        return Value(None, reason=NOT_ASKED)
    return Value(film.look.check.sca, len(film.look.check.asked) or 1)


METRIC = FilmMetric(
    "sca",
    "Shot cut accuracy (SCA)",
    "",
    "higher",
    _measure,
    parts="cuts",
    instrument=cut_instrument,
    about="exp(−NSD): 1 where every cut lies where it was asked for and no other is there",
)
