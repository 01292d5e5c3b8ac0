"""A hub on this machine: as much of the Hugging Face Hub's HTTP as its library asks for."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask, Response, request
from werkzeug.serving import make_server

TOKEN = "hf_of_the_tests"


class Repository(NamedTuple):
    """Files of each commit, by name, and the commit of each branch."""

    private: bool
    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Add files to a branch; returns the new commit."""
        files = {**self.files(branch), **files}
        names = [[name, hashlib.sha1(content).hexdigest()] for name, content in files.items()]
        sha = hashlib.sha1(json.dumps(sorted(names)).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def files(self, revision: str) -> dict[str, bytes]:
        """Files of a branch or commit, empty if there is none."""
        return self.commits.get(self.branches.get(revision, revision), {})


class Hub:
    """The repositories, and what is asked of them.

    Attributes:
        repositories: by ``owner/name``.
        read_only: whether tokens may only read.
        hashes: replaces the hash that is told of a large file.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.read_only = False
        self.hashes: dict[str, str] = {}
        self.app = Flask("hub")
        rule = self.app.add_url_rule
        rule("/api/repos/create", view_func=self.create, methods=["POST"])
        rule("/api/validate-yaml", view_func=self.validate, methods=["POST"])
        rule("/api/models/<path:name>/<verb>/<revision>", view_func=self.model,
             methods=["GET", "POST"])  # fmt: skip
        rule("/api/models/<owner>/<name>", view_func=self.info)
        rule("/<owner>/<name>/resolve/<revision>/<path:file>", view_func=self.file)

    def new(self, name: str, files: dict[str, bytes], private: bool = False) -> Repository:
        """Make a repository with one commit."""
        repository = self.repositories[name] = Repository(private, {}, {})
        repository.commit("main", files)
        return repository

    def create(self) -> Any:
        """``POST /api/repos/create``."""
        if fault := self.refused():
            return fault
        asked = request.get_json()
        name = f"{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.new(name, {".gitattributes": b""}, private)
        return {"url": f"{request.host_url}{name}", "name": name}

    def validate(self) -> Any:
        """``POST /api/validate-yaml``: of the front matter of a card."""
        if "tags: [hiera]" in request.get_json()["content"]:
            return {"errors": [], "warnings": []}
        return {"errors": [{"message": "no tags"}], "warnings": []}, 400

    def model(self, name: str, verb: str, revision: str) -> Any:
        """Files to upload, a commit, a branch, or a revision."""
        if verb == "revision":
            return self.info(*name.split("/"), revision=revision)
        if fault := self.refused() or self.missing(name):
            return fault
        repository = self.repositories[name]
        if verb == "branch":
            repository.branches.setdefault(revision, repository.branches["main"])
            return {}
        if verb == "preupload":
            paths = [file["path"] for file in request.get_json()["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": path, **modes} for path in paths]}
        lines = [json.loads(line) for line in request.get_data().splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        added = {file["path"]: base64.b64decode(file["content"]) for file in files}
        sha = repository.commit(revision, added)
        return {"commitOid": sha, "commitUrl": f"{request.host_url}{name}/commit/{sha}"}

    def info(self, owner: str, name: str, revision: str = "main") -> Any:
        """``GET /api/models/OWNER/NAME``."""
        name = f"{owner}/{name}"
        if fault := self.missing(name, revision):
            return fault
        repository = self.repositories[name]
        siblings = []
        for file, content in repository.files(revision).items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(content)}
            if file.endswith(".safetensors"):
                sha = self.hashes.get(file, hashlib.sha256(content).hexdigest())
                entry["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 100}
            siblings.append(entry)
        sha = repository.branches.get(revision, revision)
        return {"id": name, "private": repository.private, "sha": sha, "siblings": siblings}

    def file(self, owner: str, name: str, revision: str, file: str) -> Any:
        """``GET`` or ``HEAD`` of a file."""
        name = f"{owner}/{name}"
        if fault := self.missing(name, revision):
            return fault
        content = self.repositories[name].files(revision)[file]
        sha = self.repositories[name].branches.get(revision, revision)
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return Response(content, headers={"X-Repo-Commit": sha, "ETag": etag})

    def refused(self) -> Response | None:
        """The answer to a write with a wrong token, or one for reading."""
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            words = "Invalid credentials in Authorization header"
            return Response(status=401, headers={"X-Error-Message": words})
        return Response(status=403) if self.read_only else None

    def missing(self, name: str, revision: str = "main") -> Response | None:
        """The answer if there is no such repository, or none for this token, or no revision."""
        repository = self.repositories.get(name)
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            return Response(status=404 if known else 401, headers={"X-Error-Code": "RepoNotFound"})
        if not repository.files(revision):
            return Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        return None


@contextmanager
def hub_server() -> Iterator[tuple[Hub, str]]:
    """Run a hub; yields it with its address."""
    hub = Hub()
    server = make_server("127.0.0.1", 0, hub.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
