"""Support: everything below /v1/support. It needs the scope `support`; for test pushes `service` will do, too."""

from fastapi import APIRouter, Security

from api.dependencies import supporter
from api.support import operations, people, push_tasks, test_pushes

router = APIRouter(prefix="/v1/support", tags=["support"])
for resource in (people, push_tasks, operations):
    router.include_router(resource.router, dependencies=[Security(supporter, scopes=["support"])])
router.include_router(test_pushes.router)
