"""/openapi.json and a page at /: what this server answers, made from its own routes and models."""

from __future__ import annotations

import functools
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from ftbridge import __version__
from ftbridge.server.api import batches, completions, embeddings, graders, permissions, uploads
from ftbridge.server.requests import chat, job, responses

INTERFACE = "2026-08-21"
"""The day of the published interface that is followed."""

BODIES: dict[str, Any] = {
    "POST /uploads": uploads.CreateUpload,
    "POST /uploads/{upload_id}/complete": uploads.CompleteUpload,
    "POST /fine_tuning/jobs": job.CreateJob,
    "POST /fine_tuning/checkpoints/{checkpoint}/permissions": permissions.CreatePermissions,
    "POST /fine_tuning/alpha/graders/run": graders.RunGrader,
    "POST /fine_tuning/alpha/graders/validate": graders.ValidateGrader,
    "POST /chat/completions": chat.CreateChat,
    "POST /completions": completions.CreateCompletion,
    "POST /embeddings": embeddings.CreateEmbedding,
    "POST /responses": responses.CreateResponse,
    "POST /batches": batches.CreateBatch,
}
"""The models of JSON bodies, by route."""

_FILES = {
    "POST /files": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
    "POST /uploads/{upload_id}/parts": {"data": {"type": "string", "format": "binary"}},
}


async def document(_: Request) -> Response:
    """Describe the API as OpenAPI 3.1."""
    return JSONResponse(interface())


@functools.cache
def interface() -> dict[str, Any]:
    """The interface as OpenAPI 3.1."""
    from ftbridge.server.app import ROUTES

    paths: dict[str, Any] = {}
    for method, path, handler in ROUTES:
        shown = re.sub(r":path\}", "}", path)
        first = (handler.__doc__ or "").strip().split("\n")[0]
        about: dict[str, Any] = {
            "operationId": f"{handler.__module__.rsplit('.', 1)[-1]}_{handler.__name__}",
            "summary": first.rstrip("."),
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"\{(\w+)\}", shown)
            ],
            "responses": {"200": {"description": "OK"}, "default": {"description": "An error of OpenAI's shape"}},
        }
        if (body := BODIES.get(f"{method} {path}")) is not None:
            schema = body.model_json_schema(ref_template=f"#/components/schemas/{body.__name__}/$defs/{{model}}")
            about["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        elif (form := _FILES.get(f"{method} {path}")) is not None:
            schema = {"type": "object", "properties": form, "required": list(form)}
            about["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
        paths.setdefault(f"/v1{shown}", {})[method.lower()] = about
    schemas = {model.__name__: model.model_json_schema() for model in BODIES.values()}
    for path in paths.values():
        for about in path.values():
            content = about.get("requestBody", {}).get("content", {}).get("application/json")
            if content:
                content["schema"] = {"$ref": f"#/components/schemas/{content['schema']['title']}"}
    info = {"title": "ftbridge: an OpenAI-compatible fine-tuning API", "version": __version__}
    for name, schema in schemas.items():
        schemas[name] = _rooted(schema, f"#/components/schemas/{name}/$defs/")
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _rooted(schema: Any, root: str) -> Any:
    """References into a schema's own `$defs`, written from the document's root."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", root) if key == "$ref" and isinstance(value, str) else _rooted(value, root)
            for key, value in schema.items()
        }
    return [_rooted(part, root) for part in schema] if isinstance(schema, list) else schema


async def page(_: Request) -> Response:
    """Show the routes as a page."""
    # Reports load the evaluator, which no other route needs.
    from ftbridge.report.html.rendering import render

    routes = [
        (method.upper(), path, about["summary"])
        for path, methods in interface()["paths"].items()
        for method, about in methods.items()
    ]
    return HTMLResponse(render("interface.html.j2", package="ftbridge.server.api", routes=routes))
