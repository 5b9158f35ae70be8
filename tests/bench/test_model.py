"""The load model: `docs/sizing.md` holds what it prints, and more users never need less."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import pytest

from bench.model import SIZES, Costs, Load, main, needs, table

SIZING = Path(__file__).parent.parent.parent / "docs" / "sizing.md"


def test_the_page_holds_what_the_model_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    assert capsys.readouterr().out in SIZING.read_text()


def test_the_page_names_each_cost_and_each_assumption_with_its_value() -> None:
    page = SIZING.read_text()

    told = {f"| `{each.name}` | {each.default:g} |" for kind in (Load, Costs) for each in fields(kind)}

    assert {row for row in told if row not in page} == set()


def test_more_users_need_no_less_of_anything() -> None:
    found = [needs(users, Load(), Costs()) for users in (1, *SIZES, 100_000_000)]

    for less, more in itertools.pairwise(found):
        assert all(getattr(less, each.name) <= getattr(more, each.name) for each in fields(less)), (less, more)


def test_any_figure_can_be_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--users", "1000000", "--fasts", "2", "--actions", "3"])

    wanted = needs(1_000_000, replace(Load(), fasts=2), replace(Costs(), actions=3))
    assert capsys.readouterr().out.strip() == table([wanted])
    assert wanted.actions == pytest.approx(30 * (2 * 3.3 + 0.2 * 4))


@pytest.mark.parametrize("option", [["--late", "0"], ["--phones", "-1"], ["--fasts", "nan"], ["--users", "inf"]])
def test_a_figure_that_cannot_be_is_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(option)

    assert f"argument {option[0]}: must be " in capsys.readouterr().err


def test_arming_and_the_due_instant_count_where_they_are_more_than_the_busiest_hour() -> None:
    spread, at_once = (needs(10_000_000, replace(Load(), together=each), Costs()) for each in (0.0, 0.2))

    assert at_once.workers > 5 * spread.workers
    assert at_once.temporal_cores > 5 * spread.temporal_cores
    assert at_once.database_cores > 5 * spread.database_cores


def test_one_process_is_never_enough_since_it_may_be_lost() -> None:
    least = needs(1, Load(), Costs())

    assert (least.api, least.workers, least.shards) == (2, 2, 512)
