"""A sample: pictures as they came (encoded), a chat about them, and how to mark an answer.

Messages have one shape everywhere: each turn's content is a list of parts, `{"type": "image"}` for the next picture or
`{"type": "text", "text": ...}`. A sample is checked once, when it enters (see adapt_inf.data.formats); from then on
every reader may rely on it.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

METRICS = ("exact_match", "token_f1", "iou_50")
"""How an answer may be marked; the first is the default."""

LONGEST_NAME = 200  # characters of an id or a skill

Message = dict[str, Any]


def is_printable_name(text: str) -> bool:
    """Whether a text may be the id of a sample or the name of a skill."""
    return len(text) <= LONGEST_NAME and text.isprintable() and bool(text.strip())


class BadSample(Exception):  # noqa: N818 - a finding about data, kept as a row of rejects.parquet, not a fault of ours
    """Why a sample is set aside: `reason` for people, `kind` (one word) for counting."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True)
class Sample:
    """One sample that passed every check.

    Attributes:
        sample_id: "<drop>/<id>", unique in a lineage.
        images: encoded JPEG, PNG or WebP; none, one or many, as many as the messages have image parts.
        messages: turns `{"role": "user" | "assistant" | "system", "content": [part, ...]}`, the last assistant.
        skill: what the sample teaches or tests.
        metric: one of `METRICS`.
        answers: accepted answers, at least one.
    """

    sample_id: str
    images: tuple[bytes, ...]
    messages: list[Message]
    skill: str
    metric: str
    answers: tuple[str, ...]


def text_of(message: Message) -> str:
    """The text of one turn, its parts joined as they stand."""
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def content_hash(messages: Sequence[Message], image_hashes: Sequence[str]) -> str:
    """What makes two samples the same sample: roles, text and the pixels of the pictures, in order.

    Text counts in Unicode's composed form with runs of white space as one space, and neighbouring text parts as one, so
    two files that say the same in another layout are equal. Skill, metric and answers do not count.

    Returns:
        32 hex digits (128 bits of SHA-256).
    """
    turns = []
    for message in messages:
        parts: list[str | None] = []
        for part in message["content"]:
            if part["type"] == "image":
                parts.append(None)
            elif parts and parts[-1] is not None:
                parts[-1] += part["text"]
            else:
                parts.append(part["text"])
        shown = [part if part is None else " ".join(unicodedata.normalize("NFC", part).split()) for part in parts]
        turns.append([message["role"], [part for part in shown if part != ""]])
    canonical = json.dumps([turns, list(image_hashes)], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
