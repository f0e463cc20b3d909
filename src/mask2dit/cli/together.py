"""Commands under torchrun: those that make films are led by the first process, the others load its model and compute what it sends them."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from mask2dit.cli.machine import checked_device, free_bytes, processes_here, started_together, use_all_cores
from mask2dit.errors import InputError, Mask2DiTError, is_out_of_memory

if TYPE_CHECKING:
    import torch

    from mask2dit.cli.model_options import ModelChoice
    from mask2dit.memory import Choice
    from mask2dit.pipeline import Mask2DiTPipeline
    from mask2dit.team import Team

Command = TypeVar("Command", bound=Callable[..., None])
_teams: "list[Team]" = []  # of this command; empty where it is one process
_rooms: list[tuple[int, int]] = []  # of each of its processes: see least_room
ENDED = "error: several devices: told to end, as all are when one has ended; what is made is on disk; the same command goes on\n"


def in_a_team(command: Command) -> Command:
    """Let a command be run by several processes: torchrun --nproc-per-node 2 -m mask2dit …"""

    @wraps(command)
    def run(**options: Any) -> None:
        if not started_together():
            command(**options)
            return
        with first_alone_says():
            device = _own_device(options.get("device"))
        with _told_when_ended(), _team(device) as team:
            if team.rank:
                _follow(team)
            else:
                command(**options | {"device": str(team.device)})

    return run  # type: ignore[return-value]


def alone(command: Command) -> Command:
    """Refuse to run a command in several processes, each of which would do all of it."""

    @wraps(command)
    def run(**options: Any) -> None:
        with first_alone_says():
            if count := started_together().get("WORLD_SIZE"):
                raise InputError(
                    f"several devices: got {count} processes, expected one for this command; torchrun is for generate, remake, insert, "
                    "extend and train"
                )
        command(**options)

    return run  # type: ignore[return-value]


def load(chosen: "ModelChoice", guided: bool, *how: Any) -> "Mask2DiTPipeline":
    """`ModelChoice.load`, on every process of this command's team, for films that are guided or not."""
    if not _teams:
        return chosen.load(*how)
    (team,) = _teams
    kept, _, *rest = how
    with team.sent(("load", chosen, guided, kept, *rest)):
        pipeline = _loaded(team, chosen, guided, *how)
    typer.echo(f"several devices: {team.words}", err=True)
    return pipeline


def shares_sequence(guided: bool) -> bool:
    """Whether each process of this command holds a part of the tokens only, for a film that is guided or not."""
    from mask2dit.sequence_parallel import branches_of

    return any(team.size > branches_of(team.size, guided) for team in _teams)


def least_room(device: "torch.device") -> tuple[int, int]:
    """Bytes that are free on a device, and this process's share of main memory; of several processes, what all of them had at the start."""
    rooms = [*_rooms, _room(device)]
    return min(room for room, _ in rooms), min(main for _, main in rooms)


def _room(device: "torch.device") -> tuple[int, int]:
    main = free_bytes(None) // processes_here()
    return (main if device.type == "cpu" else free_bytes(device)), main


def _loaded(team: "Team", chosen: "ModelChoice", guided: bool, *how: Any) -> "Mask2DiTPipeline":
    """The pipeline, once every process has it. Where one cannot, the first process says why."""
    from mask2dit.sequence_parallel import branches_of

    team.branches = branches_of(team.size, guided)
    problem: Mask2DiTError | None = None
    try:
        pipeline = chosen.load(*how)
    except Mask2DiTError as error:
        problem = error
    problems = team.gather(problem and str(problem))
    if problem is not None:
        raise problem
    for rank, other in enumerate(problems):
        if other is not None:
            raise Mask2DiTError(f"several devices: process {rank}: {other}")
    pipeline.join_team(team)
    return pipeline


def _own_device(name: str | None) -> "torch.device":
    """This process's own GPU, or the CPU. Raises InputError, on all of a machine alike, where there are not enough."""
    import torch

    if name not in (None, "cuda") or not torch.cuda.is_available():
        place = torch.device(checked_device(name))
        if place.type == "cuda":
            raise InputError(
                f"--device: got {name} for several processes, expected a GPU for each; leave it out, or choose by CUDA_VISIBLE_DEVICES"
            )
        return place
    count = torch.cuda.device_count()
    if processes_here() > count:
        raise InputError(
            f"several devices: got {processes_here()} processes and {count} GPUs here, expected one for each; use --nproc-per-node {count}"
        )
    own = torch.device("cuda", started_together()["LOCAL_RANK"])
    torch.cuda.set_device(own)
    return own


@contextmanager
def first_alone_says() -> Iterator[None]:
    """Mistakes that all processes meet alike are told once."""
    try:
        yield
    except InputError:
        leave_it_to_the_first()
        raise


def leave_it_to_the_first() -> None:
    """Of several processes, the first one goes on from here, and says what is wrong; the others only where it has not ended by then."""
    if started_together().get("RANK"):
        _wait_for_the_first()


def tell_torchrun(line: str) -> None:
    """Why this process ends, for what torchrun prints last of it; else it points to its own page about tracebacks."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        said = {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}}
        with suppress(OSError):
            Path(file).write_text(json.dumps(said), encoding="utf-8")


def _end_after_the_first(status: int) -> NoReturn:
    """End without a word; but not before the first process, which says why: torchrun ends all as soon as one has ended."""
    _wait_for_the_first()
    sys.exit(status)


def _wait_for_the_first() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(60)


@contextmanager
def _told_when_ended() -> Iterator[None]:
    """torchrun ends all processes when one has ended: say so. By a thread, for the main one may wait in a kernel then."""
    read, write = os.pipe()
    os.set_blocking(write, False)

    def wait() -> None:
        while signals := os.read(read, 1):
            if signals[0] == signal.SIGTERM:
                os.write(2, ENDED.encode())
                os._exit(128 + signal.SIGTERM)
        os.close(read)

    before = signal.signal(signal.SIGTERM, lambda *_: None), signal.set_wakeup_fd(write)
    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.set_wakeup_fd(before[1])
        os.close(write)  # ends the thread


@contextmanager
def _team(place: "torch.device") -> "Iterator[Team]":
    """The processes of this command, the first of which leads; when it ends, the others are told."""
    import torch.distributed as dist

    from mask2dit.team import Team

    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    team = Team.form(place, led=True)
    _teams.append(team)
    try:
        _rooms.extend(team.gather(_room(place)))
        yield team
    except BaseException:
        if team.rank == 0 and team.listening:  # else they wait for something else, and end when this process has ended
            with suppress(Mask2DiTError):  # one that is gone already is no reason for another message
                team.send(("stop",))
        raise  # without taking leave of the others, which might wait for them
    else:
        if team.rank == 0:
            team.send(("stop",))
        dist.destroy_process_group()
    finally:
        _teams.clear()
        _rooms.clear()


def _follow(team: "Team") -> None:
    """Do what the leader asks for until it stops."""
    from mask2dit.cli.quiet import quieten_libraries
    from mask2dit.team import ON_DISK, follow

    quieten_libraries()
    use_all_cores()
    try:
        message = team.receive()
        while message[0] == "load":
            chosen, guided, kept, *rest = message[1:]
            try:
                pipeline = _loaded(team, replace(chosen, device=team.device), guided, _without_text(kept), (), *rest)
            except Mask2DiTError:
                _end_after_the_first(1)
            message = follow(pipeline.transformer, team)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        if is_out_of_memory(error):
            words = "is out of memory; make it smaller with --memory"
            raise Mask2DiTError(f"several devices: process {team.rank} {words}; {ON_DISK}") from error
        raise


def _without_text(kept: "Choice | None") -> "Choice | None":
    """Captions are encoded by the leader."""
    return kept and replace(kept, mode=replace(kept.mode, text_first=True))
