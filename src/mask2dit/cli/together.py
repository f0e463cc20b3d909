"""Commands that make films, under torchrun: the first process leads, the others load its model and compute what it sends them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from mask2dit.cli.model_options import ModelChoice
    from mask2dit.memory import Choice
    from mask2dit.pipeline import Mask2DiTPipeline
    from mask2dit.team import Team

Command = TypeVar("Command", bound=Callable[..., None])
_teams: "list[Team]" = []  # of this command; empty where it is one process


def in_a_team(command: Command) -> Command:
    """Let a command be run by several processes: torchrun --nproc-per-node 2 -m mask2dit …"""

    @wraps(command)
    def run(**options: Any) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            command(**options)
            return
        guidance = options.get("guidance")
        with _team(options.get("device"), guided=guidance is None or guidance > 1) as team:
            if team.rank:
                _follow(team)
            else:
                typer.echo(f"several devices: {team.words}", err=True)
                command(**options)

    return run  # type: ignore[return-value]


def load(chosen: "ModelChoice", *how: Any) -> "Mask2DiTPipeline":
    """`ModelChoice.load`, on every process of this command's team."""
    if not _teams:
        return chosen.load(*how)
    (team,) = _teams
    kept, _, *rest = how
    team.send(("load", chosen, kept, *rest))
    pipeline = chosen.load(*how)
    pipeline.join_team(team)
    return pipeline


@contextmanager
def _team(device: str | None, *, guided: bool) -> "Iterator[Team]":
    """The processes of this command, the first of which leads; when it ends, the others are told."""
    import torch
    import torch.distributed as dist

    from mask2dit.cli.machine import checked_device
    from mask2dit.team import Team

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    place = checked_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.startswith("cuda") else "gloo")
    team = Team.form(place, guided=guided, led=True)
    _teams.append(team)
    try:
        yield team
    except BaseException:
        if team.rank == 0:
            _release(team)
        raise
    else:
        if team.rank == 0:
            team.send(("stop",))
    finally:
        _teams.clear()
        dist.destroy_process_group()


def _release(team: "Team") -> None:
    """Let the others go after a mistake; one that is gone already is no reason for another message."""
    from mask2dit.errors import Mask2DiTError

    with suppress(Mask2DiTError):
        team.send(("stop",))


def _follow(team: "Team") -> None:
    """Do what the leader asks for until it stops."""
    from mask2dit.cli.quiet import quieten_libraries
    from mask2dit.team import follow

    quieten_libraries()
    try:
        message = team.receive()
        while message[0] == "load":
            chosen, kept, *rest = message[1:]
            pipeline = chosen.load(_without_text(kept), (), *rest)
            pipeline.join_team(team)
            message = follow(pipeline.transformer, team)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _without_text(kept: "Choice | None") -> "Choice | None":
    """Captions are encoded by the leader."""
    return kept and replace(kept, mode=replace(kept.mode, text_first=True))
