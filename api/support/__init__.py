"""Support: everything below /v1/support. The scope `support` is required here, for all of it."""

from fastapi import APIRouter, Security

from api.dependencies import supporter
from api.support import operations, people, push_tasks, test_pushes

router = APIRouter(prefix="/v1/support", tags=["support"], dependencies=[Security(supporter, scopes=["support"])])
for resource in (people, test_pushes, push_tasks, operations):
    router.include_router(resource.router)
