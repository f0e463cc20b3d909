import json

import numpy as np
import pytest

from mask2dit.errors import Mask2DiTError
from mask2dit.playhouse.footage import FootageTruth, footage, plan_footage, read_truth, write_footage
from mask2dit.video_files import read_video

SIZE = {"height": 32, "width": 48}


def test_the_truth_matches_the_frames():
    truth = plan_footage(range(5), "A", shot_lengths=(5, 9), **SIZE)
    shots = list(footage(truth))
    assert [len(shot) for shot in shots] == [shot.num_frames for shot in truth.shots] and len({len(shot) for shot in shots}) == 2
    frames = np.concatenate(shots).astype(float)
    assert frames.shape == (truth.num_frames, 32, 48, 3)
    jumps = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    found = 1 + np.sort(np.argsort(jumps)[-len(truth.cuts) :])
    assert tuple(found) == truth.cuts


def test_shots_of_a_story_belong_together():
    truth = plan_footage([8, 3], "B", num_scenes=4)
    assert truth.groups == ((0, 1, 2, 3), (4, 5, 6, 7)) and [shot.seed for shot in truth.shots] == [8] * 4 + [3] * 4
    assert all(shot.caption for shot in truth.shots)


def test_written_footage_has_its_truth_beside_it(tmp_path):
    truth = plan_footage([1, 2], "A", num_scenes=2, **SIZE)
    path = tmp_path / "footage.mp4"
    write_footage(path, truth)
    assert read_truth(path) == truth == FootageTruth.from_data(json.loads(json.dumps(truth.to_data())))
    shown = read_video(path)
    assert shown.shape == (truth.num_frames, 32, 48, 3)
    assert np.abs(shown.astype(float) - np.concatenate(list(footage(truth)))).mean() < 8.0


def test_wrong_wishes_are_refused(tmp_path):
    with pytest.raises(Mask2DiTError, match="no seeds"):
        plan_footage([])
    with pytest.raises(Mask2DiTError, match="at least 1"):
        plan_footage([1], shot_lengths=(0,))
    with pytest.raises(Mask2DiTError, match="write the footage again"):
        read_truth(tmp_path / "none.mp4")
