"""Real components, tiny and random: a transformer, a VAE, a text encoder with its tokenizer, and a whole model folder of them."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
from safetensors.torch import load_file

from mask2dit import Mask2DiTPipeline, Mask2DiTTransformer3DModel, SceneLayout

GOLDEN = Path(__file__).parent / "fixtures" / "golden"


def golden(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def golden_config(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())["config"]


def released_transformer() -> Mask2DiTTransformer3DModel:
    """The tiny transformer whose vectors were recorded from the released classes."""
    config = {key: value for key, value in golden_config("tiny_transformer").items() if key != "add_noise_in_inpaint_model"}
    model = Mask2DiTTransformer3DModel.from_config(config)
    model.load_state_dict(golden("tiny_transformer"))
    return model.eval()


def released_vae() -> AutoencoderKLCogVideoX:
    vae = AutoencoderKLCogVideoX.from_config(released_vae_config())
    vae.load_state_dict(golden("tiny_vae"))
    return vae.eval()


def released_vae_config() -> dict:
    config = dict(golden_config("tiny_vae"))
    levels = len(config["block_out_channels"])
    return config | {
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
    }


def released_scheduler() -> CogVideoXDDIMScheduler:
    config = json.loads((GOLDEN / "scheduler.json").read_text())["config"]
    return CogVideoXDDIMScheduler.from_config(config)


TRANSFORMER_CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 24,
    "text_embed_dim": 20,
    "num_layers": 3,
    "sample_width": 6,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 16,
}


def transformer(seed: int = 0, **changes: object) -> Mask2DiTTransformer3DModel:
    """A random transformer; every parameter is random, so that nothing is hidden by a zero."""
    model = Mask2DiTTransformer3DModel.from_config(TRANSFORMER_CONFIG | changes)
    return randomise(model, seed)


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") and parameter.ndim == 1 else 0.0
            spread = parameter.shape[1] ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def inputs(
    model: Mask2DiTTransformer3DModel, text_lengths: tuple[int, ...], frames: tuple[int, ...], batch: int = 2, seed: int = 1
) -> dict:
    """Random arguments of `forward` for scenes of `frames` latent frames."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    height, width = config.sample_height, config.sample_width
    per_frame = (height // config.patch_size) * (width // config.patch_size)
    return {
        "hidden_states": torch.randn(batch, sum(frames), config.in_channels, height, width, generator=generator),
        "encoder_hidden_states": torch.randn(batch, sum(text_lengths), config.text_embed_dim, generator=generator),
        "timestep": torch.randint(0, 1000, (batch, len(frames)), generator=generator),
        "layout": SceneLayout(text_lengths, tuple(count * per_frame for count in frames)),
    }


def vae(seed: int = 0) -> AutoencoderKLCogVideoX:
    """A random VAE: 4 latent channels, 4 times smaller in space and in time."""
    model = AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 8),
        down_block_types=("CogVideoXDownBlock3D",) * 3,
        up_block_types=("CogVideoXUpBlock3D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
        sample_height=16,
        sample_width=24,
    )
    randomise(model, seed)
    with torch.no_grad():
        model.decoder.conv_out.conv.weight.mul_(0.03)  # most pixels within -1..1
    return model


def pipeline(seed: int = 0) -> Mask2DiTPipeline:
    """A random pipeline: 16 × 24 pixels, 9 frames per scene, 64 tokens per caption, two steps."""
    from transformers import T5Config, T5EncoderModel

    from mask2dit.playhouse.captions import words
    from mask2dit.playhouse.tokenizer import build_tokenizer

    denoiser = transformer(seed, max_text_seq_length=64)
    tokenizer = build_tokenizer(words(), denoiser.config.max_text_seq_length)
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=denoiser.config.text_embed_dim,
            d_kv=10,
            d_ff=40,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    made = Mask2DiTPipeline(
        tokenizer,
        randomise(text_encoder, seed),
        vae(seed),
        denoiser,
        released_scheduler(),
        window=3,
        known_sets="any",
        height=16,
        width=24,
        num_frames=9,
        fps=8,
        num_inference_steps=2,
        guidance_scale=3.0,
        negative_prompt="",
    )
    made.set_progress_bar_config(disable=True)
    made.transformer.set_attention()  # as load_pipeline does
    return made


def save_pipeline(folder: Path, seed: int = 0) -> Path:
    """Write the random pipeline as a model folder."""
    pipeline(seed).save_pretrained(folder)
    # transformers 5 would write a tokenizer class that transformers 4 does not know.
    for name, change in (
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("model_index.json", {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]}),
    ):
        path = Path(folder, name)
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change, indent=2) + "\n", encoding="utf-8")
    return Path(folder)
