"""Step caches: a step reuses what an earlier one has computed. Approximate, so none is used unless somebody asks for it by name.

"first-block" is diffusers': where the first block changes the joint sequence almost as it did before, the change that all further blocks
made then is added again. "pyramid" (pyramid attention broadcast, arXiv 2408.12588) is ours, since diffusers' keeps one state for all
guidance branches: in the middle of a run, attention is computed in every n-th step and its output is kept for those between. Either
decides for all scenes of a call at once, and keeps the guidance branches apart.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from diffusers import FirstBlockCacheConfig
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from torch import Tensor, nn

from mask2dit.attention import SceneAttention
from mask2dit.errors import InputError

MIDDLE = (0.2, 0.9)  # of a run, in which attention changes least from step to step (figure 3 of the paper); timesteps 800 to 100
PYRAMID_HOOK = "mask2dit_pyramid"


@dataclass
class Clock:
    """Where a denoising is: about to take step `step` of `total`."""

    total: int
    step: int = 0


@dataclass(frozen=True, slots=True)
class FirstBlockCache:
    """Skip all blocks but the first where its residual differs by less than `amount` of its own mean from the one before."""

    amount: float = 0.05
    name: ClassVar[str] = "first-block"
    what: ClassVar[str] = "a number of at least 0"

    @property
    def is_sound(self) -> bool:
        return math.isfinite(self.amount) and self.amount >= 0

    def attach(self, transformer: Any, clock: Clock) -> None:
        """Begin; `clock` is not looked at."""
        transformer.enable_cache(FirstBlockCacheConfig(self.amount))

    def detach(self, transformer: Any) -> None:
        """End, and forget."""
        transformer.disable_cache()


@dataclass(frozen=True, slots=True)
class PyramidCache:
    """Compute attention in every `amount`-th step of the middle of a run, and in all steps before and after that."""

    amount: float = 2
    name: ClassVar[str] = "pyramid"
    what: ClassVar[str] = "a whole number of at least 1"

    @property
    def is_sound(self) -> bool:
        return math.isfinite(self.amount) and self.amount >= 1 and self.amount == int(self.amount)

    def attach(self, transformer: Any, clock: Clock) -> None:
        """Begin; `clock` says in which step it is."""
        for attention in _attentions(transformer):
            HookRegistry.check_if_exists_or_initialize(attention).register_hook(PyramidHook(int(self.amount), clock), PYRAMID_HOOK)
        _renew(transformer)

    def detach(self, transformer: Any) -> None:
        """End, and forget."""
        for attention in _attentions(transformer):
            HookRegistry.check_if_exists_or_initialize(attention).remove_hook(PYRAMID_HOOK, recurse=False)
        _renew(transformer)


StepCache = FirstBlockCache | PyramidCache
STEP_CACHES: dict[str, type[FirstBlockCache] | type[PyramidCache]] = {each.name: each for each in (FirstBlockCache, PyramidCache)}


def read_step_cache(text: str) -> StepCache:
    """A cache by its name, with its number or without: "first-block", "first-block:0.1", "pyramid:2". Raises InputError."""
    name, colon, number = str(text).partition(":")
    kind = STEP_CACHES.get(name)
    if kind is None:
        expected = " or ".join(f"{each.name}:{each().amount:g}" for each in STEP_CACHES.values())
        raise InputError(f"step cache: got {text!r}, expected {expected}, with another number or without; leave it out for none")
    try:
        cache = kind(float(number)) if colon else kind()
    except ValueError:
        cache = kind(math.nan)
    if not cache.is_sound:
        raise InputError(f"step cache: got {text!r}, expected {kind.what} behind {name}; use for example {name}:{kind().amount:g}")
    return cache


def words_of(cache: StepCache) -> str:
    """As it is written, with its number."""
    return f"{cache.name}:{cache.amount:g}"


def tensors_of(cache: StepCache, num_layers: int) -> int:
    """How many tensors of the joint sequence's size it keeps in each guidance branch."""
    return num_layers if isinstance(cache, PyramidCache) else 3  # the first block's output, its change, and that of the others


def check_step_cache(text: str | None, *, compiled: bool, shares_sequence: bool, is_cached: bool = False) -> None:
    """Raise InputError where a cache cannot be used: with compiled blocks, a sequence over several processes, or another cache."""
    if text is None:
        return
    cache = read_step_cache(text)
    if shares_sequence and isinstance(cache, FirstBlockCache):
        raise InputError(
            f"step cache: got {text} with a sequence over several processes, of which each would decide for its own tokens, expected "
            "pyramid, whose steps are fixed; or two processes, for the guidance branches side by side"
        )
    if compiled and isinstance(cache, PyramidCache):
        raise InputError(
            f"step cache: got {text} with compiled blocks, of which it would be the inside, expected first-block; or leave compiling out"
        )
    if is_cached:
        raise InputError(f"step cache: got {text} for a transformer with a cache, expected none; disable_cache() it, or leave it out")


@contextmanager
def caching(transformer: Any, text: str | None, total: int) -> Iterator[Clock]:
    """A step cache for one run of `total` steps, empty at first and gone afterwards, however the run ends; None is none.

    The clock is to be set before every step.
    """
    clock = Clock(total)
    if text is None:
        yield clock
        return
    cache = read_step_cache(text)
    cache.attach(transformer, clock)
    try:
        yield clock
    finally:
        cache.detach(transformer)


class _Attended(BaseState):  # type: ignore[misc]
    """What an attention layer made last, in one guidance branch."""

    def __init__(self) -> None:
        self.output: Tensor | None = None

    def reset(self) -> None:
        self.output = None


class PyramidHook(ModelHook):  # type: ignore[misc]
    """Around one attention layer."""

    _is_stateful = True

    def __init__(self, every: int, clock: Clock) -> None:
        super().__init__()
        self.every, self.clock = every, clock
        self.states = StateManager(_Attended)  # diffusers tells it which guidance branch is computed

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Attention, or what it was."""
        state = self.states.get_state()
        if state.output is None or self._is_due():
            state.output = self.fn_ref.original_forward(*args, **kwargs)
        return state.output  # type: ignore[no-any-return]

    def reset_state(self, module: nn.Module) -> nn.Module:
        """Forget."""
        self.states.reset()
        return module

    def _is_due(self) -> bool:
        share = self.clock.step / self.clock.total
        return not MIDDLE[0] <= share < MIDDLE[1] or self.clock.step % self.every == 0


def _attentions(transformer: Any) -> list[SceneAttention]:
    return [each for each in transformer.modules() if isinstance(each, SceneAttention)]


def _renew(transformer: Any) -> None:
    """Let the guidance branches be told to the hooks that are there now."""
    HookRegistry.check_if_exists_or_initialize(transformer).invalidate_child_registries_cache()
