"""The API's description in OpenAPI 3.1, made of what the server offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enhancekit._version import __version__
from enhancekit.registry import Entry
from enhancekit.serve.asked import MEDIA_TYPES, MODES, OPTIONS
from enhancekit.serve.problems import MEDIA_TYPE
from enhancekit.serve.settings import Settings
from enhancekit.specs import EnhancerSpec

__all__ = ["description"]

_SCHEMAS: dict[str, dict[str, Any]] = {
    "strength": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
    "mode": {"enum": list(MODES), "default": MODES[0]},
    "quality": {"type": "integer", "minimum": 1, "maximum": 100},
    "subsampling": {"enum": ["4:4:4", "4:2:2", "4:2:0"]},
    "lossless": {"type": "boolean", "default": False},
    "metadata": {"enum": ["keep", "strip"], "default": "keep"},
}

_PROBLEMS = {
    400: "An option or enhancer that does not exist, or a value it cannot have",
    401: "The token is missing or another one",
    403: "Asked by a page of another site",
    406: "No accepted format is written",
    408: "The upload took too long",
    413: "The upload has too many bytes",
    415: "A form instead of the picture's bytes",
    422: "No picture that can be read, one with too many pixels, or one that the format of the "
    "result cannot hold",
    429: "As many pictures as may wait are waiting; `Retry-After` says when to try again",
    500: "The enhancer failed",
    503: "The picture waited too long for its turn, or memory did not suffice",
    504: "Enhancing took too long",
}


def description(entries: Sequence[Entry[EnhancerSpec]], settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document of a server that offers these enhancers.

    Examples
    --------
    >>> sorted(description([], Settings())["paths"])
    ['/healthz', '/metrics', '/openapi.json', '/v1/enhance', '/v1/enhancers']
    """
    picture = {t: {"schema": {"type": "string", "format": "binary"}} for t in MEDIA_TYPES.values()}
    secured: list[dict[str, list[str]]] = [] if settings.token is None else [{"token": []}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "enhancekit",
            "version": __version__,
            "summary": "Make dark, noisy or small pictures good.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/enhance": {
                "post": {
                    "operationId": "enhance",
                    "summary": "Enhance a picture: its bytes in, bytes out",
                    "description": (
                        f"At most {settings.max_bytes:,} bytes and {settings.max_pixels:,} pixels. "
                        "The format of the result is the best that `Accept` names and that can "
                        "hold the picture; by default that of the picture. EXIF, XMP, ICC "
                        "profile, depth and alpha are kept. What got lost nevertheless stands in "
                        "`Enhancekit-Warning`."
                    ),
                    "security": secured,
                    "parameters": _parameters(entries),
                    "requestBody": {
                        "required": True,
                        "content": picture | {"application/octet-stream": {}},
                    },
                    "responses": {
                        "200": {
                            "description": "The enhanced picture",
                            "headers": {
                                "Enhancekit-Enhancer": _header("Which enhancer made it"),
                                "Enhancekit-Warning": _header("What got lost, if anything"),
                                "Server-Timing": _header("Milliseconds of each stage"),
                            },
                            "content": picture,
                        },
                        **{str(status): _problem(text) for status, text in _PROBLEMS.items()},
                    },
                }
            },
            "/v1/enhancers": _get("enhancers", "Enhancers, formats and limits", secured),
            "/healthz": _get("healthz", "200 while the server works, else 503", []),
            "/metrics": _get("metrics", "Counters for Prometheus", secured, "text/plain"),
            "/openapi.json": _get("openapi", "This document", secured),
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "After RFC 9457; `error` is the class of enhancekit's error.",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "error": {"type": "string"},
                    },
                }
            },
        },
    }


def _parameters(entries: Sequence[Entry[EnhancerSpec]]) -> list[dict[str, Any]]:
    schemas = {"enhancer": {"enum": [e.qualified_name for e in entries]}, **_SCHEMAS}
    found = [_query(name, text, schemas[name]) for name, text in OPTIONS.items()]
    controls: dict[str, list[str]] = {}
    bounds: dict[str, list[float]] = {}
    for entry in entries:
        for name, limits in entry.spec.controls.items():
            controls.setdefault(name, []).append(entry.qualified_name)
            bounds.setdefault(name, []).extend(limits)
    for name, owners in sorted(controls.items()):
        schema = {"type": "number", "minimum": min(bounds[name]), "maximum": max(bounds[name])}
        found.append(_query(name, f"a control of {', '.join(owners)}", schema))
    return found


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _header(text: str) -> dict[str, Any]:
    return {"description": text, "schema": {"type": "string"}}


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}


def _get(
    name: str, text: str, secured: list[dict[str, list[str]]], media_type: str = "application/json"
) -> dict[str, Any]:
    return {
        "get": {
            "operationId": name,
            "summary": text,
            "security": secured,
            "responses": {"200": {"description": text, "content": {media_type: {}}}},
        }
    }
