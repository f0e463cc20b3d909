"""A Hub on this machine: as much of its protocol as huggingface_hub speaks to fetch a model, and the faults that networks have.

Small files are served as they are, and .safetensors and .bin as the Hub serves large files: by way of another host.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt")


@dataclass
class Repository:
    """Commits, each a full set of files, and the branches and tags that name them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """What a file claims to weigh, where that is not its length."""
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """What the list of files says of it, where that is wrong."""
    closed: tuple[int, str] | None = None
    """Everybody may list the files, and who wants one is answered with this status and error code."""

    def commit(self, files: dict[str, bytes], *refs: str) -> str:
        """Add a commit and let names point to it."""
        sha = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs |= dict.fromkeys(refs, sha)
        return sha

    def size(self, path: str, content: bytes) -> int:
        return self.sizes.get(path, len(content))


def etag(path: str, content: bytes) -> str:
    """Git's name of a small file, the SHA-256 of a large one."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """Use as a context manager; `close` is the network going down, and every name here may be changed while it runs."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.gets: list[str] = []
        """The files whose content was asked for, one by one, with `bytes=…` behind a name that was asked for in part."""
        self.asked: list[str] = []
        """The paths of all other questions."""
        self.faults: dict[str, Iterator[str]] = {}
        """What befalls the next deliveries of a file: whole, half (then the line goes dead), or drop."""
        self.before: dict[str, Callable[[], object]] = {}
        """What happens on this side before a file is delivered, or a path of the API answered."""
        self.status: int | None = None
        """The answer to everything, whatever was asked."""
        self.error_code, self.error_message = "", "refused"
        self.released = threading.Event()
        """Questions wait for it."""
        self.released.set()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage_url(self) -> str:
        """The host that keeps the large files: another name."""
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.released.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def delivery(self, path: str, part: str | None) -> str:
        """Count a delivery, and say what becomes of it."""
        with self._lock:
            self.gets.append(f"{path} {part}" if part else path)
            fault = next(self.faults[path], "whole") if path in self.faults else "whole"
        self.before.get(path, lambda: None)()
        return fault


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # a caller that finds the queue full comes back a second later


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    disable_nagle_algorithm = True  # 40 ms per answer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if "resolve" not in parts and parts[0] != "storage":
            self.hub.asked.append(url.path)
        if parts[:2] == ["api", "models"]:
            self.hub.released.wait(5)
            self.hub.before.get(url.path, lambda: None)()
        if self.hub.status is not None:
            return self.refuse(self.hub.status, self.hub.error_code)
        match parts:
            case ["storage", digest, path]:
                return self.deliver(path, next(files[path] for files in self.commits() if etag(path, files.get(path, b"")) == digest))
            case ["api", "models", owner, name, *rest] | [owner, name, "resolve", *rest]:
                repository = self.hub.repositories.get(f"{owner}/{name}")
                if repository is None:
                    return self.refuse(401, "RepoNotFound")
                revision = rest[0] if parts[0] != "api" else rest[1] if rest else "main"
                sha = revision if revision in repository.commits else repository.refs.get(revision)
                if sha is None:
                    return self.refuse(404, "RevisionNotFound")
                if parts[0] != "api":
                    return self.resolve(repository, sha, "/".join(rest[1:]))
                if rest[:1] == ["tree"]:
                    return self.tell(tree(repository, sha))
                return self.tell(info(repository, f"{owner}/{name}", sha, blobs="blobs" in parse_qs(url.query)))
        self.refuse(404, "")

    def commits(self) -> list[dict[str, bytes]]:
        return [files for repository in self.hub.repositories.values() for files in repository.commits.values()]

    def resolve(self, repository: Repository, sha: str, path: str) -> None:
        files = repository.commits[sha]
        if repository.closed:
            return self.refuse(*repository.closed)
        if path not in files:
            return self.refuse(404, "EntryNotFound")
        content = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag(path, content)}"'}
        if not path.endswith(LARGE):
            return self.deliver(path, content, headers)
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(repository.size(path, content)), "Content-Length": "0"}
        self.begin(302, headers | {"Location": f"{self.hub.storage_url}/storage/{etag(path, content)}/{path.replace('/', '%2F')}"})

    def deliver(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a file, or the part that was asked for, and do to it what was planned."""
        size = max(repository.size(path, content) for repository in self.hub.repositories.values())
        part = self.headers.get("Range")
        start = int(part.removeprefix("bytes=").split("-")[0]) if part else 0
        lengths = {"Content-Length": str(size - start), "Accept-Ranges": "bytes"}
        if part:
            lengths["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        fault = "whole" if self.command == "HEAD" else self.hub.delivery(path, part)
        if fault == "drop":
            return
        self.begin(206 if part else 200, (headers or {}) | lengths)
        if self.command == "GET":
            self.wfile.write(content[start:] if fault == "whole" else content[start : (start + len(content)) // 2])

    def tell(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.begin(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def refuse(self, status: int, code: str) -> None:
        self.begin(status, {"X-Error-Code": code, "X-Error-Message": self.hub.error_message, "Content-Length": "0"})

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def info(repository: Repository, hub_id: str, sha: str, blobs: bool) -> dict[str, Any]:
    """The answer of /api/models/…"""
    siblings: list[dict[str, Any]] = []
    for path, content in repository.commits[sha].items():
        siblings.append({"rfilename": path})
        if blobs:
            size, name = repository.listed_sizes.get(path, repository.size(path, content)), etag(path, content)
            siblings[-1] |= {"size": size, "blobId": name[:40]}
            if path.endswith(LARGE):
                siblings[-1]["lfs"] = {"sha256": name, "size": size, "pointerSize": 134}
    facts = {"id": hub_id, "modelId": hub_id, "sha": sha, "private": False, "disabled": False, "tags": [], "downloads": 1, "likes": 1}
    return facts | {"gated": "manual" if repository.closed else False, "siblings": siblings}


def tree(repository: Repository, sha: str) -> list[dict[str, Any]]:
    """The answer of /api/models/…/tree/…?recursive=True"""
    entries: list[dict[str, Any]] = []
    for path, content in repository.commits[sha].items():
        size, name = repository.size(path, content), etag(path, content)
        entries.append({"type": "file", "path": path, "size": size, "oid": name[:40]})
        if path.endswith(LARGE):
            entries[-1]["lfs"] = {"oid": name, "size": size, "pointerSize": 134}
    folders = {path.rsplit("/", 1)[0] for path in repository.commits[sha] if "/" in path}
    return entries + [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
