"""What is made of all scenes of a film: film.mp4, the contact sheet, the preview, the check, the hand-off to an editor, the page.

Read from the scenes' videos, so that a resumed run ends in the same files.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from mask2dit import film
from mask2dit.cuts import FilmCheck, check_frames
from mask2dit.production.folder import FilmFolder
from mask2dit.production.page import CutRow, PageCheck, PageData, PageScene, PageTake, page, stills
from mask2dit.production.planning import list_scenes
from mask2dit.production.record import FilmRecord, SceneRecord, Take
from mask2dit.production.timeline import Clip, Timeline, edl, otio, srt
from mask2dit.video_files import Frame, join_videos, read_first_frame, read_video


def join(folder: FilmFolder, record: FilmRecord, step_done: Callable[[], None], *, subtitles: bool) -> FilmCheck:
    """Write the film and all that is made with it, but for the page; `step_done` is called once per scene and three times more."""
    rows: list[film.SheetRow] = []
    preview: list[Image.Image] = []
    step = film.preview_step(sum(scene.inputs.num_frames for _, scene in record.shown))

    def frames() -> Iterator[Frame]:
        for number, scene in record.shown:
            seen = read_video(folder.scene_video(number), record.made_with.fps)
            pictures = [film.sheet_picture(frame) for frame in film.pick(seen)]
            rows.append(film.SheetRow(pictures, scene.inputs.caption, _note(record, scene), number))
            preview.extend(film.preview_frame(frame) for frame in seen[::step])
            yield from seen
            step_done()

    check = check_frames(frames(), [scene.inputs.num_frames for _, scene in record.shown])
    join_videos(folder.film, [folder.scene_video(number) for number, _ in record.shown])
    step_done()
    folder.write_image(folder.contact_sheet, film.contact_sheet(record.title, _subtitle(record), rows))
    step_done()
    folder.write_bytes(folder.preview, film.animated_preview(preview, record.made_with.fps / step))
    timeline = timeline_of(folder, record)
    folder.write_bytes(folder.edl, edl(timeline).encode())
    folder.write_bytes(folder.otio, otio(timeline).encode())
    if subtitles or folder.subtitles.exists():
        folder.write_bytes(folder.subtitles, srt(timeline).encode())
    step_done()
    return check


def timeline_of(folder: FilmFolder, record: FilmRecord) -> Timeline:
    """The film's scenes as an editor sees them."""
    scale = record.display_scale
    clips = (
        Clip(number, scene.inputs.caption, scene.inputs.num_frames, folder.name(folder.scene_video(number)))
        for number, scene in record.shown
    )
    return Timeline(record.title, record.made_with.fps, record.made_with.width * scale, record.made_with.height * scale, tuple(clips))


def write_candidates_sheet(folder: FilmFolder, number: int, takes: Sequence[Take]) -> Path:
    """Takes of one scene side by side, a row each, in a picture beside them; returns its path."""
    record = folder.read_record()
    rows = []
    for take in takes:
        frames = read_video(folder.take_video(take), take.made_with.fps)
        rows.append(film.SheetRow(film.pick(frames), take.inputs.caption, f"take {take.number}  ·  seed {take.inputs.seed}", take.number))
    path = folder.take_video(takes[0]).with_name("takes.png")
    subtitle = f"{len(takes)} takes  ·  {takes[0].inputs.num_frames / takes[0].made_with.fps:.1f} s each"
    folder.write_image(path, film.contact_sheet(f"{record.title}: takes of scene {number}", subtitle, rows))
    return path


def _note(record: FilmRecord, scene: SceneRecord) -> str:
    inputs = scene.inputs
    length = f"{inputs.num_frames / record.made_with.fps:.1f} s  ·  {inputs.num_frames} frames"
    return f"{length}  ·  given" if inputs.given else f"{length}  ·  seed {inputs.seed}  ·  guidance {inputs.guidance_scale:g}"


def _subtitle(record: FilmRecord) -> str:
    made_with, scale, count = record.made_with, record.display_scale, len(record.shown)
    size = f"{made_with.width * scale} by {made_with.height * scale} pixels"
    enlarged = f" ({made_with.width} by {made_with.height}, enlarged)" if scale > 1 else ""
    facts = (
        f"{count} scene{'s' * (count > 1)}",
        f"{record.duration_seconds:.1f} s",
        size + enlarged,
        f"{made_with.num_inference_steps} steps",
    )
    return "  ·  ".join(facts)


# The page


def page_of(folder: FilmFolder, record: FilmRecord) -> str:
    """index.html: the film, its scenes with their captions and takes, and the check."""
    made_with = record.made_with
    facts = (
        ("size", f"{made_with.width} × {made_with.height}"),
        ("rate", f"{made_with.fps:g} frames a second"),
        ("length", f"{record.duration_seconds:.1f} s"),
        ("model", made_with.model),
        ("steps", made_with.steps),
        ("plan", made_with.attention_plan),
        ("seed", str(record.settings.seed)),
    )
    files = [path.name for path in (*folder.results(), folder.subtitles, folder.record) if path.exists() and path != folder.page]
    scenes = tuple(_page_scene(folder, record, number, scene) for number, scene in record.shown)
    checked = _page_check(record, record.check) if record.check else None
    return page(PageData(timeline_of(folder, record), scenes, facts, checked, tuple(files)), folder.path)


def _page_scene(folder: FilmFolder, record: FilmRecord, number: int, scene: SceneRecord) -> PageScene:
    take = record.take(scene.number, scene.take)
    frames = read_video(folder.scene_video(number), record.made_with.fps)
    takes = record.takes_of(scene.number)
    shown = tuple(_page_take(folder, number, each, each == take) for each in takes) if len(takes) > 1 else ()
    seed = None if scene.inputs.given else scene.inputs.seed
    return PageScene(seed=seed, made=how_made(record, take) if take else "", stills=stills(frames), takes=shown)


def _page_take(folder: FilmFolder, number: int, take: Take, current: bool) -> PageTake:
    video = folder.take_video(take)
    words = ["mask2dit", "remake", folder.path.name, "--scene", str(number), "--take", str(take.number)]
    return PageTake(
        label=f"take {take.number}, seed {take.inputs.seed}",
        current=current,
        video=folder.name(video) if video.exists() else None,
        still=stills(read_first_frame(video)[None], 1)[0] if video.exists() else None,
        command="" if current else shlex.join(words),
    )


def how_made(record: FilmRecord, take: Take) -> str:
    """In words; scenes by their numbers in the storyboard, those that are gone left out."""
    if take.inputs.given:
        return "given as a video"
    numbers = {scene.number: number for number, scene in enumerate(record.scenes, start=1)}
    others = sorted(numbers[own] for own in take.jointly if own in numbers)
    known = sorted(numbers[each.scene] for each in take.known if each.scene in numbers)
    parts = [f"jointly with {list_scenes(others)}"] if others else []
    parts += [f"with {list_scenes(known)} known"] if known else []
    return ", ".join(parts) or "by itself"


def _page_check(record: FilmRecord, check: FilmCheck) -> PageCheck:
    found, numbers = dict(check.pairs), [number for number, _ in record.shown]
    drift = tuple((number, scene.colour_drift) for number, scene in zip(numbers, check.scenes, strict=True))
    notes = (
        f"SCA: 1 is perfect; a missed or unwanted cut costs {check.price_frames:.4g} frames.",
        "Drift: distance of a scene's mean colour from the first scene's, ΔE in CIELAB.",
        f"Detector: {check.detector}",
        *check.notes(numbers),
    )
    return PageCheck(tuple(CutRow(asked, found.get(asked)) for asked in check.asked), check.extra, check.sca, drift[1:], notes)
