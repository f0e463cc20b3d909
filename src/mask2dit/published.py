"""The sizes of published models, for what is counted before anything is downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX

from mask2dit.film_request import ModelValues
from mask2dit.model_folder import default_values
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression

TEXT_ENCODER = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"}  # T5 v1.1 XXL
COMPRESSION = Compression(spatial=8, temporal=4, patch=2)
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, slots=True)
class Published:
    """A model on the Hub. `window`: scenes at once in training; `dtype`: of its weights; `transformer`: what differs from the 5B."""

    hub_id: str
    window: int
    dtype: torch.dtype
    transformer: Mapping[str, Any] = field(default_factory=dict)

    def networks(self) -> tuple[Any, Any, Any]:
        """Transformer, VAE and text encoder on the meta device, new each time."""
        from transformers import T5Config, T5EncoderModel

        with torch.device("meta"):  # the defaults of the first two are CogVideoX-5b's
            transformer, vae = Mask2DiTTransformer3DModel(**self.transformer), AutoencoderKLCogVideoX()
            text_encoder = T5EncoderModel(T5Config.from_dict(TEXT_ENCODER))
        return transformer.eval(), vae.eval(), text_encoder.eval()

    def values(self) -> ModelValues:
        """Size, steps and the like, of which published folders say nothing: those that every released model is used with."""
        return ModelValues(**default_values() | {"window": self.window}, compression=COMPRESSION)


MASK2DIT = Published("qth/Mask2DiT", window=3, dtype=torch.bfloat16)
COGVIDEOX_5B = Published("zai-org/CogVideoX-5b", window=1, dtype=torch.bfloat16)
COGVIDEOX_2B = Published(
    "zai-org/CogVideoX-2b",
    window=1,
    dtype=torch.float16,
    transformer={"num_attention_heads": 30, "num_layers": 30, "use_rotary_positional_embeddings": False},
)
MODELS = (MASK2DIT, COGVIDEOX_5B, COGVIDEOX_2B)


def published(name: str) -> Published | None:
    """What was published under a Hub id; None where that is not known here."""
    return next((model for model in MODELS if model.hub_id.lower() == name.lower()), None)
