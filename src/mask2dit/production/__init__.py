"""A film in the making: its folder, its record, what is done already and what is still to do.

Owns everything between a checked request and the files of a film. How scenes are denoised and decoded is the pipeline's, how pictures
look on a sheet is film's, how a person sees progress is the command's.
"""

from mask2dit.production.folder import FilmFolder
from mask2dit.production.making import FilmInterrupted, arrange_film, make_candidates, make_film
from mask2dit.production.planning import Directions
from mask2dit.production.progress import Progress
from mask2dit.production.record import FilmRecord, FilmSettings, ModelAsked, SceneRecord
from mask2dit.production.seeds import scene_generator

__all__ = [
    "Directions",
    "FilmFolder",
    "FilmInterrupted",
    "FilmRecord",
    "FilmSettings",
    "ModelAsked",
    "Progress",
    "SceneRecord",
    "arrange_film",
    "make_candidates",
    "make_film",
    "scene_generator",
]
