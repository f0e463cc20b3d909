"""`python -m mask2dit.training recipes/….yaml --run FOLDER [key=value …]`: train, or go on where the run stopped."""

import argparse
import sys
import time
from pathlib import Path

import torch

from mask2dit.errors import Mask2DiTError
from mask2dit.training.config import JudgeRecipe, TextRecipe, VAERecipe, read_recipe


def main() -> int:
    """Parse, train, and say where the result is."""
    parser = argparse.ArgumentParser(prog="python -m mask2dit.training", description="Train a part of the built-in model.")
    parser.add_argument("recipe", type=Path, help="a YAML file, see recipes/")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; an earlier state in it is resumed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="changes of the recipe")
    arguments = parser.parse_intermixed_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        recipe = read_recipe(arguments.recipe, arguments.changes)
        beside = {name: getattr(recipe, name, None) for name in ("start_from", "text_from", "vae")}
        recipe = recipe.model_copy(update={name: str(arguments.run.parent / path) for name, path in beside.items() if path is not None})
        if isinstance(recipe, VAERecipe):
            from mask2dit.training.vae import train_vae

            result = train_vae(recipe, arguments.run, torch.device(arguments.device), _report)
        elif isinstance(recipe, TextRecipe):
            from mask2dit.training.text import train_text_encoder

            result = train_text_encoder(recipe, arguments.run, torch.device(arguments.device), _report)
        elif isinstance(recipe, JudgeRecipe):
            from mask2dit.training.judge import train_judge

            result = train_judge(recipe, arguments.run, torch.device(arguments.device), _report)
        else:
            from mask2dit.training.loop import train_diffusion

            result = train_diffusion(recipe, arguments.run, torch.device(arguments.device), _report)
    except Mask2DiTError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped; the same command goes on from the last state in {arguments.run}\n")
        return 130
    _report(f"written: {result}")
    return 0


def _report(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
