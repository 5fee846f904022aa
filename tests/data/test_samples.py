"""What makes two samples equal, and what does not."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sample_strategies import samples

from adapt_inf.data.samples import Sample, content_hash, text_of


def turn(role: str, *parts: str | None) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "image"} if p is None else {"type": "text", "text": p} for p in parts]}


def test_text_of_joins_the_parts() -> None:
    assert text_of(turn("user", None, "one ", "two")) == "one two"


def test_layout_does_not_count() -> None:
    plain = content_hash([turn("user", None, "What is it?"), turn("assistant", "a cat")], ["h"])
    assert plain == content_hash([turn("user", None, " What  is\n", "it?"), turn("assistant", "a cat ")], ["h"])


def test_unicode_form_does_not_count() -> None:
    assert content_hash([turn("user", "caf\u00e9")], []) == content_hash([turn("user", "cafe\u0301")], [])


def test_all_that_is_said_and_shown_counts() -> None:
    said = [turn("user", None, "What is it?"), turn("assistant", "a cat")]
    others = [
        ([turn("user", None, "What is this?"), turn("assistant", "a cat")], ["h"]),
        ([turn("user", None, "What is it?"), turn("assistant", "A cat")], ["h"]),
        ([turn("user", "What is it?", None), turn("assistant", "a cat")], ["h"]),
        ([turn("system", None, "What is it?"), turn("assistant", "a cat")], ["h"]),
        ([turn("user", None, "What is it?a cat")], ["h"]),
        (said, ["g"]),
        (said, ["h", "h"]),
    ]
    hashes = {content_hash(messages, images) for messages, images in [(said, ["h"]), *others]}
    assert len(hashes) == len(others) + 1


@given(samples(), st.randoms(use_true_random=False))
def test_splitting_a_text_part_changes_nothing(sample: Sample, random: Any) -> None:
    split = []
    for message in sample.messages:
        parts = []
        for part in message["content"]:
            if part["type"] == "text":
                at = random.randint(0, len(part["text"]))
                parts += [{"type": "text", "text": part["text"][:at]}, {"type": "text", "text": part["text"][at:]}]
            else:
                parts.append(part)
        split.append({**message, "content": parts})
    hashes = ["h"] * len(sample.images)
    assert content_hash(split, hashes) == content_hash(sample.messages, hashes)
