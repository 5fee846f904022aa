"""A path that a drop gives ends inside the drop, or is refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapt_inf.data.paths import confined
from adapt_inf.data.samples import BadSample


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A drop with one picture, beside a file that it must not reach."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = tmp_path / "drop"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").write_bytes(b"a")
    return root


def refused(root: Path, text: str, *folders: Path) -> BadSample:
    with pytest.raises(BadSample) as caught:
        confined(root, text, *folders)
    return caught.value


def test_a_file_inside_is_found(drop: Path) -> None:
    assert confined(drop, "images/a.png") == drop / "images" / "a.png"
    assert confined(drop, "./images//a.png") == drop / "images" / "a.png"


def test_folders_are_tried_in_order(drop: Path) -> None:
    assert confined(drop, "a.png", drop, drop / "images") == drop / "images" / "a.png"
    (drop / "a.png").write_bytes(b"b")
    assert confined(drop, "a.png", drop, drop / "images") == drop / "a.png"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("C:\\x.png", "absolute"),
        ("\\\\host\\x.png", "absolute"),
        ("../secret.png", "climbs"),
        ("images/../../secret.png", "climbs"),
        ("images\\..\\..\\secret.png", "climbs"),
        ("https://example.org/x.png", "URL"),
        ("file:///etc/passwd", "URL"),
        ("", "no path"),
        ("a\0.png", "no path"),
        ("a\n.png", "no path"),
        ("images/a.png\n", "no path"),
        ("\x1b[2J", "no path"),
        ("é" * 128, "at most 255 bytes"),
        ("a/" * 10_000 + "x.png", "at most 4,096 bytes"),
    ],
)
def test_paths_that_may_leave_are_refused(drop: Path, text: str, reason: str) -> None:
    error = refused(drop, text)
    assert error.kind == "path"
    assert reason in error.reason


def test_a_link_that_leaves_is_refused(drop: Path) -> None:
    (drop / "link.png").symlink_to(drop.parent / "secret.png")
    (drop / "up").symlink_to(drop.parent)
    for text in ("link.png", "up/secret.png"):
        error = refused(drop, text)
        assert (error.kind, "link" in error.reason) == ("path", True)


def test_a_link_that_stays_is_followed(drop: Path) -> None:
    (drop / "link.png").symlink_to("images/a.png")
    assert confined(drop, "link.png") == drop / "images" / "a.png"


@pytest.mark.parametrize("text", ["images/b.png", "images", ".", "x/" * 2000, "images/a.png/x"])
def test_what_is_no_file_is_missing(drop: Path, text: str) -> None:
    assert refused(drop, text).kind == "missing_image"


def test_links_in_a_circle_and_pipes_are_missing(drop: Path) -> None:
    (drop / "circle").symlink_to("circle")
    os.mkfifo(drop / "pipe")
    assert refused(drop, "circle").kind == "missing_image"
    assert refused(drop, "pipe").kind == "missing_image"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300, deadline=None
)
@given(
    parts=st.lists(st.sampled_from(["..", ".", "", "images", "a.png", "secret.png", "drop", "up", "\\"]), max_size=6)
)
def test_nothing_outside_is_ever_returned(drop: Path, parts: list[str]) -> None:
    if not (drop / "up").is_symlink():
        (drop / "up").symlink_to("..")
    try:
        found = confined(drop, "/".join(parts))
    except BadSample:
        return
    assert found.resolve().is_relative_to(drop.resolve())
    assert found.name == "a.png"
