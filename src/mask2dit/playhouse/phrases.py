"""The phrases of the grammar: every way in which a caption may say a fact. `captions` puts them together.

Every word of these tables turns up in training captions, so a word that is not here is one that the model never saw.
"""

from __future__ import annotations

Phrases = tuple[str, ...]

ACTION_PHRASES: dict[str, Phrases] = {
    "walks left": ("walks left", "walks to the left", "is walking left", "is walking to the left", "goes left", "moves to the left"),
    "walks right": ("walks right", "walks to the right", "is walking right", "is walking to the right", "goes right", "moves to the right"),
    "jumps": ("jumps", "jumps up", "is jumping", "hops", "leaps", "jumps into the air"),
    "spins": ("spins", "spins around", "is spinning", "turns around", "twirls", "is turning around"),
    "grows": ("grows", "grows bigger", "is growing", "gets bigger", "becomes larger", "is getting bigger"),
    "shrinks": ("shrinks", "becomes smaller", "is shrinking", "gets smaller", "is getting smaller"),
    "flies up": ("flies up", "flies", "is flying up", "flies into the sky", "takes off", "is flying"),
    "sleeps": ("sleeps", "is sleeping", "is asleep", "takes a nap", "naps"),
}

PLACE_PHRASES: dict[str, Phrases] = {
    "meadow": ("in a meadow", "in the meadow", "on a meadow", "on the grass", "in a grassy field"),
    "beach": ("on the beach", "on a beach", "on a sandy beach", "by the sea", "at the seaside"),
    "desert": ("in the desert", "in a desert", "in a hot desert", "among the dunes"),
    "snowfield": ("in the snow", "on a snowfield", "in a snowy field", "on the snow", "on the snowfield"),
    "city": ("in the city", "in a city", "on a city street", "in the street", "in town"),
    "forest": ("in the forest", "in a forest", "in the woods", "among the trees"),
    "cave": ("in a cave", "in the cave", "inside a cave", "inside the cave"),
    "space": ("in space", "in outer space", "on the moon", "on another planet"),
}

WAY_PHRASES: dict[str, Phrases] = {
    "meadow": ("across a meadow", "through the meadow", "across the grass"),
    "beach": ("along the beach", "across the beach", "along a sandy beach"),
    "desert": ("through the desert", "across a desert"),
    "snowfield": ("through the snow", "across a snowfield"),
    "city": ("through the city", "along a city street", "down the street"),
    "forest": ("through the forest", "through a forest", "through the woods"),
    "cave": ("through a cave", "through the cave"),
    "space": ("across the moon", "through space"),
}
"""Places as one crosses them; only for those who walk."""

LIT_PHRASES: dict[str, dict[str, str]] = {
    "day": {
        "meadow": "in a sunny meadow",
        "beach": "on a sunny beach",
        "desert": "in a sunny desert",
        "snowfield": "on a sunny snowfield",
        "city": "in a sunny city",
        "forest": "in a sunny forest",
    },
    "sunset": {},
    "night": {
        "meadow": "in a moonlit meadow",
        "beach": "on a moonlit beach",
        "desert": "in a moonlit desert",
        "snowfield": "on a moonlit snowfield",
        "city": "in a moonlit city",
        "forest": "in a moonlit forest",
    },
}
"""Place and light in one phrase."""

LIGHT_PHRASES: dict[str, Phrases] = {
    "day": ("by day", "in daylight", "during the day", "in the daytime", "under a bright sky", "on a sunny day", "in the sunshine"),
    "sunset": ("at sunset", "as the sun sets", "in the evening", "at dusk", "in the evening sun", "under a sunset sky"),
    "night": ("at night", "by night", "under the stars", "in the moonlight", "during the night", "on a starry night"),
}

SUNNY_PHRASES: Phrases = ("under a bright sky", "on a sunny day", "in the sunshine")
"""Phrases of the day that bad weather would make a lie."""

WEATHER_PHRASES: dict[str, Phrases] = {
    "clear": ("under a clear sky", "in clear weather"),
    "rain": ("in the rain", "while it rains", "as rain falls", "in rainy weather"),
    "snow": ("while it snows", "as snow falls", "in falling snow", "while snow is falling"),
}

CAMERA_PHRASES: dict[str, Phrases] = {
    "still": ("the camera stays still", "the camera is still"),
    "pans left": ("the camera pans left", "the camera pans to the left", "the camera moves left"),
    "pans right": ("the camera pans right", "the camera pans to the right", "the camera moves right"),
    "zooms in": ("the camera zooms in", "the camera moves closer", "the camera is zooming in"),
    "zooms out": ("the camera zooms out", "the camera moves away", "the camera is zooming out"),
}

ACCESSORY_PHRASES: dict[str, Phrases] = {
    "none": ("",),
    "hat": ("with a hat", "wearing a hat", "in a hat"),
    "scarf": ("with a scarf", "wearing a scarf", "in a scarf"),
    "glasses": ("with glasses", "wearing glasses"),
}

FULL_SUBJECTS: Phrases = ("{tag} ({article} {colour} {species}{worn})", "{tag}, {article} {colour} {species}{worn},")
"""A full description after the actor's tag, as the released weights expect it."""

UNTAGGED_SUBJECTS: Phrases = ("{article} {colour} {species}{worn}", "the {colour} {species}{worn}")

REFERENCE_SUBJECTS: Phrases = (
    "the {species}",
    "the same {species}",
    "{tag} the {species}",
    "{tag} (the {species})",
    "{tag}, the {species},",
)

TAGS: Phrases = ("Actor1", "Actor2", "Actor3")
GLUE: Phrases = ("and", ",", ".", "(", ")", "a", "an", "the")
