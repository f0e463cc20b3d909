"""The transformer: CogVideoX's, with its parameter names, over several scenes at once.

Read `Mask2DiTTransformer3DModel.forward` first: it shows the whole. What differs from CogVideoX is that there is one timestep per scene
(modulation) and that attention follows a plan (plans, attention). With one scene it is CogVideoX, bit for bit.
"""

from collections.abc import Sequence, Set
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin, FeedForward
from diffusers.models.attention_dispatch import attention_backend
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import CogVideoXPatchEmbed, TimestepEmbedding, Timesteps
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

from mask2dit._diffusers_private import register_cached_block
from mask2dit.attention import GroupedAttnProcessor, SceneAttention, SceneAttnProcessor
from mask2dit.attention_backends import BACKENDS, choose_attention
from mask2dit.context_cache import ContextCache, LayerContext
from mask2dit.errors import InputError, ModelError
from mask2dit.modulation import SceneAdaLayerNorm, SceneLayerNormZero, add_gated
from mask2dit.plans import AttentionPattern, get_plan
from mask2dit.rope import joint_table, rotary_table
from mask2dit.scene_layout import SceneLayout
from mask2dit.sequence_parallel import SequenceParallel
from mask2dit.sinusoidal import Tables, add_positions, sinusoidal_tables


class Mask2DiTBlock(nn.Module):
    """Attention, then feed-forward, over the joint sequence: the text of all scenes, then their video."""

    def __init__(
        self,
        dim: int,
        num_attention_heads: int,
        attention_head_dim: int,
        time_embed_dim: int,
        dropout: float,
        activation_fn: str,
        attention_bias: bool,
        norm_elementwise_affine: bool,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.norm1 = SceneLayerNormZero(time_embed_dim, dim, norm_elementwise_affine, norm_eps)
        self.attn1 = SceneAttention(dim, num_attention_heads, attention_head_dim, attention_bias)
        self.norm2 = SceneLayerNormZero(time_embed_dim, dim, norm_elementwise_affine, norm_eps)
        self.ff = FeedForward(dim, dropout=dropout, activation_fn=activation_fn, final_dropout=True)

    def forward(
        self,
        hidden_states: Tensor,
        temb: Tensor,
        lengths: tuple[int, ...],
        pattern: AttentionPattern,
        image_rotary_emb: tuple[Tensor, Tensor] | None,
        context: LayerContext | None = None,
    ) -> Tensor:
        """Joint sequence [B, N, D] in 2·S segments of `lengths`, temb [B, S, time_embed_dim] → the joint sequence."""
        joint, gate = self.norm1(hidden_states, temb, lengths)
        hidden_states = add_gated(hidden_states, self.attn1(joint, pattern, image_rotary_emb, context), gate, lengths)
        joint, gate = self.norm2(hidden_states, temb, lengths)
        return add_gated(hidden_states, self.ff(joint), gate, lengths)


class Mask2DiTTransformer3DModel(ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin, CacheMixin):  # type: ignore[misc]
    """Mask²DiT's denoiser (paper, section 3). The configuration has CogVideoX's names and the 5B values as defaults.

    `attention_plan` is one of `mask2dit.plans.PLANS`. Positions are rotary (5B, the paper's), or sinusoidal as in CogVideoX-2b; either way
    time runs on over all scenes. With sinusoidal positions that is our own definition, and frames beyond those of one scene, which is all
    that the 2B weights know, extrapolate. Raises ModelError for CogVideoX variants that it cannot compute: learned positions
    (CogVideoX-5b-I2V), patches over time (1.5), the offset embedding (1.5 image-to-video), and inputs that hold more than the latents
    (image-to-video, CogVideoX-Fun InP).
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Mask2DiTBlock", "CogVideoXPatchEmbed"]  # noqa: RUF012 - diffusers' protocol, as the next two
    _repeated_blocks = ["Mask2DiTBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["patch_embed", "norm"]  # noqa: RUF012

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_attention_heads: int = 48,
        attention_head_dim: int = 64,
        in_channels: int = 16,
        out_channels: int = 16,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        time_embed_dim: int = 512,
        ofs_embed_dim: int | None = None,
        text_embed_dim: int = 4096,
        num_layers: int = 42,
        dropout: float = 0.0,
        attention_bias: bool = True,
        sample_width: int = 90,
        sample_height: int = 60,
        sample_frames: int = 49,
        patch_size: int = 2,
        patch_size_t: int | None = None,
        temporal_compression_ratio: int = 4,
        max_text_seq_length: int = 226,
        activation_fn: str = "gelu-approximate",
        timestep_activation_fn: str = "silu",
        norm_elementwise_affine: bool = True,
        norm_eps: float = 1e-5,
        spatial_interpolation_scale: float = 1.875,
        temporal_interpolation_scale: float = 1.0,
        use_rotary_positional_embeddings: bool = True,
        use_learned_positional_embeddings: bool = False,
        patch_bias: bool = True,
        attention_plan: str = "symmetric",
    ) -> None:
        super().__init__()
        _refuse_other_variants(use_learned_positional_embeddings, patch_size_t, ofs_embed_dim)
        if in_channels != out_channels:
            raise ModelError(
                f"in_channels: got {in_channels} with out_channels {out_channels} (CogVideoX-Fun InP has 33, image-to-video 32), expected "
                "the same; use text-to-video weights, or --inp to cut an InP model to the latents' channels"
            )
        dim = num_attention_heads * attention_head_dim
        if not use_rotary_positional_embeddings and dim % 16:
            raise ModelError(
                f"num_attention_heads × attention_head_dim: got {dim}, expected a multiple of 16 for sinusoidal positions; change either"
            )
        self._plan = get_plan(attention_plan)

        self.patch_embed = CogVideoXPatchEmbed(
            patch_size=patch_size,
            in_channels=in_channels,
            embed_dim=dim,
            text_embed_dim=text_embed_dim,
            bias=patch_bias,
            use_positional_embeddings=False,  # added in `forward`, as theirs is a whole table and made for one text length
            use_learned_positional_embeddings=False,
        )
        self.embedding_dropout = nn.Dropout(dropout)
        self.time_proj = Timesteps(dim, flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(dim, time_embed_dim, timestep_activation_fn)
        self.transformer_blocks = nn.ModuleList(
            Mask2DiTBlock(
                dim=dim,
                num_attention_heads=num_attention_heads,
                attention_head_dim=attention_head_dim,
                time_embed_dim=time_embed_dim,
                dropout=dropout,
                activation_fn=activation_fn,
                attention_bias=attention_bias,
                norm_elementwise_affine=norm_elementwise_affine,
                norm_eps=norm_eps,
            )
            for _ in range(num_layers)
        )
        self.norm_final = nn.LayerNorm(dim, norm_eps, norm_elementwise_affine)
        self.norm_out = SceneAdaLayerNorm(time_embed_dim, dim, norm_elementwise_affine, norm_eps)
        self.proj_out = nn.Linear(dim, patch_size * patch_size * out_channels)
        self.gradient_checkpointing = False
        self.is_compiled = False
        self._sequence: SequenceParallel | None = None

    def set_attention_plan(self, name: str) -> None:
        """Choose who may meet across scenes, by the plan's name; InputError names the choices. Saved with the configuration."""
        self._plan = get_plan(name)
        self.register_to_config(attention_plan=name)

    @property
    def shares_sequence(self) -> bool:
        """Whether this process holds a part of the tokens only; see `share_sequence`."""
        return self._sequence is not None

    @property
    def is_context_blind(self) -> bool:
        """Whether known scenes see no generated one, so that what they are to these can be kept from step to step."""
        return not self._plan.known_reads_generated

    def set_attention(self, name: str = "auto", device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> str:
        """Choose how attention is computed: "auto", "grouped", "merged", "flex", or groups by a kernel of diffusers. Returns the choice.

        All are exact. device, dtype: where the model will compute, and in which numbers, such as autocast's; None is where it lies, and its
        own. Raises InputError for an unknown name, or one that the device lacks.
        """
        place = torch.device(device) if device is not None else self.device
        chosen = choose_attention(name, place, dtype or self.dtype, self.config.attention_head_dim)
        kind = BACKENDS.get(chosen, GroupedAttnProcessor)
        for attention in self._attentions():
            if type(attention.processor) is not kind or attention.processor._attention_backend is not None:
                attention.set_processor(kind())  # type: ignore[operator]  # a mixin without types
        if chosen not in BACKENDS:
            with attention_backend("native"):  # for this model alone: diffusers makes it everybody's
                super().set_attention_backend(chosen)
        return chosen

    def set_attention_backend(self, backend: str) -> None:
        """Choose one of diffusers' kernels by its name, also one that is not exact. Attention is grouped then: others do not call them."""
        self.set_attention("grouped")
        super().set_attention_backend(backend)

    def compile_repeated_blocks(self, *args: Any, **kwargs: Any) -> None:
        """Compile every block's forward, which is one code for all of them; see torch.compile.

        Unlike in diffusers, what hooks do around a block stays outside of it, if they are attached later; and each layout has its own
        kernels (dynamic=False), for with lengths as symbols they would compute slower and be compiled as often.
        """
        compiled = torch.compile(Mask2DiTBlock.forward, *args, **{"dynamic": False} | kwargs)
        for block in self.transformer_blocks:
            block.forward = MethodType(compiled, block)  # a method, for a deep copy takes it along to the copied block
        self.is_compiled = True

    def share_sequence(self, group: Any = None) -> None:
        """Share the tokens, and in attention the heads, among the processes of a group; None is all of them. All call the model alike.

        Raises InputError where the heads do not divide by the processes.
        """
        self.take_share(SequenceParallel.join(self.config.num_attention_heads, group))

    def take_share(self, sequence: SequenceParallel) -> None:
        """Hold this process's tokens of a sequence, and in attention its heads."""
        self._sequence = sequence
        for attention in self._attentions():
            attention.sequence = sequence

    def enable_parallelism(self, *, config: Any, cp_plan: Any = None) -> None:
        """Diffusers' way to ask for it: a ContextParallelConfig with a ulysses_degree, and maybe a mesh, becomes `share_sequence`.

        Diffusers' own split would cut through scenes. Raises InputError for ring attention and for a plan of one's own.
        """
        context = getattr(config, "context_parallel_config", None) or config
        degree, ring = getattr(context, "ulysses_degree", None), getattr(context, "ring_degree", None)
        if cp_plan is not None or not degree or degree < 2 or (ring or 1) > 1:
            raise InputError(
                f"enable_parallelism: got {type(config).__name__} with ulysses_degree {degree} and ring_degree {ring}, expected a "
                "ContextParallelConfig with ulysses_degree of at least 2, no ring and no cp_plan, which would lose the scene pattern"
            )
        if not dist.is_initialized() or dist.get_world_size() % degree:
            world = dist.get_world_size() if dist.is_initialized() else 1
            number = f"{world} process{'es' * (world > 1)}"
            raise InputError(
                f"enable_parallelism: got ulysses_degree {degree} for {number}, expected a divisor of their number; start "
                f"a multiple of {degree} processes, with torchrun"
            )
        if (mesh := getattr(context, "mesh", None)) is not None:
            if "ulysses" not in (mesh.mesh_dim_names or ()) or mesh["ulysses"].size() != degree:
                raise InputError(f"enable_parallelism: got {mesh}, expected one with {degree} processes along a dimension named ulysses")
            self.share_sequence(mesh["ulysses"].get_group())
            return
        groups = [dist.new_group(range(first, first + degree)) for first in range(0, dist.get_world_size(), degree)]
        self.share_sequence(groups[dist.get_rank() // degree])

    def _prepare(self, pattern: AttentionPattern, joint: Tensor) -> None:
        """Let the layers' processor, where it is one of ours, get ready for the pattern once for all of them."""
        place = joint.device.type
        numbers = joint.dtype
        if torch.amp.is_autocast_available(place) and torch.is_autocast_enabled(place):
            numbers = torch.get_autocast_dtype(place)
        processor = next((block.attn1.processor for block in self.transformer_blocks), None)  # type: ignore[union-attr]
        if isinstance(processor, SceneAttnProcessor):
            processor.prepare(pattern, joint.device, numbers, self.config.attention_head_dim)

    def _attentions(self) -> list[SceneAttention]:
        return [module for module in self.transformer_blocks.modules() if isinstance(module, SceneAttention)]

    @apply_lora_scale("attention_kwargs")  # type: ignore[untyped-decorator]
    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        layout: SceneLayout,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        *,
        known_scenes: Set[int] | Sequence[Set[int]] = frozenset(),
        context: ContextCache | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict v for the latents of all scenes.

        hidden_states [B, F, C, H, W]: latents joined on time. encoder_hidden_states [B, ΣL, E]: captions laid end to end.
        timestep [B], or [B, S] for one per scene: 0 = this scene is known and clean. layout: tokens per scene. image_rotary_emb:
        (cos, sin), each [ΣV, d]; None builds it from the latent size; sinusoidal positions have none and are always built.
        attention_kwargs: {"scale": …} scales LoRA layers. known_scenes: indices, one set or one per sample, for a plan that asks which they
        are. context: keys and values of known scenes: a first call with these scenes alone fills it, and in calls with the others, their
        video reads it; image_rotary_emb has the rows of the scenes that are given then.
        Returns `.sample` [B, F, C, H, W]. Raises InputError where these disagree.
        """
        del attention_kwargs  # the decorator has used it
        known = self._asked_set(known_scenes, len(hidden_states), layout.num_scenes)
        if known is None:
            samples = (torch.split(each, 1) for each in (hidden_states, encoder_hidden_states, timestep))
            inputs = zip(*samples, known_scenes, strict=True)
            rest = {"image_rotary_emb": image_rotary_emb, "return_dict": False}
            made = [self.forward(*sample, layout=layout, known_scenes=own, **rest)[0] for *sample, own in inputs]
            return Transformer2DModelOutput(sample=torch.cat(made)) if return_dict else (torch.cat(made),)
        _, num_frames, _, height, width = hidden_states.shape
        patch = self.config.patch_size
        grid = (height // patch, width // patch)
        self._check(hidden_states, encoder_hidden_states, timestep, layout, image_rotary_emb)
        if context is not None and context.num_layers != len(self.transformer_blocks):
            raise InputError(f"context: got one for {context.num_layers} layers, expected {len(self.transformer_blocks)}")
        if context is not None and (self._plan.known_reads_generated or image_rotary_emb is None):
            raise InputError(
                f"context: got one with the plan {self._plan.name} and {'no' if image_rotary_emb is None else 'a'} rotary table, expected "
                "the plan context-blind, under which it is exact, and the rows of the scenes that are given"
            )

        temb = self._embed_time(timestep, layout.num_scenes, hidden_states.dtype)  # [B, S, time_embed_dim]
        joint = self.patch_embed(encoder_hidden_states, hidden_states)  # [B, ΣL + ΣV, D]
        if not self.config.use_rotary_positional_embeddings:
            joint = add_positions(joint, layout.num_text_tokens, self._sinusoidal_tables(num_frames, grid))
        joint = self.embedding_dropout(joint)
        if image_rotary_emb is None:
            image_rotary_emb = self.rotary_table(num_frames, grid, hidden_states.device)
        rotary = joint_table(image_rotary_emb, layout.num_text_tokens)  # (cos, sin), each [ΣL + ΣV, d]
        lengths = layout.segment_lengths
        if self._sequence is not None:  # from here on this process's tokens
            own, lengths = self._sequence.share(layout.num_tokens), self._sequence.lengths(lengths)
            joint, rotary = joint[:, own], rotary and (rotary[0][own], rotary[1][own])
        pattern = self._plan.pattern(layout, known, context.num_tokens if context else 0)
        self._prepare(pattern, joint)
        contexts = context.layers(layout.num_text_tokens, layout.num_video_tokens) if context else [None] * len(self.transformer_blocks)

        for block, kept in zip(self.transformer_blocks, contexts, strict=True):
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                joint = self._gradient_checkpointing_func(block, joint, temb, lengths, pattern, rotary, kept)
            else:
                joint = block(joint, temb, lengths, pattern, rotary, kept)
        if context is not None:
            context.is_filled = True

        texts, videos = lengths[: layout.num_scenes], lengths[layout.num_scenes :]
        video = self.norm_out(self.norm_final(joint[:, sum(texts) :]), temb, videos)  # [B, ΣV, D]
        patches = self.proj_out(video)
        if self._sequence is not None:
            patches = self._sequence.gather(patches, layout.num_tokens, layout.num_text_tokens)
        patches = patches.unflatten(1, (num_frames, *grid)).unflatten(4, (-1, patch, patch))  # [B, F, rows, columns, C, p, p]
        output = patches.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)  # [B, F, C, H, W]
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _asked_set(self, known_scenes: Set[int] | Sequence[Set[int]], batch: int, num_scenes: int) -> Set[int] | None:
        """The known scenes that the plan asks for; None where each sample has its own, also if these happen to be the same.

        For processes that share weights must call the blocks equally often, whatever their samples are.
        """
        sets = [known_scenes] if isinstance(known_scenes, Set) else known_scenes
        if len(sets) not in (1, batch) or (len(sets) == 1 != batch and sets is known_scenes):
            raise InputError(f"known_scenes: got {len(sets)} sets for {batch} samples, expected one for all, or one for each")
        for each in sets:
            if not each <= set(range(num_scenes)):
                raise InputError(f"known_scenes: got {sorted(each)}, expected indices from 0 to {num_scenes - 1}")
        if self._plan.known_reads_generated:
            return frozenset()
        return sets[0] if len(sets) == 1 else None

    def rotary_table(
        self, num_latent_frames: int, grid: tuple[int, int], device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """(cos, sin), each [ΣV, d], for `num_latent_frames` of all scenes and a grid of (rows, columns) patches.

        None for a model with sinusoidal positions, where nothing is rotated.
        """
        if not self.config.use_rotary_positional_embeddings:
            return None
        patch = self.config.patch_size
        base_grid = (self.config.sample_height // patch, self.config.sample_width // patch)
        return rotary_table(num_latent_frames, grid, base_grid, self.config.attention_head_dim, device)

    def _sinusoidal_tables(self, num_latent_frames: int, grid: tuple[int, int]) -> Tables:
        dim = self.config.num_attention_heads * self.config.attention_head_dim
        scales = self.config.spatial_interpolation_scale, self.config.temporal_interpolation_scale
        return sinusoidal_tables(num_latent_frames, grid, dim, *scales)

    def _embed_time(self, timestep: Tensor, num_scenes: int, dtype: torch.dtype) -> Tensor:
        if timestep.ndim == 1:
            timestep = timestep[:, None].expand(-1, num_scenes)
        sinusoid = self.time_proj(timestep.flatten()).to(dtype)  # [B·S, D], from float32
        return self.time_embedding(sinusoid).unflatten(0, timestep.shape)  # type: ignore[no-any-return]

    def _check(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        timestep: Tensor,
        layout: SceneLayout,
        image_rotary_emb: tuple[Tensor, Tensor] | None,
    ) -> None:
        batch, num_frames, _, height, width = hidden_states.shape
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise InputError(f"hidden_states: got {height} × {width} latent cells, expected multiples of the patch size {patch}")
        num_video_tokens = num_frames * (height // patch) * (width // patch)
        if layout.num_video_tokens != num_video_tokens:
            raise InputError(f"layout: got {layout.num_video_tokens} video tokens, expected {num_video_tokens} for these latents")
        if layout.num_text_tokens != encoder_hidden_states.shape[1]:
            raise InputError(
                f"layout: got {layout.num_text_tokens} text tokens, expected {encoder_hidden_states.shape[1]} as in the captions"
            )
        if timestep.shape not in ((batch,), (batch, layout.num_scenes)):
            raise InputError(f"timestep: got shape {tuple(timestep.shape)}, expected ({batch},) or ({batch}, {layout.num_scenes})")
        if image_rotary_emb is not None and not self.config.use_rotary_positional_embeddings:
            raise InputError("image_rotary_emb: got a table for a model with sinusoidal positions, expected None")
        if image_rotary_emb is not None and len(image_rotary_emb[0]) != num_video_tokens:
            raise InputError(f"image_rotary_emb: got {len(image_rotary_emb[0])} rows, expected {num_video_tokens}, one per video token")


def _refuse_other_variants(learned: bool, patch_size_t: int | None, ofs_embed_dim: int | None) -> None:
    remedy = "use text-to-video weights of CogVideoX-5b or CogVideoX-2b"
    if learned:
        raise ModelError(f"use_learned_positional_embeddings: got true (image-to-video, CogVideoX-5b-I2V), expected false; {remedy}")
    if patch_size_t is not None:
        raise ModelError(f"patch_size_t: got {patch_size_t} (CogVideoX 1.5), expected none; {remedy}")
    if ofs_embed_dim is not None:
        raise ModelError(f"ofs_embed_dim: got {ofs_embed_dim} (CogVideoX 1.5 image-to-video), expected none; {remedy}")


register_cached_block(Mask2DiTBlock)
