"""What ships: small, complete, the bytes that the manifest says, from permissive sources that are named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

import adapt_inf.demo
from adapt_inf.demo.pictures import load_assets
from adapt_inf.demo.sources import ARTISTS, CONCEPTS, COUNTRIES, FLAG_ARTISTS, LANGUAGES, SOURCES

ASSETS = Path(adapt_inf.demo.__file__).parent / "assets"
MOST_BYTES = 10_000_000
SHARE_ALIKE = ("openmoji", "emojione", "world-countries")


def test_files_are_those_of_the_manifest() -> None:
    manifest = json.loads((ASSETS / "MANIFEST.json").read_text(encoding="utf-8"))
    files = {path.name: path.read_bytes() for path in ASSETS.iterdir() if path.name != "MANIFEST.json"}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == manifest
    assert sum(map(len, files.values())) <= MOST_BYTES


def test_the_notice_names_every_source() -> None:
    notice = (ASSETS / "NOTICE").read_text(encoding="utf-8")
    for source in SOURCES:
        assert f"{source.name} {source.version}" in notice
        assert source.licence in notice
    assert not any(name in notice for name in SHARE_ALIKE)


def test_every_concept_is_drawn_by_every_artist_and_named_in_every_language() -> None:
    assets = load_assets()
    assert set(assets.pictures) == set(ARTISTS)
    for pictures in assets.pictures.values():
        assert pictures.shape == (len(CONCEPTS), 64, 64, 4)
        assert (pictures[..., 3] > 0).any((1, 2)).all()
        assert len({picture.tobytes() for picture in pictures}) == len(CONCEPTS)
    assert set(assets.names) == set(LANGUAGES)
    assert all(len(names) == len(CONCEPTS) and all(names) for names in assets.names.values())


def test_every_country_has_its_flags_and_facts() -> None:
    assets = load_assets()
    for artist in FLAG_ARTISTS:
        assert assets.flags[artist].shape == (len(COUNTRIES), 64, 64, 4)
    assert len({capital for _, capital, _ in assets.countries}) == len(COUNTRIES)


def test_digits_and_silhouettes_are_different_pictures() -> None:
    assets = load_assets()
    assert assets.digits.shape == (5000, 28, 28)
    assert np.bincount(assets.digit_values).tolist() == [500] * 10
    every = assets.silhouettes.reshape(-1, 28 * 28)
    assert len(np.unique(every, axis=0)) == len(every)
