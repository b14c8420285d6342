"""What a gateway answers, held against its own description."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator

METHODS = ("get", "put", "post", "delete", "patch")
JSON = "application/json"
PROBLEM = "application/problem+json"

COMMON = (401, 403, 405, 503)
"""What any operation may answer that a description would only repeat: no key, another origin, the broker away."""


@dataclass
class Description:
    """`openapi.json`, ready to be asked. Objects are closed: a member that is not described is an error here."""

    found: dict[str, Any]
    seen: set[str] = field(default_factory=set[str])
    """Operations of which a JSON answer that went well was looked at."""

    def __post_init__(self) -> None:
        self.closed: Any = _closed(copy.deepcopy(self.found["components"]))
        self.templates: dict[str, re.Pattern[str]] = {
            path: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) + "$") for path in self.found["paths"]
        }

    def operations(self) -> list[tuple[str, dict[str, Any]]]:
        """`get /api/v1/jobs` and its like, each with what is said of it."""
        return [
            (f"{method} {path}", operation)
            for path, item in self.found["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        ]

    def wrong(self, schema: Any, value: Any) -> list[str]:
        """What of `value` is not as the schema says."""
        validator = Draft202012Validator({"components": self.closed, "allOf": [schema]}, validate_formats=True)
        return [f"{list(item.instance_path)}: {item.message}"[:300] for item in validator.iter_errors(value)]

    def wrong_with(self, method: str, path: str, status: int, content_type: str, body: bytes) -> list[str]:
        """What of an answer is not as described; nothing for what is no JSON and for paths that are not described."""
        templates = [name for name, pattern in self.templates.items() if pattern.match(path)]
        # `/uploads/direct` is no upload's id.
        template = min(templates, key=lambda name: name.count("{"), default="")
        operation: Any = self.found["paths"].get(template, {}).get(method)
        kind = content_type.partition(";")[0]
        if operation is None or kind not in (JSON, PROBLEM) or not body:
            return []
        value = json.loads(body)
        told = operation["responses"].get(str(status))
        if told is None:
            if status not in COMMON:
                return [f"{status} is not among the answers: {body[:200]!r}"]
            told = self.found["components"]["responses"]["Problem"]
        if status < 300:
            self.seen.add(f"{method} {template}")
        if kind not in told["content"]:
            return [f"{status} comes as {kind}"]
        named = told["content"][kind].get("examples")
        if named is not None and value["code"] not in named:
            return [f"{value['code']} is not among the problems of {status}: {sorted(named)}"]
        return self.wrong(told["content"][kind]["schema"], value)


def _closed(schema: Any) -> Any:
    """The same schemas without room for members that they do not name."""
    if isinstance(schema, dict):
        found: dict[str, Any] = {name: _closed(value) for name, value in schema.items()}  # type: ignore[misc]
        if isinstance(found.get("properties"), dict) and found.get("type") == "object":
            found.setdefault("additionalProperties", False)
        return found
    if isinstance(schema, list):
        return [_closed(item) for item in schema]  # type: ignore[misc]
    return schema


@dataclass
class Witness:
    """Looks at every answer that a client gets."""

    description: Description
    problems: list[str] = field(default_factory=list[str])

    async def look(self, answer: httpx.Response) -> None:
        await answer.aread()
        method, path = answer.request.method.lower(), answer.request.url.path
        kind = answer.headers.get("content-type", "")
        found = self.description.wrong_with(method, path, answer.status_code, kind, answer.content)
        self.problems += [f"{method} {path}: {said}" for said in found]


async def watch(client: httpx.AsyncClient) -> Witness:
    """From now on every answer to this client is held against the description."""
    witness = Witness(Description((await client.get("/api/v1/openapi.json")).json()))
    client.event_hooks["response"] = [witness.look]
    return witness
