"""Names of things in five more languages, each asked in its own; Finnish and Swahili are rare."""

from __future__ import annotations

from adapt_inf.demo import pictures
from adapt_inf.demo.drops.plan import Plan, frequent
from adapt_inf.demo.pictures import Generator, Split, load_assets
from adapt_inf.demo.questions import Item

NAMED = 30  # the first so many concepts
QUESTIONS = {
    "de": "Was ist das?",
    "fr": "Qu'est-ce que c'est ?",
    "es": "¿Qué es esto?",
    "fi": "Mikä tämä on?",
    "sw": "Hii ni nini?",
}


def name_de(split: Split, rng: Generator) -> Item:
    return _name("de", split, rng)


def name_fr(split: Split, rng: Generator) -> Item:
    return _name("fr", split, rng)


def name_es(split: Split, rng: Generator) -> Item:
    return _name("es", split, rng)


def name_fi(split: Split, rng: Generator) -> Item:
    return _name("fi", split, rng)


def name_sw(split: Split, rng: Generator) -> Item:
    return _name("sw", split, rng)


def name_de_new_artist(split: Split, rng: Generator) -> Item:
    return _name("de", split, rng, pictures.NEW_ARTIST)


def _name(code: str, split: Split, rng: Generator, artist: str | None = None) -> Item:
    number = frequent(NAMED, split, rng)
    image = pictures.concept(number, split, rng, artist)
    skill = f"name_{code}" + ("_new_artist" if artist else "")
    return Item((image,), QUESTIONS[code], load_assets().names[code][number], skill)


PLAN = Plan(
    name="languages",
    description="Everyday things named in German, French and Spanish, a few in Finnish and Swahili.",
    license="Apache-2.0 AND CC-BY-4.0 AND MIT AND Unicode-3.0",
    skill="name_de",
    form="messages",
    train={name_de: 1000, name_fr: 700, name_es: 700, name_fi: 110, name_sw: 110},
    evaluation={name_de: 60, name_fr: 50, name_es: 50, name_fi: 20, name_sw: 20, name_de_new_artist: 40},
)
