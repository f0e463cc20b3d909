"""`mask2dit words`: what the built-in model understands."""

import typer

BUILT_IN_LEVEL = "A"


def words() -> None:
    """List the words that the built-in model knows."""
    from mask2dit.playhouse import facts
    from mask2dit.playhouse.captions import words as known_words

    level = facts.LEVELS[BUILT_IN_LEVEL]
    groups = [
        ("actors", facts.SPECIES),
        ("colours", facts.COLOURS),
        ("places", facts.PLACES),
        ("light", facts.LIGHTS),
        ("actions", facts.ACTIONS),
        *([("worn", facts.ACCESSORIES[1:])] if level.accessories else []),
        *([("weather", facts.WEATHERS)] if level.weathers else []),
        *([("camera", facts.CAMERAS)] if level.cameras else []),
    ]
    for name, values in groups:
        typer.echo(f"{name + ':':<9} {', '.join(values)}")
    typer.echo(f"\nall words, with those for saying it in other ways:\n{' '.join(word for word in known_words() if word.isalnum())}")
