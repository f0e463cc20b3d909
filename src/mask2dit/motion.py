"""How much moves in a scene.

The speed of the fastest 5 % of a picture's points, in percent of its longer side per second: dense optical flow (Farnebäck, 2003, as in
OpenCV) between consecutive pictures, 128 pixels on the longer side; the mean over pairs of pictures. Pictures are blurred a little, and a
point near which nothing changes by more than `STILL` counts as still: an encoder's noise has flow, too. In smooth areas, where flow is
least certain, strong compression still raises it.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 128  # pixels
FASTEST = 0.05  # share of a picture's points
BLUR = 1.0  # standard deviation in pixels
STILL, NEAR = 4.0, 5  # of 255 levels; pixels


def motion(pictures: NDArray[np.uint8], per_second: float) -> float | None:
    """Of a scene's pictures [T, Y, X, 3], so many a second; None for one picture."""
    import cv2

    if len(pictures) < 2:
        return None
    height, width = pictures.shape[1:3]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = (np.asarray(Image.fromarray(picture).convert("L").resize(size, Image.Resampling.BOX)) for picture in pictures)
    grey = [cv2.GaussianBlur(picture, (0, 0), BLUR) for picture in small]
    speeds = []
    for one, other in pairwise(grey):
        start = np.zeros((*one.shape, 2), np.float32)
        flow = cv2.calcOpticalFlowFarneback(one, other, start, 0.5, 3, 15, 3, 5, 1.2, 0)
        changed = cv2.dilate(cv2.absdiff(one, other), np.ones((NEAR, NEAR), np.uint8)) > STILL
        lengths = np.sort(np.where(changed, np.linalg.norm(flow, axis=2), 0), axis=None)
        speeds.append(float(lengths[-max(1, round(FASTEST * lengths.size)) :].mean()))
    return 100 * per_second * float(np.mean(speeds)) / float(max(size))


def flow_instrument() -> str:
    """The flow, and what of it counts."""
    import cv2

    about = f"pictures of {LONGEST_SIDE} pixels, fastest {FASTEST:.0%}, blur {BLUR:g}, still below {STILL:g}"
    return f"Farnebäck's optical flow, OpenCV {cv2.__version__} ({about})"
