"""What fails before or beyond a route is counted as failed."""

import httpx
import pytest
from fastapi import FastAPI

from api.bounds import RequestBounds
from api.http import problems
from api.http.request_log import RequestMetrics
from telemetry import metrics


@pytest.mark.parametrize(("most", "route", "status"), [(0, "unmatched", 503), (1, "/fail", 500)])
async def test_a_request_that_is_turned_away_or_fails_unforeseen_is_counted(most: int, route: str, status: int) -> None:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(RequestBounds, timeout=5, most=most)
    app.add_middleware(RequestMetrics)

    @app.put("/fail")
    async def fail() -> None:
        raise ValueError("unforeseen")

    def counted() -> float:
        labels = {"method": "PUT", "route": route, "status": "5xx"}
        return metrics.API.get_sample_value("fastbell_http_requests_total", labels) or 0.0

    before = counted()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answer = await http.put("/fail")

    assert (answer.status_code, counted() - before) == (status, 1)
