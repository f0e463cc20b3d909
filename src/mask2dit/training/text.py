"""A first training of the built-in model's text encoder: every token of a caption learns what the whole caption says.

A transformer that is trained from nothing must find the word that matters among 32 tokens before a caption can teach it anything
(measured: after 15,000 scenes only the light was followed). So each token's output is first made to tell all facts of its caption; base
then goes on with encoder and transformer together.
"""

import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mask2dit.playhouse.captions import tell_story, words
from mask2dit.playhouse.facts import ACTIONS, COLOURS, LIGHTS, PLACES, SPECIES, TRAINING_SEEDS, draw_story
from mask2dit.playhouse.tokenizer import build_tokenizer
from mask2dit.text import encode_tokens, tokenize
from mask2dit.training.config import TextConfig, TextRecipe
from mask2dit.training.state import EMA, StateFile, learning_rate_factor
from mask2dit.training.vae import Report

FACTS: dict[str, tuple[str, ...]] = {"species": SPECIES, "colour": COLOURS, "action": ACTIONS, "place": PLACES, "light": LIGHTS}
EMPTY_CAPTION = 0.05  # share of captions that say nothing


def new_text_encoder(text: TextConfig, tokenizer: Any, seed: int) -> Any:
    """An untrained T5 encoder of the recipe's size."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=text.dim,
            d_kv=text.dim // text.num_heads,
            d_ff=2 * text.dim,
            num_layers=text.num_layers,
            num_heads=text.num_heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def train_text_encoder(recipe: TextRecipe, folder: Path, device: torch.device, report: Report) -> Path:
    """Train, resuming from `folder`; returns the folder that then holds text_encoder/ and tokenizer/."""
    tokenizer = build_tokenizer(words(), recipe.text.max_length)
    encoder = new_text_encoder(recipe.text, tokenizer, recipe.seed).to(device)
    # One more value each: "not said".
    heads = nn.ModuleDict({name: nn.Linear(recipe.text.dim, len(values) + 1) for name, values in FACTS.items()}).to(device)
    modules = {"text_encoder": encoder, "heads": heads}
    optimizer = torch.optim.AdamW(
        [p for module in modules.values() for p in module.parameters()], lr=recipe.learning_rate, weight_decay=0.0
    )
    ema = EMA(modules, recipe.ema_decay)
    run = StateFile(folder)
    first_step = run.resume(modules, ema, [optimizer])
    began = time.monotonic()
    for step in range(first_step, recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe.num_steps, recipe.warmup_steps, recipe.decay)
        captions, truth = draw_captions(recipe, step)
        loss, right = fact_loss(encoder, heads, tokenize(captions, tokenizer, recipe.text.max_length), truth.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], recipe.max_grad_norm)
        optimizer.step()
        ema.update(step)
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - began) / 60
            report(f"step {step + 1}/{recipe.num_steps}  loss {loss.item():.4f}  facts right at every token {right:.1%}  {minutes:.1f} min")
    run.save(modules, ema, [optimizer], recipe.num_steps)
    ema.swap()
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def draw_captions(recipe: TextRecipe, step: int) -> tuple[list[str], Tensor]:
    """The captions of one step and what they say: indices [B, facts], the last index of each being "not said"."""
    captions, truth = [], []
    for number in range(step * recipe.batch_size, (step + 1) * recipe.batch_size):
        rng = random.Random(f"text/{recipe.seed}/{number}")
        story = draw_story(TRAINING_SEEDS[rng.randrange(10**6)], recipe.level)
        told = tell_story(story, rng, rng.choice(("self-contained", "by-reference")))
        scene = rng.randrange(len(story.stages))
        stage, role = story.stages[scene], story.stages[scene].roles[0]
        actor = story.actors[role.actor]
        said = {"species": actor.species, "colour": actor.colour, "action": role.action, "place": stage.place, "light": stage.light}
        if (role.actor, "colour") not in told.named[scene]:
            del said["colour"]
        empty = rng.random() < EMPTY_CAPTION
        captions.append("" if empty else told.captions[scene])
        truth.append([len(values) if empty or name not in said else values.index(said[name]) for name, values in FACTS.items()])
    return captions, torch.tensor(truth)


def fact_loss(encoder: Any, heads: nn.ModuleDict, tokens: Tensor, truth: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of every fact at every token, padding included; and the share that is right."""
    rows = encode_tokens(tokens, encoder)  # [B, L, E]
    losses, right = [], []
    for column, name in enumerate(FACTS):
        logits = heads[name](rows)  # [B, L, values + 1]
        wanted = truth[:, column, None].expand(logits.shape[:2])
        losses.append(functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()))
        right.append((logits.argmax(-1) == wanted).float().mean())
    return torch.stack(losses).sum(), float(torch.stack(right).mean())
