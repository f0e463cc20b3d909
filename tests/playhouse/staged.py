"""Stories with chosen facts, for tests that look at one of them."""

from dataclasses import replace

from mask2dit.playhouse.facts import Role, Stage, Story, draw_story


def staged(
    *,
    species: str = "bear",
    colour: str = "red",
    accessory: str = "none",
    action: str = "sleeps",
    place: str = "meadow",
    light: str = "day",
    weather: str = "clear",
    camera: str = "still",
    seed: int = 10_000,
) -> Story:
    """A story of one scene at level A's size, all facts given."""
    story = draw_story(seed, "A")
    actor = replace(story.actors[0], species=species, colour=colour, accessory=accessory)
    stage = Stage(place=place, light=light, weather=weather, camera=camera, roles=(Role(actor=0, action=action, position=0.0),))
    return replace(story, actors=(actor,), stages=(stage,))
