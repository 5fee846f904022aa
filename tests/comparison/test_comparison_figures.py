"""Figures of lineages whose scores are worked out by hand, and the rows and the table that come of them."""

from __future__ import annotations

import json

import pytest
from scored_lineages import FULL, RANDOM, found_of, left, line, plan

from adapt_inf.comparison.figures import COSTS, FIGURES, outcomes, rows
from adapt_inf.comparison.plan import Variant
from adapt_inf.comparison.table import as_json, comparison_text, skill_rows


def test_every_figure_of_every_round_by_hand() -> None:
    random, _ = outcomes({line("random"): left(RANDOM), line("full"): left(FULL)})
    first, last = random.rounds
    assert {name: first[name] for name in FIGURES} == pytest.approx(
        {
            "average_accuracy": (0.6 + 0.6) / 2,
            "relative_gain": 100 * (0.6 / 0.5 + 0.6 / 0.8) / 2,  # to `full` after the same round
            "forgetting": 0.5 - 0.6,
            "backward_transfer": 0.6 - 0.5,
            "forward_transfer": 0.1 - 0.1,
            "rare_accuracy": None,
            "rare_forgetting": None,
        }
    )
    assert {name: last[name] for name in FIGURES} == pytest.approx(
        {
            "average_accuracy": (0.3 + 0.7 + 0.4) / 3,
            "relative_gain": 100 * (0.3 / 0.4 + 0.7 / 1.0 + 0.4 / 0.5) / 3,
            "forgetting": ((0.6 - 0.3) + (0.6 - 0.7)) / 2,  # from the best before, which is not always the own round
            "backward_transfer": ((0.3 - 0.5) + (0.7 - 0.6)) / 2,
            "forward_transfer": 0.3 - 0.2,
            "rare_accuracy": 0.3,
            "rare_forgetting": 0.6 - 0.3,
        }
    )
    assert [last[name] for name in COSTS] == [200, 20.0, 18.0]


UNCAPPED: Variant = (("prune.pool_cap", "null"),)
CAPPED: Variant = (("prune.pool_cap", "6"),)


def test_rare_is_what_is_so_beside_random_and_under_the_first_variant() -> None:
    """With a cap pools differ: a difference is one over the same skills."""
    for others, rare in (
        ({}, "one/a"),
        ({line("random", 0, UNCAPPED): left(RANDOM)}, "base/old"),
        ({line("adapt_inf", 0, UNCAPPED): left(FULL, rare="two/b")}, "two/b"),
        ({line("adapt_inf", 1, UNCAPPED): left(FULL, rare="two/b")}, "one/a"),
        (
            {line("random", 0, UNCAPPED): left(RANDOM), line("adapt_inf", 0, UNCAPPED): left(FULL, rare="two/b")},
            "base/old",
        ),
    ):
        found = outcomes({line("adapt_inf", 0, CAPPED): left(FULL, rare="one/a"), **others}, UNCAPPED)
        assert found[0].last("rare_accuracy") == FULL[1][rare]
        before = FULL[0][rare]
        assert found[0].last("rare_forgetting") == (
            None if rare == "two/b" else pytest.approx(before - FULL[1][rare])
        ), "what the last drop brought has not been forgotten yet"


def test_a_gain_is_relative_to_the_same_seed_and_variant_only() -> None:
    some: Variant = (("cluster.k", "4"),)
    found = outcomes(
        {
            line("random", 0): left(RANDOM),
            line("full", 0): left(FULL),
            line("full", 1): left(FULL, 0.1),
            line("random", 1): left(RANDOM),
            line("random", 0, some): left(RANDOM),
        }
    )
    gains = {str(each.line): each.last("relative_gain") for each in found}
    assert gains.pop("seed 0 random cluster.k=4") is None
    assert gains == pytest.approx(
        {
            "seed 0 random": 75.0,
            "seed 0 full": 100.0,
            "seed 1 full": 100.0,
            "seed 1 random": 100 * (0.3 / 0.5 + 0.7 / 1.1 + 0.4 / 0.6) / 3,
        }
    )


def test_rows_have_means_over_seeds_and_differences_at_the_same_seed() -> None:
    adapt_inf, random = rows(found_of([0.1, 0.2]))
    assert (random.strategy, random.seeds, random.against) == ("random", [0, 1], {})
    average = random.means["average_accuracy"]
    assert average is not None
    assert average.mean == pytest.approx((1.4 / 3 + (1.4 / 3 + 0.1)) / 2)
    assert random.means["relative_gain"] is None
    difference = adapt_inf.against["average_accuracy"]
    assert difference is not None
    assert difference.mean == pytest.approx(0.15)
    assert (difference.low, difference.high) == pytest.approx((0.15 - 12.7062 * 0.05, 0.15 + 12.7062 * 0.05), abs=1e-4)
    forgot = adapt_inf.against["forgetting"]
    assert forgot is not None
    assert forgot.mean == pytest.approx(-0.15)


def test_only_seeds_that_both_have_are_compared() -> None:
    adapt_inf = rows(found_of([0.1, 0.2, 0.3])[:-1])[0]  # `random` is not done at the last seed
    difference = adapt_inf.against["average_accuracy"]
    assert difference is not None
    assert (adapt_inf.seeds, difference.n) == ([0, 1, 2], 2)
    assert rows([each for each in found_of([0.1]) if each.line.strategy != "random"])[0].against == {}


def test_variants_are_held_against_the_first_at_the_same_seed() -> None:
    done = {line("adapt_inf", seed, UNCAPPED): left(RANDOM, seed / 10) for seed in (0, 1)}
    done |= {line("adapt_inf", seed, CAPPED): left(RANDOM, shift + seed / 10) for seed, shift in ((0, 0.1), (1, 0.2))}
    done |= {line("adapt_inf", 2, CAPPED): left(RANDOM, 0.7)}  # at a seed that the first variant is not done at
    told = plan("adapt_inf", seeds=3, vary={"prune.pool_cap": [None, 6]})
    assert told.variants[0] == UNCAPPED
    whole, half = rows(outcomes(done, UNCAPPED), UNCAPPED)
    assert (whole.against, whole.against_first, half.against) == ({}, {}, {})
    difference = half.against_first["average_accuracy"]
    assert difference is not None
    assert (difference.n, difference.mean) == (2, pytest.approx(0.15))
    printed = [" ".join(row.split()) for row in comparison_text(told, [whole, half]).splitlines()]
    assert "prune.pool_cap against prune.pool_cap=null figure difference 95% interval p pairs" in printed
    assert "6 adapt_inf average +0.150 -0.485 to +0.785 0.205 2 no difference shown" in printed
    assert "No differences to the strategy `random`, which is not among --strategies." in printed
    json_rows = as_json(told, [whole, half], [])["rows"]
    assert [each["against_first"].get("average_accuracy", {}).get("n") for each in json_rows] == [None, 2]


def test_a_difference_is_a_number_or_the_words() -> None:
    text = comparison_text(plan("adapt_inf", "random"), rows(found_of([0.1, 0.2])))
    (shown,) = [row for row in text.splitlines() if row.startswith("adapt_inf") and " average " in row]
    assert " ".join(shown.split()) == "adapt_inf average +0.150 -0.485 to +0.785 0.205 2 no difference shown"
    text = comparison_text(plan("adapt_inf", "random"), rows(found_of([0.1, 0.101])))
    (shown,) = [row for row in text.splitlines() if row.startswith("adapt_inf") and " average " in row]
    assert " ".join(shown.split()) == "adapt_inf average +0.101 +0.094 to +0.107 0.003 2"


def test_each_skill_has_its_mean_and_a_mark_where_it_differs() -> None:
    found = rows(found_of([0.1, 0.101]))
    ends = [outcome.rounds[-1]["skills"] for outcome in found_of([0.1, 0.101]) if outcome.line.strategy == "adapt_inf"]
    for row in found:
        assert set(row.skills) == set(ends[0])
    mine = {skill: mean.mean for skill, (mean, _) in found[0].skills.items()}
    assert mine == pytest.approx({skill: sum(end[skill] for end in ends) / 2 for skill in mine})
    marks = {line[0]: line[1].split()[1:] for line in skill_rows(found)}
    assert set(marks) == set(mine)
    for skill, (_, gap) in found[0].skills.items():
        assert gap is not None
        assert marks[skill] == (["+" if gap.mean > 0 else "-"] if gap.shown else [])
    assert any(marks.values())
    text = comparison_text(plan("adapt_inf", "random"), found)
    assert "+ and -: the 95% interval of the difference to random leaves out zero." in text


def test_the_table_says_what_it_lacks() -> None:
    whole = rows(outcomes({line("random"): left(RANDOM), line("full"): left(FULL)}))
    text = comparison_text(plan("random", "full", seeds=1), whole)
    assert "No relative gain" not in text
    assert "No intervals" in text
    assert "not done" not in text
    part = comparison_text(plan("random", "sequential", "adapt_inf"), whole[:1])
    assert "5 of 6 lineages are not done: the same command goes on." in part
    assert "No relative gain: it is relative to the strategy `full`" in part
    assert "No differences to the strategy `random`" in comparison_text(plan("full"), whole[1:])
    assert comparison_text(plan("random"), []) == "No lineage is done yet."


def test_json_has_all_of_it_as_plain_values() -> None:
    found = found_of([0.1, 0.2])
    whole = json.loads(json.dumps(as_json(plan("adapt_inf", "random"), rows(found), found), allow_nan=False))
    assert whole["missing"] == 0
    assert [(each["strategy"], each["seed"], len(each["rounds"])) for each in whole["lineages"]] == [
        (strategy, seed, 2) for seed in (0, 1) for strategy in ("adapt_inf", "random")
    ]
    assert whole["rows"][0]["against_random"]["average_accuracy"]["shown"] is False
    assert whole["rows"][0]["means"]["relative_gain"] is None
