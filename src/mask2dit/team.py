"""Several processes that make one film: guidance branches side by side, and each branch's sequence shared out among processes.

Either every process runs the whole program with the same film, as diffusers has it; or the first one leads, and the others follow it:
they know nothing but the transformer, and compute what they are sent. A process that is gone ends the others with a message.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mask2dit.errors import InputError, Mask2DiTError, is_out_of_memory, one_line
from mask2dit.predictor import Film, Predictor
from mask2dit.sequence_parallel import branches_of, check_heads
from mask2dit.step_caches import Clock, caching
from mask2dit.transformer import Mask2DiTTransformer3DModel

PATIENCE = timedelta(days=1)  # how long followers wait for a leader that decodes, or writes; one that is gone is noticed at once
GONE = ("Connection closed", "Connection reset", "Connection refused", "Broken pipe", "Socket closed")
ON_DISK = "what is made is on disk, and the same command goes on from there"


@dataclass(slots=True)
class Team:
    """All processes that were started together. `branches`: how many guidance branches are computed side by side, 1 or 2.

    `led`: the first process sends the others what to compute. Otherwise all call the pipeline with the same film.
    """

    rank: int
    size: int
    branches: int
    device: torch.device
    led: bool
    control: Any
    """The group for messages, which lie in main memory."""

    listening: bool = True
    """Of the leader's: whether the others wait for a message now, and not in the middle of what they were sent."""

    @classmethod
    def form(cls, device: torch.device | str = "cpu", *, guided: bool = True, led: bool = False) -> "Team":
        """Of the processes of an initialised torch.distributed; guided: two branches side by side where their number is even.

        Raises InputError where there are not several.
        """
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() < 2:
            raise InputError("several devices: got one process, expected several that were started together; use torchrun")
        size = dist.get_world_size()
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
        return cls(dist.get_rank(), size, branches_of(size, guided), torch.device(device), led, control)

    @property
    def words(self) -> str:
        """How the work is shared out, for a person."""
        each = self.size // self.branches
        branches = "guidance branches side by side" if self.branches == 2 else ""
        sequence = f"each sequence over {each} processes" if each > 1 else ""
        return f"{self.size} processes: {', '.join(filter(None, (branches, sequence)))}"

    @property
    def branch(self) -> int:
        """The branch that this process computes."""
        return self.rank // (self.size // self.branches)

    def take(self, transformer: Mask2DiTTransformer3DModel) -> None:
        """Share the transformer's sequence among the processes of a branch. Raises InputError where its heads do not divide."""
        each = self.size // self.branches
        check_heads(transformer.config.num_attention_heads, each, self.branches)
        if each > 1:
            groups = [dist.new_group(range(first, first + each)) for first in range(0, self.size, each)]
            transformer.share_sequence(groups[self.branch])

    def send(self, message: tuple[Any, ...]) -> None:
        """From the leader to all others."""
        with self.sent(message):
            pass

    @contextmanager
    def sent(self, message: tuple[Any, ...]) -> Iterator[None]:
        """What all do together after the leader's message; where it fails for the leader, the others are not listening any more."""
        self.listening = False
        with ends_together(self.led):
            dist.broadcast_object_list([message], src=0, group=self.control)
        yield
        self.listening = True

    def receive(self) -> tuple[Any, ...]:
        """What the leader sent."""
        box: list[Any] = [None]
        with ends_together(self.led):
            dist.broadcast_object_list(box, src=0, group=self.control)
        return tuple(box[0])

    def gather(self, own: Any) -> list[Any]:
        """What every process has to say, by rank."""
        said: list[Any] = [None] * self.size
        with ends_together(self.led):
            dist.all_gather_object(said, own, group=self.control)
        return said

    def check_same(self, *tensors: Tensor, words: str) -> None:
        """Raises InputError, on every process, where they were not given the same."""
        digest = hashlib.sha256(words.encode())
        for tensor in tensors:
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        digests = self.gather(digest.hexdigest())
        others = [str(rank) for rank in range(self.size) if digests[rank] != digests[0]]
        if others:
            raise InputError(
                f"several devices: got another film on process {', '.join(others)} than on process 0, expected the same storyboard, "
                "settings, noise and rounding on all; give them the same, or let the first one lead"
            )


class TeamPredictor(Predictor):
    """One film's predictions, by a team; every process gets all of them.

    clock, step_cache: of this run; the leader's followers cache as it does. settings: all else that must be the same on processes.
    """

    def __init__(
        self,
        transformer: Mask2DiTTransformer3DModel,
        film: Film,
        device: torch.device,
        team: Team,
        clock: Clock,
        step_cache: str | None = None,
        settings: str = "",
    ) -> None:
        super().__init__(transformer, film, device)
        self._team, self._clock, self._settings, self._checked = team, clock, settings, False
        if team.led and team.rank == 0:
            team.send(("film", _moved(film, torch.device("cpu")), step_cache, clock.total))

    def joined(self, scenes: Sequence[Tensor], t: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """See the base class."""
        team = self._team
        if team.led and team.rank == 0:
            with team.sent(("step", self._clock.step, [scene.cpu() for scene in scenes], t.cpu(), tuple(names))):
                return self._together(scenes, t, names)
        if not team.led:  # the scenes at every step, for noise of one's own would lead them apart later
            film = self.film
            words = f"{self._settings} {film.layout} {film.lengths} {sorted(film.known)} {names}"
            captions = () if self._checked else tuple(film.branches.values())
            team.check_same(t, *scenes, *captions, words=words)
            self._checked = True
        return self._together(scenes, t, names)

    def _together(self, scenes: Sequence[Tensor], t: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        team = self._team
        with ends_together(team.led):
            made = super().joined(scenes, t, [name for index, name in enumerate(names) if index % team.branches == team.branch])
            return {name: self._shared(made.get(name), scenes[0], index % team.branches) for index, name in enumerate(names)}

    def _shared(self, prediction: Tensor | None, like: Tensor, branch: int) -> Tensor:
        """What one branch's processes have made, on all."""
        team = self._team
        if team.branches == 1:
            assert prediction is not None
            return prediction
        if prediction is None:
            frames = sum(self.film.lengths[scene] for scene in self.film.generated)
            prediction = like.new_empty((frames, *like.shape[1:]), dtype=torch.float32)
        prediction = prediction.contiguous()
        dist.broadcast(prediction, src=branch * (team.size // team.branches))
        return prediction


def follow(transformer: Mask2DiTTransformer3DModel, team: Team) -> tuple[Any, ...]:
    """Compute what the leader sends until it sends something else, which is returned; raises Mask2DiTError where it is gone."""
    message = team.receive()
    while message[0] == "film":
        _, film, step_cache, total = message
        with caching(transformer, step_cache, total) as clock, torch.no_grad():
            predictor = TeamPredictor(transformer, _moved(film, team.device), team.device, team, clock)
            message = team.receive()
            while message[0] == "step":
                _, clock.step, scenes, t, names = message
                predictor([scene.to(team.device) for scene in scenes], t.to(team.device), names)
                message = team.receive()
    return message


@contextmanager
def ends_together(led: bool) -> Iterator[None]:
    """Say in words that another process is gone, or what else is wrong between them. led: a command's, which has written what is made."""
    rest = f"; {ON_DISK}" if led else ""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, Mask2DiTError) or is_out_of_memory(error):
            raise
        if any(each in str(error) for each in GONE):
            raise Mask2DiTError(
                "several devices: another process ended before the film was made; its own message says why, or it was killed, as where "
                f"memory runs out{rest}"
            ) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error):
            raise Mask2DiTError(f"several devices: the processes cannot go on together ({one_line(error)}){rest}") from error
        raise


def _moved(film: Film, device: torch.device) -> Film:
    branches = {name: each.to(device) for name, each in film.branches.items()}
    return Film(branches, film.layout, film.lengths, film.grid, frozenset(film.known))
