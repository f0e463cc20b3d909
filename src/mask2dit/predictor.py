"""What the transformer predicts for one film, step after step and guidance branch by guidance branch.

Which scenes it has to be given is decided here: all of them, or, under a plan in which known scenes see no generated one, the known ones
once and then the generated ones alone. What is done with predictions belongs to the pipeline; several processes, to team.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mask2dit.context_cache import ContextCache
from mask2dit.scene_layout import SceneLayout
from mask2dit.transformer import Mask2DiTTransformer3DModel


@dataclass(frozen=True, slots=True)
class Film:
    """What stays the same in all steps. `branches`: name → captions [1, S·L, E]; `lengths`: latent frames of each scene."""

    branches: Mapping[str, Tensor]
    layout: SceneLayout
    lengths: tuple[int, ...]
    grid: tuple[int, int]
    known: Set[int]

    @property
    def generated(self) -> tuple[int, ...]:
        """The scenes that are not known."""
        return tuple(scene for scene in range(len(self.lengths)) if scene not in self.known)


class Predictor:
    """One film's predictions, in one process."""

    def __init__(self, transformer: Mask2DiTTransformer3DModel, film: Film, device: torch.device) -> None:
        self.film = film
        self._transformer = transformer
        self._rotary = transformer.rotary_table(sum(film.lengths), film.grid, device)
        keeps = transformer.is_context_blind and bool(film.known) and self._rotary is not None
        self._contexts = {name: ContextCache(transformer.config.num_layers) for name in film.branches} if keeps else {}

    def __call__(self, scenes: Sequence[Tensor], t: Tensor, names: Sequence[str]) -> dict[str, dict[int, Tensor]]:
        """Branch → generated scene → prediction [F_s, C, H, W] in float32; scenes [F_s, C, H, W] each, known ones clean."""
        if not self.film.generated:
            return {name: {} for name in names}
        lengths = [self.film.lengths[scene] for scene in self.film.generated]
        predictions = self.joined(scenes, t, names)
        return {name: dict(zip(self.film.generated, torch.split(each, lengths), strict=True)) for name, each in predictions.items()}

    def joined(self, scenes: Sequence[Tensor], t: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Branch → prediction [F, C, H, W] in float32 for all generated scenes, joined on time."""
        return {name: self._branch(name, scenes, t) for name in names}

    def _branch(self, name: str, scenes: Sequence[Tensor], t: Tensor) -> Tensor:
        film, context = self.film, self._contexts.get(name)
        if context is None:
            with self._transformer.cache_context(name):
                whole = self._call(name, range(len(scenes)), scenes, t)
            pieces = torch.split(whole, list(film.lengths))
            return torch.cat([pieces[scene] for scene in film.generated]) if film.known else whole
        if not context.is_filled:
            with self._transformer.cache_context(f"{name}, known"):  # what a step cache keeps of these has another size
                self._call(name, sorted(film.known), scenes, t, context)
        with self._transformer.cache_context(name):
            return self._call(name, film.generated, scenes, t, context)

    def _call(self, name: str, given: Sequence[int], scenes: Sequence[Tensor], t: Tensor, context: ContextCache | None = None) -> Tensor:
        """The transformer over the scenes that are given: [F, C, H, W] in float32."""
        film, layout = self.film, self.film.layout
        timestep = torch.stack([t * 0 if scene in film.known else t for scene in given])[None]  # [1, S]
        texts, videos = (tuple(lengths[scene] for scene in given) for lengths in (layout.text_lengths, layout.video_lengths))
        captions = _some(film.branches[name], layout.text_lengths, given, dim=1)
        rotary = self._rotary and (_some(self._rotary[0], layout.video_lengths, given), _some(self._rotary[1], layout.video_lengths, given))
        options: dict[str, Any] = {"image_rotary_emb": rotary, "return_dict": False, "context": context}
        if context is None:
            options["known_scenes"] = film.known
        joined = torch.cat([scenes[scene] for scene in given])[None]
        made = self._transformer(joined, captions, timestep, SceneLayout(texts, videos), **options)[0]
        return made[0].float()  # type: ignore[no-any-return]  # float32 before guidance


def _some(states: Tensor, lengths: Sequence[int], scenes: Sequence[int], dim: int = 0) -> Tensor:
    """The pieces of some scenes; all of them are the whole, as it is."""
    if len(scenes) == len(lengths):
        return states
    pieces = torch.split(states, list(lengths), dim=dim)
    return torch.cat([pieces[scene] for scene in scenes], dim=dim)
