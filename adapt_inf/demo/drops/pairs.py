"""Two images compared: which of them shows a thing, whether both show the same, and (rarely) what each shows."""

from __future__ import annotations

from adapt_inf.demo import pictures
from adapt_inf.demo.drops.plan import Plan
from adapt_inf.demo.pictures import Generator, Split, load_assets
from adapt_inf.demo.questions import Item, pick

SHOWN = ("first", "second", "both", "neither")
COMPARED = 30  # the first so many concepts


def which_picture(split: Split, rng: Generator) -> Item:
    """The first, the second, both or neither."""
    answer = pick(rng, SHOWN)
    asked, *others = (int(number) for number in rng.permutation(COMPARED)[:3])
    left = asked if answer in ("first", "both") else others[0]
    right = asked if answer in ("second", "both") else others[1]
    images = (pictures.concept(left, split, rng), pictures.concept(right, split, rng))
    return Item(images, f"Which picture shows a {load_assets().concepts[asked]}?", answer, "which_picture")


def which_silhouette(split: Split, rng: Generator) -> Item:
    animals = load_assets().index["silhouettes"]
    left, right = (int(label) for label in rng.permutation(len(animals))[:2])
    which = int(rng.integers(2))
    images = (pictures.silhouette(left, split, rng), pictures.silhouette(right, split, rng))
    return Item(images, f"Which picture shows a {animals[(left, right)[which]]}?", SHOWN[which], "which_silhouette")


def same_thing(split: Split, rng: Generator) -> Item:
    """Two different drawings of one thing, or of two."""
    left, other = (int(number) for number in rng.permutation(COMPARED)[:2])
    same = bool(rng.integers(2))
    first, second = (pictures.TRAIN_ARTISTS[i] for i in rng.permutation(len(pictures.TRAIN_ARTISTS))[:2])
    images = (
        pictures.concept(left, split, rng, first),
        pictures.concept(left if same else other, split, rng, second),
    )
    return Item(images, "Do both pictures show the same thing?", "yes" if same else "no", "same_thing")


def both_names(split: Split, rng: Generator) -> Item:
    left, right = (int(number) for number in rng.permutation(COMPARED)[:2])
    images = (pictures.concept(left, split, rng), pictures.concept(right, split, rng))
    names = load_assets().concepts
    return Item(images, "What is in both pictures?", f"{names[left]} {names[right]}", "both_names")


PLAN = Plan(
    name="pairs",
    description="Two images compared: which shows a thing, whether both show the same, what each shows.",
    license="Apache-2.0 AND CC-BY-4.0 AND MIT",
    skill="which_picture",
    form="llava_json",
    train={which_picture: 600, which_silhouette: 180, same_thing: 175, both_names: 45},
    evaluation={which_picture: 80, which_silhouette: 40, same_thing: 40, both_names: 20},
    metrics={"both_names": "token_f1"},
)
