"""Support: everything below /v1/support needs the scope `support`, held here for all of it."""

from fastapi import APIRouter, Security

from api.dependencies import supporter
from api.support import operations as support_gates
from api.support import people as support_people
from api.support import push_tasks as support_push_tasks
from api.support import test_pushes

router = APIRouter(prefix="/v1/support", tags=["support"], dependencies=[Security(supporter, scopes=["support"])])
for resource in (support_people, test_pushes, support_push_tasks, support_gates):
    router.include_router(resource.router)
