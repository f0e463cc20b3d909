"""One joint sequence over several processes: each holds a share of the tokens, and for attention all tokens of a share of the heads.

(Ulysses, arXiv 2309.14509.) The exchange comes before a plan splits the sequence into scenes, so every process computes the whole pattern
for its heads, whatever the lengths of scenes are. For inference: nothing here is differentiated.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mask2dit.errors import InputError


@dataclass(frozen=True, slots=True)
class SequenceParallel:
    """This process's place among those that share a sequence. `group`: theirs; None is all processes."""

    group: Any
    rank: int
    size: int

    @classmethod
    def join(cls, num_heads: int, group: Any = None) -> "SequenceParallel":
        """Of the processes of a group. Raises InputError where the heads cannot be shared out, or processes were not started together."""
        if not dist.is_available() or not dist.is_initialized():
            raise InputError("several devices: got one process, expected several that were started together; use torchrun")
        size = dist.get_world_size(group)
        check_heads(num_heads, size)
        return cls(group, dist.get_rank(group), size)

    def share(self, num_tokens: int, rank: int | None = None) -> slice:
        """The tokens that this process holds, or that of a rank does: runs of nearly the same length."""
        place = self.rank if rank is None else rank
        return slice(num_tokens * place // self.size, num_tokens * (place + 1) // self.size)

    def lengths(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """How many tokens of each segment this process holds; some are 0."""
        own, starts = self.share(sum(lengths)), [sum(lengths[:index]) for index in range(len(lengths))]
        return tuple(_overlap(own, slice(start, start + length)) for start, length in zip(starts, lengths, strict=True))

    def to_heads(self, states: tuple[Tensor, ...], num_tokens: int) -> tuple[Tensor, ...]:
        """[B, n, h, d] of this process's tokens → [B, N, h / size, d] of all tokens; all of `states` in one exchange."""
        stacked = torch.stack([each.transpose(0, 1) for each in states], dim=2)  # [n, B, K, h, d]
        by_rank = torch.unflatten(stacked, 3, (self.size, -1)).movedim(3, 0)  # [size, n, B, K, h / size, d]
        counts = [self._count(num_tokens, rank) for rank in range(self.size)]
        made = self._exchange(by_rank.flatten(0, 1), [stacked.shape[0]] * self.size, counts)  # [N, B, K, h / size, d]
        return tuple(each.transpose(0, 1) for each in made.unbind(dim=2))

    def to_tokens(self, states: Tensor) -> Tensor:
        """[B, N, h / size, d] of all tokens → [B, n, h, d] of this process's."""
        num_tokens = states.shape[1]
        counts = [self._count(num_tokens, rank) for rank in range(self.size)]
        own = counts[self.rank]
        made = self._exchange(states.transpose(0, 1), counts, [own] * self.size)  # [size · n, B, h / size, d]
        return torch.unflatten(made, 0, (self.size, own)).permute(2, 1, 0, 3, 4).flatten(2, 3)

    def gather(self, states: Tensor, num_tokens: int, first: int) -> Tensor:
        """[B, n, D] of those of this process's tokens that lie from `first` on → [B, N - first, D] of all, on every process."""
        rest = slice(first, num_tokens)
        counts = [_overlap(self.share(num_tokens, rank), rest) for rank in range(self.size)]
        everywhere = states.transpose(0, 1).repeat(self.size, 1, 1)  # the same to each
        return self._exchange(everywhere, [counts[self.rank]] * self.size, counts).transpose(0, 1)

    def _count(self, num_tokens: int, rank: int) -> int:
        return _overlap(self.share(num_tokens, rank), slice(0, num_tokens))

    def _exchange(self, states: Tensor, sent: list[int], received: list[int]) -> Tensor:
        """Rows of dim 0: `sent` of them to each process, `received` from each."""
        if torch.is_grad_enabled() and states.requires_grad:
            raise InputError("several devices: got gradients to compute, expected torch.no_grad(); train with fsdp, one sample a device")
        made, sending = states.new_empty((sum(received), *states.shape[1:])), states.contiguous()
        if not states.is_meta:  # there, what is made is only counted
            dist.all_to_all_single(made, sending, received, sent, group=self.group)
        return made


def check_heads(num_heads: int, size: int, branches: int = 1) -> None:
    """Raise InputError, with the numbers of processes in all that would do, where heads cannot be shared by `size` for each branch."""
    if num_heads % size:
        fitting = ", ".join(str(branches * count) for count in range(1, num_heads + 1) if num_heads % count == 0)
        raise InputError(
            f"several devices: got {size} processes for one sequence{f', of {branches},' if branches > 1 else ''} and {num_heads} heads of "
            f"attention, expected a number that divides them; use {fitting}"
        )


def branches_of(num_processes: int, guided: bool) -> int:
    """How many guidance branches are computed side by side."""
    return 2 if guided and num_processes % 2 == 0 else 1


def _overlap(one: slice, other: slice) -> int:
    count: int = min(one.stop, other.stop) - max(one.start, other.start)
    return max(0, count)
