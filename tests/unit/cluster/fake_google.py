"""As much of Google's API as Ray's cluster launcher calls, at the edge of HTTP.

Bodies of new machines are held against the schema of the API, as Google itself does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httplib2
import pytest
from google.auth.credentials import AnonymousCredentials
from googleapiclient.discovery_cache import get_static_doc

PROJECT = "example-project"
ZONE = "europe-west4-a"
SCHEMAS = json.loads(get_static_doc("compute", "v1"))["schemas"]
ACCOUNT = f"ray-autoscaler-sa-v1@{PROJECT}.iam.gserviceaccount.com"
DONE = {"name": "done", "status": "DONE"}
Query = dict[str, list[str]]
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}


def faults(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """What of a body the schema does not know or takes otherwise."""
    schema = SCHEMAS[schema["$ref"]] if "$ref" in schema else schema
    number = type(value) is int and schema.get("format") in {"int64", "uint64"}
    if type(value) is not TYPES[schema["type"]] and not number:
        yield f"{where} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where} is none of {schema['enum']}"
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from faults(item, schema["items"], f"{where}[{place}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            known = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if known is None:
                yield f"unknown name {key!r} at {where}"
            else:
                yield from faults(item, known, f"{where}.{key}")


class Google:
    """A project of someone who is logged in, with no machine in it."""

    def __init__(self) -> None:
        self.machines: list[dict[str, Any]] = []
        self.account: dict[str, str] | None = None
        self.bindings: list[dict[str, Any]] = []
        self.metadata: dict[str, Any] = {"items": []}
        manager = f"cloudresourcemanager/v1/projects/{PROJECT}"
        accounts = f"iam/v1/projects/{PROJECT}/serviceAccounts"
        compute = f"compute/compute/v1/projects/{PROJECT}"
        zone = f"{compute}/zones/{ZONE}"
        self.answers: dict[str, Callable[[Any, Query], Any]] = {
            f"GET {manager}": lambda *_: {"projectId": PROJECT, "lifecycleState": "ACTIVE"},
            f"POST {manager}:getIamPolicy": lambda *_: {"bindings": self.bindings},
            f"POST {manager}:setIamPolicy": self.set_policy,
            f"GET {accounts}/{ACCOUNT}": lambda *_: self.account,
            f"POST {accounts}": self.create_account,
            f"GET {compute}": lambda *_: {"name": PROJECT, "commonInstanceMetadata": self.metadata},
            f"POST {compute}/setCommonInstanceMetadata": self.set_metadata,
            f"GET {compute}/global/operations/done": lambda *_: DONE,
            f"GET {zone}/operations/done": lambda *_: DONE,
            f"GET {zone}/instances": self.list_machines,
            f"POST {zone}/instances": self.create_machine,
        }

    def __call__(
        self, uri: str, method: str = "GET", body: str | None = None, **_: Any
    ) -> tuple[httplib2.Response, bytes]:
        address = urlsplit(uri)
        call = f"{method} {str(address.hostname).partition('.')[0]}{unquote(address.path)}"
        answer = self.answers[call](json.loads(body) if body else None, parse_qs(address.query))
        status = 404 if answer is None else answer.get("error", {}).get("code", 200)
        headers = {"status": str(status), "content-type": "application/json"}
        return httplib2.Response(headers), json.dumps(answer).encode()

    def set_policy(self, body: Any, _: Query) -> dict[str, Any]:
        self.bindings = body["policy"]["bindings"]
        return body["policy"]

    def create_account(self, body: Any, _: Query) -> dict[str, str]:
        assert ACCOUNT.startswith(f"{body['accountId']}@")
        self.account = {"email": ACCOUNT, "projectId": PROJECT}
        return self.account

    def set_metadata(self, body: Any, _: Query) -> dict[str, Any]:
        self.metadata = body
        return DONE

    def list_machines(self, _: Any, query: Query) -> dict[str, Any]:
        wanted = re.findall(r"labels\.(\S+) = ([^)]*)", query["filter"][0])
        found = [one for one in self.machines if set(wanted) <= one["labels"].items()]
        return {"items": found}

    def create_machine(self, body: Any, _: Query) -> dict[str, Any]:
        wrong = list(faults(body, {"$ref": "Instance"}, "instance"))
        if wrong:
            return {"error": {"code": 400, "message": "; ".join(wrong)}}
        self.machines.append({**body, "status": "RUNNING"})
        return DONE


@contextmanager
def project() -> Iterator[Google]:
    """Let Ray find a project, and no other, where Google's API would be."""
    google = Google()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("google.auth.default", lambda **_: (AnonymousCredentials(), None))
        patch.setattr(httplib2.Http, "request", lambda _, *call, **more: google(*call, **more))
        yield google
