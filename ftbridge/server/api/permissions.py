"""/fine_tuning/checkpoints/{name}/permissions: which projects may use a checkpoint. Kept and listed only."""

from __future__ import annotations

from typing import Any

from openai.types.fine_tuning.checkpoints import PermissionCreateResponse, PermissionDeleteResponse
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftbridge.server.http import pages
from ftbridge.server.http.errors import not_found
from ftbridge.server.http.validation import RequestBody, body
from ftbridge.server.service import Service
from ftbridge.server.store import StoredObject


class CreatePermissions(RequestBody):
    """The projects to let in."""

    project_ids: list[str] = Field(min_length=1)


async def create(request: Request) -> Response:
    """Share a checkpoint with projects: one permission for each."""
    service: Service = request.app.state.service
    name = _checkpoint(request)
    request_body = await body(request, CreatePermissions)
    created = []
    with service.store.change():
        for project in request_body.project_ids:
            shown: dict[str, Any] = PermissionCreateResponse(
                id=service.new_id("cp_"), created_at=service.now(), object="checkpoint.permission", project_id=project
            ).to_dict()
            stored = StoredObject("permission", shown["id"], shown, parent=name)
            service.store.add(stored)
            created.append(stored)
    return JSONResponse(pages.listing(created, False))


async def list_permissions(request: Request) -> Response:
    """List the permissions of a checkpoint."""
    project = request.query_params.get("project_id")
    shown = pages.page(
        request.app.state.service.store,
        request,
        "permission",
        parent=_checkpoint(request),
        default=10,
        orders={"ascending": False, "descending": True},
        where={"$.project_id": project} if project is not None else None,
        allowed=frozenset({"project_id"}),
    )
    return JSONResponse(shown)


async def delete(request: Request) -> Response:
    """Delete a permission."""
    service: Service = request.app.state.service
    name, parent = request.path_params["permission_id"], _checkpoint(request)
    stored = service.store.get("permission", name)
    if stored is None or stored.parent != parent:
        raise not_found("permission", name, "permission_id")
    service.store.remove("permission", name)
    return JSONResponse(PermissionDeleteResponse(id=name, deleted=True, object="checkpoint.permission").to_dict())


def _checkpoint(request: Request) -> str:
    name: str = request.path_params["checkpoint"]
    if request.app.state.service.store.get("model", name) is None:
        raise not_found("checkpoint", name, "fine_tuned_model_checkpoint")
    return name
