"""The page: whatever people write and a film holds, one file shows it all, by itself and safely."""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from mask2dit.errors import InputError
from mask2dit.production import page as page_module
from mask2dit.production.page import CutRow, PageCheck, PageData, PageScene, PageTake, page, stills
from mask2dit.production.timeline import Clip, Timeline
from mask2dit.video_files import join_videos, write_video

EVIL = "<script>alert('x')</script> \"quoted\" & </title></p>--> ' onload='x' $title ${film} 🦊 漢字 <img src=http://example.com/a.png>"
NUM_FRAMES = 9
FPS = 8


def frames_of(number: int) -> np.ndarray:
    colour = np.random.default_rng(number).integers(0, 255, 3, dtype=np.uint8)
    frames = np.broadcast_to(colour, (NUM_FRAMES, 64, 96, 3)).copy()
    frames[:, :8] = np.arange(NUM_FRAMES, dtype=np.uint8)[:, None, None, None] * 20
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of twelve scenes, and of three; scene 2 has an earlier take."""
    folder = tmp_path_factory.mktemp("films") / "a film"
    for number in range(1, 13):
        write_video(folder / f"scenes/scene-{number:02d}.mp4", frames_of(number), FPS)
    for count in (1, 3, 12):
        join_videos(folder / f"film {count}.mp4", [folder / f"scenes/scene-{number:02d}.mp4" for number in range(1, count + 1)])
    write_video(folder / "takes/scene-02/take-1.mp4", frames_of(20), FPS)
    return folder


def data_of(count: int = 3, caption: str = "a fox walks", *, check: bool = True) -> PageData:
    clips = tuple(Clip(number, f"{caption} {number}", NUM_FRAMES, f"scenes/scene-{number:02d}.mp4") for number in range(1, count + 1))
    takes = (
        PageTake(
            "take 1", video="takes/scene-02/take-1.mp4", still=stills(frames_of(20), 1)[0], command="mask2dit remake 'a film' --take 1"
        ),
        PageTake("take 2", current=True, still=stills(frames_of(2), 1)[0]),
    )
    scenes = tuple(
        PageScene(seed=number, made="jointly with scenes 1, 2, 3", stills=stills(frames_of(number)), takes=takes if number == 2 else ())
        for number in range(1, count + 1)
    )
    starts = [NUM_FRAMES * number for number in range(1, count)]
    cuts = tuple(CutRow(start, start + 1 if start == NUM_FRAMES else None) for start in starts)
    found = PageCheck(cuts, unwanted=(4,), sca=0.9876, drift=((1, 0.0), (count, 0.25)), notes=("looked for cuts",))
    timeline = Timeline("The fox's day", FPS, 96, 64, clips)
    return PageData(timeline, scenes, (("seed", "7"),), found if check else None, ("film.edl", "run.json"), f"film {count}.mp4")


VOID = {"meta", "img", "br", "link", "input", "hr"}


class Tree(HTMLParser):
    """Every element with its attributes, and the text outside of scripts and styles; tags must close in the order in which they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        (self.scripts if inside == "script" else self.words if inside != "style" else []).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("check", [True, False])
def test_every_scene_is_shown(folder: Path, count: int, check: bool) -> None:
    tree = Tree(page(data_of(count, check=check), folder))
    assert [card["id"] for card in tree.all("article")] == [f"scene-{number}" for number in range(1, count + 1)]
    strip = [float(button["data-start"]) for button in tree.all("button") if "data-start" in button]
    assert strip == [NUM_FRAMES * index / FPS for index in range(count)]
    for number in range(1, count + 1):
        assert f"a fox walks {number}" in tree.text and f"scenes/scene-{number:02d}.mp4" in tree.text
    assert ("SCA" in tree.text) == check and "0:01.125" in tree.text
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_takes_name_the_command_that_chooses_them(folder: Path) -> None:
    tree = Tree(page(data_of(), folder))
    assert "mask2dit remake 'a film' --take 1" in tree.text and "take 2 in the film" in tree.text
    assert len(tree.all("video")) == 2 and [figure.get("class") for figure in tree.all("figure")] == [None, "current"]
    assert len(tree.all("figure")) == 2


def test_the_check_says_what_was_found_and_what_was_not(folder: Path) -> None:
    text = Tree(page(data_of(), folder)).text
    assert "1 of 2 cuts found" in text and "Into scene 2 0:01.125 9 0:01.250 10 +1 frame +0.125 s" in text
    assert "Into scene 3 0:02.250 18 not found" in text and "0:00.500 4 scene 1" in text and "0.988 SCA" in text
    assert "looked for cuts" in text
    empty = PageCheck()
    assert "0 unwanted cuts" in Tree(page(replace(data_of(), check=empty), folder)).text


def test_what_people_write_is_only_ever_text(folder: Path) -> None:
    data = data_of(2 + 1, EVIL)
    scenes = tuple(
        replace(scene, made=EVIL, notes=(EVIL,), takes=tuple(replace(take, label=EVIL, command=EVIL) for take in scene.takes))
        for scene in data.scenes
    )
    data = replace(data, timeline=replace(data.timeline, title=EVIL), scenes=scenes, facts=((EVIL, EVIL),), files=(EVIL,))
    harmless, written = Tree(page(data_of(), folder)), page(data, folder)
    tree = Tree(written)
    assert tree.scripts == harmless.scripts and len(tree.scripts) == 1
    assert tree.text.count(" ".join(EVIL.split())) >= 10
    plain = [tag for tag, _ in harmless.elements]
    assert sorted({tag for tag, _ in tree.elements}) == sorted(set(plain)) and len(tree.all("img")) == len(harmless.all("img"))
    assert not [name for _, attributes in tree.elements for name in attributes if name.startswith("on")]
    assert unquote(tree.all("a")[-1]["href"]) == EVIL


def test_nothing_is_loaded_from_anywhere(folder: Path) -> None:
    text = page(data_of(), folder)
    tree = Tree(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    for tag, attributes in tree.elements:
        for name in ("src", "poster"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
        assert "srcset" not in attributes and tag not in ("link", "iframe", "object", "embed")
    links = [unquote(link["href"]) for link in tree.all("a")]
    assert links[-2:] == ["film.edl", "run.json"] and not any(link.startswith(("/", "file:")) for link in links)
    assert str(folder) not in text


def test_the_videos_in_the_page_are_those_of_the_folder(folder: Path) -> None:
    videos = [video["src"] for video in Tree(page(data_of(), folder)).all("video")]
    names = ["film 3.mp4", "takes/scene-02/take-1.mp4"]
    assert [base64.b64decode(source.removeprefix("data:video/mp4;base64,")) for source in videos] == [
        (folder / name).read_bytes() for name in names
    ]


def test_large_videos_stay_in_the_folder_and_the_page_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = (folder / "film 3.mp4").stat().st_size
    take = (folder / "takes/scene-02/take-1.mp4").stat().st_size
    inside = Tree(page(data_of(), folder))
    assert "inside this one file" in inside.text and "too large" not in inside.text
    for limit, embedded in ((film + take, 2), (film + take - 1, 1), (film - 1, 0)):
        monkeypatch.setattr(page_module, "LARGEST_EMBEDDED", limit)
        tree = Tree(page(data_of(), folder))
        sources = [video["src"] for video in tree.all("video")]
        assert [source.startswith("data:") for source in sources] == [True] * embedded + [False] * (2 - embedded)
        assert [source for source in sources if not source.startswith("data:")] == ["film%203.mp4", "takes/scene-02/take-1.mp4"][embedded:]
        assert ("too large" in tree.text) == (embedded < 2)


def test_a_page_may_lack_stills_seeds_and_facts(folder: Path) -> None:
    data = replace(data_of(check=False), facts=(), files=(), scenes=(PageScene(),) * 3)
    tree = Tree(page(data, folder))
    assert len(tree.all("article")) == 3 and not tree.all("img") and "seed" not in tree.text and "None" not in tree.text


def test_a_missing_video_and_a_broken_picture_are_said(folder: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        page(replace(data_of(), film="gone.mp4"), folder)
    with pytest.raises(InputError, match="no known picture"):
        page(replace(data_of(), scenes=(PageScene(stills=(b"text",)),) * 3), folder)


def test_stills_are_spread_over_the_scene_and_small() -> None:
    assert len(stills(frames_of(1))) == 3 and all(still.startswith(b"\xff\xd8\xff") for still in stills(frames_of(1)))
    noise = np.random.default_rng(0).integers(0, 255, (2, 540, 960, 3), dtype=np.uint8)
    assert all(len(still) < 200_000 for still in stills(noise))


class Browser:
    """Chromium without a window, spoken to through two pipes."""

    def __init__(self, profile: Path) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()

        def connect() -> None:  # Chromium reads commands from file 3 and answers to file 4
            kept = os.dup(commands), os.dup(answers)
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        options = ["--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
        command = ["chromium", *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet, close_fds=False, preexec_fn=connect)
        os.close(commands)
        os.close(answers)
        self._answers = os.fdopen(self._read, "rb")
        self._ids = itertools.count(1)
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        os.write(self._write, json.dumps({"id": number, "method": method, "params": params} | self._session).encode() + b"\0")
        while (answer := self._answer()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return dict(answer["result"])

    def _answer(self) -> dict[str, Any]:
        text = b"".join(iter(lambda: self._answers.read(1), b"\0"))
        return dict(json.loads(text))

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.run("new Promise(done => { const look = () => document.readyState === 'complete' ? done() : setTimeout(look, 20); look(); })")
        self.wait("document.getElementById('film').readyState >= 2")

    def wait(self, condition: str) -> None:
        """Until it holds; the page gives up after ten seconds."""
        look = f"const look = () => ({condition}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 20); look();"
        assert self.run(f"new Promise(done => {{ const end = Date.now() + 10000; {look} }})"), condition

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def click(self, selector: str) -> None:
        at = self.run(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def close(self) -> None:
        os.close(self._write)  # Chromium ends with its pipe
        self._process.wait(30)
        self._answers.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium on this machine")
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


CURRENT = "document.querySelector('#strip [aria-current]').getAttribute('aria-label')"


@pytest.mark.slow
@pytest.mark.parametrize("linked", [False, True])
def test_a_browser_plays_the_scene_that_is_clicked(folder: Path, browser: Browser, linked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if linked:
        monkeypatch.setattr(page_module, "LARGEST_EMBEDDED", 0)
    file = folder / "index.html"
    file.write_text(page(data_of(12, EVIL), folder), encoding="utf-8")
    browser.open(file.as_uri())
    film = "document.getElementById('film')"
    assert browser.run(f"{film}.duration") == pytest.approx(12 * NUM_FRAMES / FPS, abs=0.01)
    assert browser.run(CURRENT) == "Play scene 1" and browser.run(f"{film}.paused")

    start = 4 * NUM_FRAMES / FPS
    browser.click("#strip button:nth-of-type(5)")
    browser.wait(f"{film}.currentTime > {start + 0.1} && !{film}.paused")
    assert browser.run(CURRENT) == "Play scene 5" and browser.run(f"{film}.currentTime") < start + NUM_FRAMES / FPS
    browser.wait(f"{CURRENT} === 'Play scene 6'")  # it plays on, and the mark goes along
    browser.press(" ")
    browser.wait(f"{film}.paused")

    browser.click("#scene-9 .number")
    browser.wait(f"{CURRENT} === 'Play scene 9' && !{film}.seeking")
    browser.run(f"{film}.pause()")
    browser.press("ArrowLeft")
    browser.wait(f"{CURRENT} === 'Play scene 8' && !{film}.seeking")
    assert browser.run(f"{film}.currentTime") == pytest.approx(7 * NUM_FRAMES / FPS, abs=0.5 / FPS)
    assert browser.run("document.querySelector('.now .on bdi').textContent") == f"{EVIL} 8"
    for _ in range(9):
        browser.press("ArrowRight")
    browser.wait(f"{CURRENT} === 'Play scene 12'")

    browser.click("[data-take]")
    browser.wait("document.querySelector('[data-take] video').currentTime > 0.05")
    browser.open(f"{file.as_uri()}#scene-3")
    browser.wait(f"{CURRENT} === 'Play scene 3' && Math.abs({film}.currentTime - {2 * NUM_FRAMES / FPS}) < {0.5 / FPS}")

    complaints = [
        event
        for event in browser.events
        if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
    ]
    asked = {
        event["params"]["request"]["url"].partition("#")[0] for event in browser.events if event["method"] == "Network.requestWillBeSent"
    }
    beside = {(folder / name).as_uri() for name in ("film 12.mp4", "takes/scene-02/take-1.mp4")} if linked else set()
    assert not complaints
    assert {url for url in asked if not url.startswith(("data:", "blob:", "about:"))} == {file.as_uri()} | beside


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 400, 800, 1440])
def test_a_page_fits_any_screen(folder: Path, browser: Browser, width: int) -> None:
    file = folder / "wide.html"
    file.write_text(page(data_of(12, EVIL + " " + "x" * 300), folder), encoding="utf-8")
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.open(file.as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= width
