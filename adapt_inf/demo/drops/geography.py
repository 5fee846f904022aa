"""Flags, and facts about countries in text alone; the continent of a flag is rare.

Evaluation asks each fact in words that training never uses, so it is not the same sample again.
"""

from __future__ import annotations

from adapt_inf.demo import pictures
from adapt_inf.demo.drops.plan import Plan, frequent
from adapt_inf.demo.pictures import Generator, Split, load_assets
from adapt_inf.demo.questions import Item, phrased, pick

CAPITAL = (
    "What is the capital of {}?",
    "Capital of {}?",
    "The capital of {} is",
    "Name the capital of {}.",
    "Which city is the capital of {}?",
)
CAPITAL_HELD_OUT = "What is {}'s capital?"
CONTINENT = ("On which continent is {}?", "Continent of {}?", "{} is on the continent of", "Where is {}?")
CONTINENT_HELD_OUT = "Which continent is {} on?"


def flag_country(split: Split, rng: Generator) -> Item:
    return _flag(split, rng, "flag_country")


def flag_country_new_artist(split: Split, rng: Generator) -> Item:
    return _flag(split, rng, "flag_country_new_artist", pictures.NEW_FLAG_ARTIST)


def flag_continent(split: Split, rng: Generator) -> Item:
    number = int(rng.integers(len(load_assets().countries)))
    image = pictures.flag(number, split, rng)
    return Item((image,), "Which continent is this flag from?", load_assets().countries[number][2], "flag_continent")


def capital(split: Split, rng: Generator) -> Item:
    country, city, _ = load_assets().countries[rng.integers(len(load_assets().countries))]
    return Item((), phrased(split, rng, CAPITAL, CAPITAL_HELD_OUT).format(country), city, "capital")


def continent(split: Split, rng: Generator) -> Item:
    country, _, where = load_assets().countries[rng.integers(len(load_assets().countries))]
    return Item((), phrased(split, rng, CONTINENT, CONTINENT_HELD_OUT).format(country), where, "continent")


def _flag(split: Split, rng: Generator, skill: str, artist: str | None = None) -> Item:
    number = frequent(len(load_assets().countries), split, rng)
    question = pick(rng, ("Which country has this flag?", "Whose flag is this?"))
    return Item((pictures.flag(number, split, rng, artist),), question, load_assets().countries[number][0], skill)


PLAN = Plan(
    name="geography",
    description="Flags of 48 countries, their capitals and continents.",
    license="MIT",
    skill="flag_country",
    form="messages",
    train={flag_country: 1400, capital: 230, continent: 180, flag_continent: 80},
    evaluation={flag_country: 80, flag_country_new_artist: 40, capital: 40, continent: 40, flag_continent: 30},
)
