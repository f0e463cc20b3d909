"""`Mask2DiTPipeline`: check, encode, denoise, decode.

Read `__call__` first. Generating, re-making, inserting and extending are one loop: scenes that are known have timestep 0 and are never
stepped. Files, seeds and films on disk belong to production.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import CogVideoXLoraLoaderMixin
from diffusers.utils import BaseOutput
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from mask2dit.denoising import Denoising
from mask2dit.errors import InputError
from mask2dit.film_request import FilmRequest, ModelValues, PerScene, Shortcuts, check_steps, resolve_request
from mask2dit.fingerprint import fingerprint
from mask2dit.latents import Generators, decode_latents, draw_noise, encode_frames, generator_per_scene
from mask2dit.memory import Choice
from mask2dit.predictor import Film, Predictor
from mask2dit.scene_layout import SceneLayout
from mask2dit.solvers import make_scheduler
from mask2dit.step_caches import Clock, caching, check_step_cache
from mask2dit.stepper import DenoisingState, Stepper
from mask2dit.storyboard import Storyboard
from mask2dit.team import Team, TeamPredictor
from mask2dit.text import TextSide, check_captions
from mask2dit.transformer import Mask2DiTTransformer3DModel
from mask2dit.video_shape import Compression, VideoShape, check_num_frames

OutputType = Literal["np", "pt", "pil", "latent"]
StepCallback = Callable[["Mask2DiTPipeline", int, Tensor, dict[str, Any]], dict[str, Any] | None]


@dataclass
class Mask2DiTPipelineOutput(BaseOutput):  # type: ignore[misc]
    """`scenes`: one entry per scene, in film order, in the form that `output_type` asked for."""

    scenes: list[Any]


class Mask2DiTPipeline(DiffusionPipeline, CogVideoXLoraLoaderMixin):  # type: ignore[misc]
    """Films of several scenes. Components are those of a CogVideoX folder, with our transformer.

    The other arguments are the model's own values; they are saved in `model_index.json`, and the defaults are those of the released
    weights. `tokenizer` and `text_encoder` may be None when `prompt_embeds` are given.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012 - diffusers' protocol, as the next
    _optional_components = ["tokenizer", "text_encoder"]  # noqa: RUF012

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        transformer: Mask2DiTTransformer3DModel,
        scheduler: Any,
        window: int = 3,
        known_sets: str = "last",
        height: int = 480,
        width: int = 720,
        num_frames: int = 49,
        fps: int = 8,
        num_inference_steps: int = 50,
        guidance_scale: float = 6.0,
        negative_prompt: str = (
            "The video is not of a high quality, it has a low resolution. Watermark present in each frame. The background is solid. "
            "Strange body and strange trajectory. Distortion. "
        ),
    ) -> None:
        super().__init__()
        self.register_modules(tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler)
        self.values = ModelValues(
            window=window,
            known_sets=known_sets,
            height=height,
            width=width,
            num_frames=num_frames,
            fps=fps,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            compression=Compression(
                spatial=2 ** (len(vae.config.block_out_channels) - 1),
                temporal=int(vae.config.temporal_compression_ratio),
                patch=transformer.config.patch_size,
            ),
        )
        self.register_to_config(**self.values.saved())
        self.video_processor = VideoProcessor(vae_scale_factor=self.values.compression.spatial)
        self.text_side: TextSide | None = None  # set by load_pipeline, as the next two are
        self.memory: Choice | None = None
        self.team: Team | None = None
        """The processes that make this pipeline's films together; see `join_team`."""
        self.weights_digest: str | None = None
        """Of the weights as they were loaded, where they are out of reach later because they wait on disk."""

    def join_team(self, team: Team) -> None:
        """Make films with the other processes of a team from now on. Raises InputError where the heads do not divide by them."""
        team.take(self.transformer)
        self.team = team

    def save_pretrained(self, *arguments: Any, **options: Any) -> None:
        """As diffusers does it. Raises InputError while the weights wait on disk, for then they are not in the networks."""
        if self.weights_digest is not None:
            raise InputError("save_pretrained: the weights wait on disk; load the pipeline without that memory mode to save it")
        super().save_pretrained(*arguments, **options)

    def fingerprint(self) -> str:
        """A short name for the weights as they are, wherever they lie."""
        if self.weights_digest is not None:
            return self.weights_digest
        networks = {"transformer": self.transformer, "vae": self.vae}
        if self.text_side is not None:
            return fingerprint(networks, text=self.text_side.digest)
        return fingerprint(networks | {"text_encoder": self.text_encoder})

    @property
    def fps(self) -> int:
        """Frames per second of the films that this model makes."""
        return self.values.fps

    @property
    def max_text_seq_length(self) -> int:
        """Text tokens per scene, L."""
        return int(self.transformer.config.max_text_seq_length)

    def check(
        self,
        storyboard: Storyboard | Sequence[str] | None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_frames: PerScene[int] = None,
        num_inference_steps: int | None = None,
        guidance_scale: PerScene[float] = None,
        negative_prompt: str | None = None,
        num_scenes: int | None = None,
        shortcuts: Shortcuts | None = None,
    ) -> FilmRequest:
        """Resolve what is asked against the model's own values; draws and computes nothing.

        A value in a storyboard's scene wins over the argument, the argument over the model's own. `num_scenes` is needed when there is no
        storyboard. Raises StoryboardError or InputError, naming the scene (from 1), what was got, what was expected and the remedy.
        """
        request = resolve_request(
            storyboard, self.values, height, width, num_frames, num_inference_steps, guidance_scale, negative_prompt, num_scenes, shortcuts
        )
        check_steps(request, self.scheduler)
        if self.tokenizer is not None:
            check_captions(request.captions, request.negative_prompts, self.tokenizer, self.max_text_seq_length)
        return request

    def encode_prompt(self, captions: Sequence[str], negative_prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode one caption and one negative prompt per scene: prompt_embeds and negative_prompt_embeds, each [S, L, E].

        Rows that the prompt cache holds are read from there. A text encoder that `load_pipeline` left out is loaded for the others, and is
        gone again when they are encoded.
        """
        side = self.text_side or TextSide("")
        if self.tokenizer is None or (self.text_encoder is None and side.load is None):
            raise InputError("this pipeline has no tokenizer or text encoder; give prompt_embeds and negative_prompt_embeds")
        device = self._execution_device
        both = side.rows([*captions, *negative_prompts], self.tokenizer, self.text_encoder, self.max_text_seq_length, device)
        prompt_embeds, negative_prompt_embeds = both.to(device, self.transformer.dtype).chunk(2)
        return prompt_embeds, negative_prompt_embeds

    def encode_scene(self, frames: np.ndarray[Any, Any] | Tensor) -> Tensor:
        """[T, Y, X, 3] in 0..1, or uint8, T = 4k + 1 → clean, scaled latents [F, C, H, W]: the posterior's mode."""
        pixels = torch.as_tensor(frames)
        if pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise InputError(f"frames: got shape {tuple(pixels.shape)}, expected [T, Y, X, 3]")
        check_num_frames(len(pixels), "frames", self.values.compression.temporal)
        VideoShape(pixels.shape[1], pixels.shape[2], (1,), self.values.compression)  # checks the size
        scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
        return encode_frames(self.vae, pixels.permute(0, 3, 1, 2).float() / scale * 2 - 1, self._execution_device)

    def decode_scene(self, latents: Tensor, output_type: Literal["np", "pt", "pil"] = "np") -> Any:
        """Clean, scaled latents [F, C, H, W] → frames of one scene: "np" [T, Y, X, 3] or "pt" [T, 3, Y, X] float32 in 0..1, or "pil"."""
        pixels = decode_latents(self.vae, latents, self._execution_device)
        return self.video_processor.postprocess(pixels, output_type=output_type)

    @torch.no_grad()
    def __call__(
        self,
        storyboard: Storyboard | Sequence[str] | None = None,
        *,
        known_scenes: Mapping[int, Tensor] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: PerScene[float] = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: PerScene[int] = None,
        negative_prompt: str | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: OutputType = "np",
        callback_on_step_end: StepCallback | None = None,
        resume: DenoisingState | None = None,
        solver: str | None = None,
        guidance_interval: tuple[float, float] | None = None,
        step_cache: str | None = None,
    ) -> Mask2DiTPipelineOutput:
        """Make a film.

        storyboard: a Storyboard or a list of captions; None with `prompt_embeds` [S, L, E], which also replace the encoding of a
        storyboard's captions. known_scenes: scene index → clean, scaled latents [F_s, C, H, W]; they come out untouched, and have captions
        too. None = the model's own value; guidance and frames may be one per scene; guidance ≤ 1 in every scene runs one branch.
        generator: one, or one per scene. latents: initial noise of the whole film [1, F, C, H, W]. output_type: "np", "pt", "pil" or
        "latent".
        callback_on_step_end(pipeline, step, timestep, {"latents": [1, F, C, H, W], "state": DenoisingState}) may return other latents.
        resume: such a state, of this very call, to go on from. solver, guidance_interval, step_cache: fewer and cheaper steps, as names and
        shares of the run; see `Shortcuts`.
        Raises StoryboardError or InputError before anything is computed.
        """
        known = dict(known_scenes or {})
        num_scenes = None if prompt_embeds is None else len(prompt_embeds)
        request = self.check(
            storyboard,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
            num_scenes=num_scenes,
            shortcuts=Shortcuts(solver, guidance_interval, step_cache),
        )
        self._check_given(storyboard, known)
        shapes = self._scene_shapes(request, known)
        if resume is not None and [tuple(scene.shape) for scene in resume.latents] != shapes:
            raise InputError(f"resume: got {len(resume.latents)} scenes of other shapes, expected those of this call; leave it out")
        self._check_tensors(request, shapes, prompt_embeds, negative_prompt_embeds, latents, generator, output_type)
        own = self.transformer
        how = {"compiled": own.is_compiled, "shares_sequence": own.shares_sequence, "is_cached": own.is_cache_enabled}
        check_step_cache(request.shortcuts.step_cache, **how)
        for remark in self._remarks(request, known, resume):
            warnings.warn(remark, stacklevel=3)  # torch.no_grad is one frame
        try:
            if prompt_embeds is None:
                prompt_embeds, negative_prompt_embeds = self.encode_prompt(request.captions, request.negative_prompts)
            scenes = self._start(shapes, known, resume.latents if resume else latents, generator)
            scenes = self._denoise(request, scenes, known, prompt_embeds, negative_prompt_embeds, generator, callback_on_step_end, resume)
            if output_type != "latent":
                scenes = [self.decode_scene(scene, output_type) for scene in scenes]
        finally:
            self.maybe_free_model_hooks()  # and forget what a step cache holds, so that the next film does not depend on this one
        return Mask2DiTPipelineOutput(scenes=scenes)

    @staticmethod
    def _check_given(storyboard: Storyboard | Sequence[str] | None, known: Mapping[int, Tensor]) -> None:
        for index, scene in enumerate(storyboard.shown().scenes if isinstance(storyboard, Storyboard) else ()):
            if scene.given is not None and index not in known:
                raise InputError(
                    f"scene {index + 1}, given: got a video ({scene.given!r}), expected its latents in known_scenes; "
                    "read and encode it (encode_scene), or make a film folder, which does"
                )

    def _remarks(self, request: FilmRequest, known: Mapping[int, Tensor], resume: DenoisingState | None) -> list[str]:
        """What is asked that the weights have not seen, or that comes out in another way; it is done all the same."""
        remarks = []
        if resume is not None and request.shortcuts.step_cache is not None:
            remarks.append(
                f"step cache {request.shortcuts.step_cache}: starts empty where the denoising goes on, so this film may differ a little "
                "from one that was never interrupted"
            )
        if request.num_scenes > self.values.window:
            remarks.append(
                f"{request.num_scenes} scenes are more than the {self.values.window} that this model was trained on at once; "
                "all are made jointly"
            )
        if self.values.known_sets == "last" and known and set(known) != set(range(request.num_scenes - 1)):
            numbers = ", ".join(str(index + 1) for index in sorted(known))
            remarks.append(
                f"known scenes are {numbers} of {request.num_scenes}; this model was trained with all but the last one known, so the "
                "others may fit less well"
            )
        return remarks

    def _denoise(
        self,
        request: FilmRequest,
        scenes: list[Tensor],
        known: Mapping[int, Tensor],
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor | None,
        generator: Generators,
        callback: StepCallback | None,
        resume: DenoisingState | None,
    ) -> list[Tensor]:
        """The loop over timesteps; scenes are clean or noisy latents [F_s, C, H, W], and known ones leave as they came."""
        device, dtype = self._execution_device, self.transformer.dtype
        embeds = {"cond": prompt_embeds}
        if negative_prompt_embeds is not None and request.is_guided:
            embeds["uncond"] = negative_prompt_embeds
        branches = {name: rows.to(device, dtype).flatten(0, 1)[None] for name, rows in embeds.items()}  # [1, S·L, E]
        scheduler = make_scheduler(request.shortcuts.solver, self.scheduler)
        scheduler.set_timesteps(request.num_inference_steps, device=device)
        stepper = Stepper(scheduler, generator_per_scene(generator, len(scenes)), resume)
        lengths, done = [len(scene) for scene in scenes], resume.step if resume else 0
        with caching(self.transformer, request.shortcuts.step_cache, request.num_inference_steps) as clock:
            predict = self._predictor(request, scenes, frozenset(known), branches, scheduler, clock)
            denoising = Denoising(request, predict, stepper, clock)
            for step, t in enumerate(self.progress_bar(scheduler.timesteps[done:]), start=done):
                scenes = denoising.step(scenes, t, step)
                if callback is None:
                    continue
                changed = callback(self, step, t, {"latents": torch.cat(scenes)[None], "state": stepper.state(step + 1, scenes)}) or {}
                if "latents" in changed:
                    pieces = changed["latents"][0].split(lengths)
                    scenes = [scenes[s] if s in known else piece for s, piece in enumerate(pieces)]
        return [known[s].to(device) if s in known else scene for s, scene in enumerate(scenes)]

    def _predictor(
        self,
        request: FilmRequest,
        scenes: Sequence[Tensor],
        known: frozenset[int],
        branches: Mapping[str, Tensor],
        scheduler: Any,
        clock: Clock,
    ) -> Predictor:
        """What predicts this film, here or in the team's processes."""
        patch = self.values.compression.patch
        grid = (scenes[0].shape[-2] // patch, scenes[0].shape[-1] // patch)
        lengths = tuple(len(scene) for scene in scenes)
        layout = SceneLayout((self.max_text_seq_length,) * len(scenes), tuple(count * grid[0] * grid[1] for count in lengths))
        film, device = Film(branches, layout, lengths, grid, known), self._execution_device
        if self.team is None:
            return Predictor(self.transformer, film, device)
        own = sorted((name, value) for name, value in scheduler.config.items() if not name.startswith("_"))
        return TeamPredictor(self.transformer, film, device, self.team, clock, request.shortcuts.step_cache, f"{request} {own}")

    def _start(
        self,
        shapes: Sequence[tuple[int, ...]],
        known: Mapping[int, Tensor],
        latents: Tensor | Sequence[Tensor] | None,
        generator: Generators,
    ) -> list[Tensor]:
        """Initial noise, drawn or given as [1, F, C, H, W]; or the scenes, as they are, of a loop that goes on."""
        device, dtype = self._execution_device, self.transformer.dtype
        if latents is not None and not isinstance(latents, Tensor):
            return [known.get(s, scene).to(device, dtype) for s, scene in enumerate(latents)]
        noise: Sequence[Tensor | None]
        if latents is not None:
            noise = torch.split(latents[0].to(device, dtype), [shape[0] for shape in shapes])
        else:
            noise = draw_noise([None if s in known else shape for s, shape in enumerate(shapes)], generator, device, dtype)
        sigma = self.scheduler.init_noise_sigma
        return [known[s].to(device, dtype) if s in known or own is None else own * sigma for s, own in enumerate(noise)]

    def _scene_shapes(self, request: FilmRequest, known: Mapping[int, Tensor]) -> list[tuple[int, ...]]:
        channels = self.transformer.config.in_channels
        shapes: list[tuple[int, ...]] = [(count, channels, *request.shape.latent_size) for count in request.shape.num_latent_frames]
        for index, given in known.items():
            if not 0 <= index < len(shapes):
                raise InputError(f"known_scenes: got index {index}, expected 0 to {len(shapes) - 1}")
            if given.ndim != 4 or not len(given) or given.shape[1:] != shapes[index][1:] or not given.is_floating_point():
                raise InputError(
                    f"known_scenes: scene {index + 1} has shape {tuple(given.shape)} of {given.dtype}, expected floating-point latents "
                    f"[F, {', '.join(map(str, shapes[index][1:]))}]; encode frames of this size with encode_scene"
                )
            shapes[index] = tuple(given.shape)  # a known scene keeps its own length
        return shapes

    def _check_tensors(
        self,
        request: FilmRequest,
        shapes: Sequence[tuple[int, ...]],
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        latents: Tensor | None,
        generator: Generators,
        output_type: str,
    ) -> None:
        text_shape = (request.num_scenes, self.max_text_seq_length, self.transformer.config.text_embed_dim)
        for name, rows in (("prompt_embeds", prompt_embeds), ("negative_prompt_embeds", negative_prompt_embeds)):
            if rows is not None and tuple(rows.shape) != text_shape:
                raise InputError(f"{name}: got shape {tuple(rows.shape)}, expected {text_shape}")
        if prompt_embeds is None and negative_prompt_embeds is not None:
            raise InputError("negative_prompt_embeds: got them without prompt_embeds, expected both; or give negative_prompt")
        if prompt_embeds is not None and negative_prompt_embeds is None and request.is_guided:
            raise InputError("negative_prompt_embeds: got none, expected them beside prompt_embeds; or set guidance_scale=1")
        film_shape = (1, sum(shape[0] for shape in shapes), *shapes[0][1:])
        if latents is not None and tuple(latents.shape) != film_shape:
            raise InputError(f"latents: got shape {tuple(latents.shape)}, expected {film_shape}")
        if isinstance(generator, Sequence) and len(generator) != request.num_scenes:
            raise InputError(f"generator: got {len(generator)}, expected one, or one for each of {request.num_scenes} scenes")
        if output_type not in ("np", "pt", "pil", "latent"):
            raise InputError(f"output_type: got {output_type!r}, expected np, pt, pil or latent")
