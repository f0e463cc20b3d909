"""The metrics, one per file, in the order in which tables show them."""

from mask2dit.evaluation.metrics import (
    background_consistency,
    colour_drift,
    contrast_drift,
    diversity,
    dynamic_degree,
    frechet_video_distance,
    inter_scene_consistency,
    semantic_consistency,
    sequence_consistency,
    shot_cut_accuracy,
    subject_consistency,
    transition_confidence,
    transition_deviation,
    visual_consistency,
)
from mask2dit.evaluation.metrics.base import FilmMetric, Metric, SetMetric

__all__ = ["METRICS", "FilmMetric", "Metric", "SetMetric"]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        visual_consistency.METRIC,
        semantic_consistency.METRIC,
        sequence_consistency.METRIC,
        subject_consistency.METRIC,
        background_consistency.METRIC,
        inter_scene_consistency.METRIC,
        dynamic_degree.METRIC,
        diversity.METRIC,
        shot_cut_accuracy.METRIC,
        transition_deviation.METRIC,
        transition_confidence.METRIC,
        frechet_video_distance.METRIC,
        colour_drift.METRIC,
        contrast_drift.METRIC,
    )
}
