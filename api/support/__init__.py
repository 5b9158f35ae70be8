"""Support: everything below /v1/support needs the scope `support`, held here for all of it."""

from fastapi import APIRouter, Security

from api import support_analytics, support_gates, support_people, support_push_tasks, support_test_pushes
from api.dependencies import supporter

router = APIRouter(prefix="/v1/support", tags=["support"], dependencies=[Security(supporter, scopes=["support"])])
for resource in (support_people, support_test_pushes, support_push_tasks, support_gates, support_analytics):
    router.include_router(resource.router)
