"""What is filmed to be measured: our own benchmark, the playhouse's held-out stories, ST-Bench, EntityBench, or storyboards of one's own.

Owns which prompt set a name or a path stands for; each set is a module here. Needs no torch.
"""

from pathlib import Path

from mask2dit.errors import InputError
from mask2dit.evaluation.prompt_sets.entity_bench import FOLDERS as ENTITY_BENCH_FOLDERS
from mask2dit.evaluation.prompt_sets.entity_bench import is_entity_bench, read_entity_bench
from mask2dit.evaluation.prompt_sets.files import INDEX, SUFFIXES, data_in, files_of, read_storyboards
from mask2dit.evaluation.prompt_sets.item import PromptSetItem, scenes_that_share
from mask2dit.evaluation.prompt_sets.playhouse import playhouse_set
from mask2dit.evaluation.prompt_sets.st_bench import FOLDERS as ST_BENCH_FOLDERS
from mask2dit.evaluation.prompt_sets.st_bench import is_st_bench, read_st_bench
from mask2dit.evaluation.prompt_sets.structure import check_prompt_set, read_benchmark

__all__ = [
    "PromptSetItem",
    "check_prompt_set",
    "load_prompt_set",
    "playhouse_set",
    "read_benchmark",
    "read_entity_bench",
    "read_st_bench",
    "read_storyboards",
    "scenes_that_share",
]

NAMES = ("benchmark", "playhouse")


def load_prompt_set(name_or_path: str | Path) -> tuple[PromptSetItem, ...]:
    """The set of a name (benchmark, playhouse), or of a file or folder, known by what its first file holds.

    A folder that is called like a set is meant by ./name. Raises InputError or StoryboardError.
    """
    if name_or_path == "benchmark":
        return read_benchmark()
    if name_or_path == "playhouse":
        return playhouse_set()
    path = Path(name_or_path)
    if not path.exists():
        raise InputError(f"{path}: there is no such prompt set, expected {', '.join(NAMES)}, or a file or folder; check the name")
    if (path / INDEX).is_file():
        return read_benchmark(path)
    first = data_in(files_of(path, SUFFIXES, inside=(*ENTITY_BENCH_FOLDERS, *ST_BENCH_FOLDERS))[0])
    if is_entity_bench(first):
        return read_entity_bench(path)
    if is_st_bench(first):
        return read_st_bench(path)
    return read_storyboards(path)
