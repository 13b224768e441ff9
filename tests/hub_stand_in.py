"""A stand-in of the Hugging Face Hub on 127.0.0.1: what huggingface_hub asks of it to make, fill and read repositories.

Its answers have the form of the real ones: repositories with commits, LFS objects behind redirects, ETags and
X-Repo-Commit, X-Error-Code for what is not there, 401 to those who may not know.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"
USER = "ada"
IS_LFS = (".onnx", ".pt", ".png")


@dataclass
class Repository:
    """Commits, oldest first: the files of each, by name."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main", deleted: Collection[str] = ()) -> str:
        """Add a commit with `files` besides those of the one before that are not `deleted`; gives its hash."""
        before = self.commits.get(self.refs.get(branch, ""), {})
        before = {name: data for name, data in before.items() if name not in deleted}
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid] = {**before, **files}
        self.refs[branch] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag or a hash."""
        return revision if revision in self.commits else self.refs.get(revision)


class Hub(ThreadingHTTPServer):
    """The server, and what it holds. Repositories are by type and name: ("model", "ada/words")."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuses_writing = False
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.store_url = f"http://localhost:{self.server_port}/objects"  # another host, as the real one's

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", **options: bool) -> Repository:
        """A repository with one commit."""
        repository = Repository(**options)
        repository.commit(files)
        self.repositories[kind, name] = repository
        return repository


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = self.start()
        if match := re.fullmatch(r"/api/(model|space)s/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.tell_info(*match.groups())
        elif match := re.fullmatch(r"/objects/([0-9a-f]{64})", path):
            self.answer(200, self.server.objects[match[1]])
        elif match := re.fullmatch(r"/api/(model|space)s/([^/]+/[^/]+)/tree/(.+)", path):
            self.tell_tree(*match.groups())
        elif match := re.fullmatch(r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve("space" if match[1] else "model", match[2], match[3], match[4])
        else:
            self.answer(404, b"")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path = self.start()
        if path == "/api/validate-yaml":
            has_front = json.loads(self.body)["content"].startswith("---\n")
            self.answer_json({"errors": [], "warnings": [] if has_front else [{"message": "empty"}]})
        elif not self.may_write():
            return
        elif path == "/api/repos/create":
            self.create(json.loads(self.body))
        elif match := re.fullmatch(r"/api/(model|space)s/([^/]+/[^/]+)/preupload/(.+)", path):
            names = [file["path"] for file in json.loads(self.body)["files"]]
            modes = {name: "lfs" if name.endswith(IS_LFS) else "regular" for name in names}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            self.answer_json({"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.answer_json(
                {"transfer": "basic", "objects": [self.place_for(o) for o in json.loads(self.body)["objects"]]}
            )
        elif match := re.fullmatch(r"/api/(model|space)s/([^/]+/[^/]+)/commit/(.+)", path):
            self.commit(*match.groups())
        else:
            self.answer(404, b"")

    def do_PUT(self) -> None:
        oid = self.start().rpartition("/")[2]
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.answer(400, b"the sum does not fit")
            return
        self.server.objects[oid] = self.body
        self.answer(200, b"")

    def start(self) -> str:
        self.server.requests.append(f"{self.command} {self.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return unquote(urlsplit(self.path).path)

    def create(self, asked: dict[str, Any]) -> None:
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or USER}/{asked['name']}"
        url = f"{self.server.url}/{'spaces/' if kind == 'space' else ''}{name}"
        if name.partition("/")[0] != USER:
            self.answer_json({"error": "You don't have the rights to create a repository here"}, 403)
        elif (kind, name) in self.server.repositories:
            self.answer_json({"error": "You already created this repository", "url": url}, 409)
        else:
            is_private = asked.get("private") or asked.get("visibility") == "private"
            self.server.add(name, {".gitattributes": b"*.onnx filter=lfs\n"}, kind, private=bool(is_private))
            self.answer_json({"url": url})

    def place_for(self, wanted: dict[str, Any]) -> dict[str, Any]:
        known = wanted["oid"] in self.server.objects
        place = {"upload": {"href": f"{self.server.store_url}/{wanted['oid']}", "header": {}}}
        return {"oid": wanted["oid"], "size": wanted["size"], **({} if known else {"actions": place})}

    def commit(self, kind: str, name: str, branch: str) -> None:
        files, deleted = {}, []
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                deleted.append(value["path"])
        oid = self.server.repositories[kind, name].commit(files, branch, deleted)
        url = f"{self.server.url}/{'spaces/' if kind == 'space' else ''}{name}/commit/{oid}"
        self.answer_json({"success": True, "commitOid": oid, "commitUrl": url})

    def tell_info(self, kind: str, name: str, revision: str | None) -> None:
        if found := self.look_up(kind, name, revision or "main"):
            repository, oid = found
            files = [self.file_info(file, data) for file, data in repository.commits[oid].items()]
            facts = {"id": name, "modelId": name, "private": repository.private, "tags": [], "downloads": 0}
            self.answer_json({"_id": "1", "sha": oid, "siblings": files, **facts})

    def file_info(self, name: str, data: bytes) -> dict[str, Any]:
        lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        return {"rfilename": name, "size": len(data), "blobId": blob, **({"lfs": lfs} if name.endswith(IS_LFS) else {})}

    def tell_tree(self, kind: str, name: str, revision: str) -> None:
        if found := self.look_up(kind, name, revision):
            repository, oid = found
            files = [self.file_info(file, data) for file, data in repository.commits[oid].items()]
            for one in files:
                one |= {"type": "file", "path": one["rfilename"], "oid": one["blobId"]}
                if "lfs" in one:
                    one["lfs"]["oid"] = one["lfs"]["sha256"]
            self.answer_json(files)

    def resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        found = self.look_up(kind, name, revision)
        if not found:
            return
        repository, oid = found
        head = {"X-Repo-Commit": oid}
        data = repository.commits[oid].get(file)
        if data is None:
            self.answer(404, b"", {**head, "X-Error-Code": "EntryNotFound"})
        elif file.endswith(IS_LFS):
            digest = hashlib.sha256(data).hexdigest()
            self.server.objects.setdefault(digest, data)
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            self.answer(302, b"", {**head, **linked, "Location": f"{self.server.store_url}/{digest}"})
        else:
            self.answer(200, data, {**head, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def look_up(self, kind: str, name: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and the commit, or an answer that says why not."""
        repository = self.server.repositories.get((kind, name))
        if repository is None or (repository.private and not self.is_known()):
            self.answer(404 if self.is_known() else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif (oid := repository.find(revision)) is None:
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository, oid
        return None

    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def may_write(self) -> bool:
        if not self.is_known():
            self.answer_json({"error": "Invalid username or password."}, 401)
        elif self.server.refuses_writing:
            self.answer_json({"error": "Internal Error"}, 500)
        else:
            return True
        return False

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that runs in a thread during this block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
