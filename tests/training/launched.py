"""Started by torchrun in the tests: what only the processes themselves can see."""

import sys
from pathlib import Path

from torch.distributed.tensor import DTensor

from mask2dit.training import loop
from mask2dit.training.checkpoints import RunFolder
from mask2dit.training.config import DiffusionRecipe, read_recipe


class Silent:
    def line(self, text: str) -> None:
        pass

    live = line


def main(recipe_path: str, run: str, wanted: str) -> None:
    recipe = read_recipe(Path(recipe_path), [], Path(run).parent)
    assert isinstance(recipe, DiffusionRecipe)
    accelerator = loop.start_accelerator(recipe, Path(run))
    assert accelerator.num_processes == 2
    folder = RunFolder(Path(run), recipe, accelerator.is_main_process, accelerator.wait_for_everyone)
    training = loop.prepare(recipe, folder, accelerator, Silent())
    sharded = [isinstance(p, DTensor) for p in training.trained]
    assert all(sharded) if wanted == "sharded" else not any(sharded)
    if wanted == "sharded":
        assert all(p.to_local().numel() <= p.numel() / 2 + p[0].numel() for p in training.trained)


if __name__ == "__main__":
    main(*sys.argv[1:])
