"""Films of several scenes from a storyboard, with Mask²DiT.

The public names are imported when they are first used, so that `import mask2dit` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mask2dit.errors import Mask2DiTError
    from mask2dit.loading import load_pipeline
    from mask2dit.pipeline import Mask2DiTPipeline
    from mask2dit.scene_layout import SceneLayout
    from mask2dit.storyboard import Storyboard
    from mask2dit.transformer import Mask2DiTTransformer3DModel

__version__ = "0.1.0"

_HOMES = {
    "Mask2DiTError": "mask2dit.errors",
    "Mask2DiTPipeline": "mask2dit.pipeline",
    "Mask2DiTTransformer3DModel": "mask2dit.transformer",
    "SceneLayout": "mask2dit.scene_layout",
    "Storyboard": "mask2dit.storyboard",
    "load_pipeline": "mask2dit.loading",
}

__all__ = ["Mask2DiTError", "Mask2DiTPipeline", "Mask2DiTTransformer3DModel", "SceneLayout", "Storyboard", "load_pipeline"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mask2dit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
