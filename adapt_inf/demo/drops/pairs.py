"""Two images at once: what each shows, which of them shows a thing, and (rarely) whether both show the same."""

from __future__ import annotations

from adapt_inf.demo import pictures
from adapt_inf.demo.drops.plan import Plan
from adapt_inf.demo.pictures import Generator, Split, load_assets
from adapt_inf.demo.questions import Item

SHOWN = ("first", "second")
COMPARED = 30  # the first so many concepts


def both_names(split: Split, rng: Generator) -> Item:
    names = load_assets().concepts
    left, right = (int(number) for number in rng.permutation(COMPARED)[:2])
    images = (pictures.concept(left, split, rng), pictures.concept(right, split, rng))
    return Item(images, "What is the first and the second?", f"{names[left]} {names[right]}", "both_names")


def which_picture(split: Split, rng: Generator) -> Item:
    shown = [int(number) for number in rng.permutation(COMPARED)[:2]]
    which = int(rng.integers(2))
    images = tuple(pictures.concept(number, split, rng) for number in shown)
    return Item(
        images, f"Is the {load_assets().concepts[shown[which]]} first or second?", SHOWN[which], "which_picture"
    )


def which_silhouette(split: Split, rng: Generator) -> Item:
    animals = load_assets().index["silhouettes"]
    left, right = (int(label) for label in rng.permutation(len(animals))[:2])
    which = int(rng.integers(2))
    images = (pictures.silhouette(left, split, rng), pictures.silhouette(right, split, rng))
    return Item(images, f"Is the {animals[(left, right)[which]]} first or second?", SHOWN[which], "which_silhouette")


def same_thing(split: Split, rng: Generator) -> Item:
    """Two different drawings of one thing, or of two."""
    left, other = (int(number) for number in rng.permutation(COMPARED)[:2])
    same = bool(rng.integers(2))
    first, second = (pictures.TRAIN_ARTISTS[i] for i in rng.permutation(len(pictures.TRAIN_ARTISTS))[:2])
    images = (
        pictures.concept(left, split, rng, first),
        pictures.concept(left if same else other, split, rng, second),
    )
    return Item(images, "Is the first the same as the second?", "yes" if same else "no", "same_thing")


PLAN = Plan(
    name="pairs",
    description="Two images at once: what each shows, which of them shows a thing, whether both show the same.",
    license="Apache-2.0 AND CC-BY-4.0 AND MIT",
    skill="both_names",
    form="llava_json",
    train={both_names: 700, which_picture: 350, which_silhouette: 180, same_thing: 55},
    evaluation={both_names: 80, which_picture: 50, which_silhouette: 40, same_thing: 30},
    metrics={"both_names": "token_f1"},
)
