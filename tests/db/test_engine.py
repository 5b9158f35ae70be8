"""The database's address, as people write it."""

import pytest

from db.engine import async_url, connect_alone, is_ready, make_engine, make_sessions
from tests.house import House


@pytest.mark.parametrize("mode", ["disable", "require", "verify-full"])
def test_the_word_of_libpq_for_tls_is_understood(mode: str) -> None:
    url = async_url(f"postgres://app:word@db.example:5433/fastbell?sslmode={mode}")

    assert url.render_as_string(hide_password=False) == (
        f"postgresql+asyncpg://app:word@db.example:5433/fastbell?ssl={mode}"
    )


async def test_a_database_is_reached_by_an_address_that_says_so(house: House) -> None:
    address = house.place.database_url + "&sslmode=disable"
    engine = make_engine(address)

    ready, alone = await is_ready(make_sessions(engine)), await connect_alone(address, "test")

    assert ready
    await alone.close()
    await engine.dispose()
