"""The forms in which drops write a sample, each turned into the one form of adapt_inf.data.samples, or into a reject.

Three layouts, told apart by their keys, in any of the containers of adapt_inf.data.records:

- LLaVA: `conversations` of {"from": human | gpt | system, "value": text}, `image` one or a list;
- messages (Hugging Face): `messages` of {"role", "content"}, content a text or a list of parts, `images` or `image`;
- question and answer: `question`, `answer` or `answers`, `image` or `images`.

Pictures are paths inside the drop, bytes, or {"bytes", "path"}. They are not opened here: paths are checked and go on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt_inf.data.paths import confined
from adapt_inf.data.records import UnreadableFile, count_records, read_records
from adapt_inf.data.samples import LONGEST_NAME, METRICS, BadSample, Message, is_printable_name, text_of
from adapt_inf.errors import DropError

if TYPE_CHECKING:
    from adapt_inf.data.drops import Drop

AUTO = "auto"
LAYOUTS = {"llava": "conversations", "messages": "messages", "question": "question"}
"""The key that tells each layout."""
FORMATS = (AUTO, "llava", "messages", "parquet")

IMAGE_TOKEN = "<image>"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_INLINE = ("image", "path", "url", "image_url")  # keys under which an image part may carry its own picture
_DETECT = 100  # records looked at to know a split's layout
_MOST_IMAGES = 256  # of a sample: all are in memory at once

_IMAGE: None = None  # an image among the parts of a turn while it is read


@dataclass(frozen=True)
class RawSample:
    """A sample whose text is in order and whose pictures are still to be looked at.

    Attributes:
        id: the drop's own id, or the split and the record's number where it gives none; may occur twice.
        file: the split's file and the place in it.
        images: encoded bytes, or files inside the drop.
    """

    id: str
    file: str
    images: tuple[bytes | Path, ...]
    messages: list[Message]
    skill: str
    metric: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Reject:
    """A sample set aside: `reason` for people, `kind` for counting; `id` and `file` as in `RawSample`."""

    id: str
    file: str
    reason: str
    kind: str


def check_split(drop: Drop, split: str) -> None:
    """See that the first records of a split have a known layout; reads no more than it must.

    Raises:
        DropError: unknown layout, another container than `format` says, a file that cannot be read, no record.
    """
    first: BadSample | None = None
    for seen, (_, record) in enumerate(_records(drop, split), start=1):
        try:
            _layout(record, drop.format)
            return
        except BadSample as error:
            first = first or error
        if seen == _DETECT:
            break
    if first is None:
        raise DropError(drop.name, f"the {split} split is empty")
    keys = ", ".join(f"`{key}`" for key in LAYOUTS.values())
    raise DropError(
        drop.name, f"the {split} split has an unknown format: {first.reason}", f"A sample has one of the keys {keys}."
    )


def count_split(drop: Drop, split: str) -> int:
    """How many samples and rejects `read_split` yields.

    Raises:
        DropError: a file of the split cannot be read.
    """
    total = 0
    for file in getattr(drop, split):
        try:
            total += count_records(file)
        except UnreadableFile as error:
            raise _drop_error(drop, file, error) from None
    return total


def read_split(drop: Drop, split: str) -> Iterator[RawSample | Reject]:
    """Yield a split's samples in the order of its files, each one or the reason why it is set aside.

    Raises:
        DropError: a file of the split cannot be read on.
    """
    for number, (place, record) in enumerate(_records(drop, split)):
        sample_id = f"{split}-{number:06d}"
        try:
            layout = _layout(record, drop.format)
            assert isinstance(record, dict)
            sample_id = _sample_id(record, sample_id)
            yield _read_sample(drop, layout, record, sample_id, place)
        except BadSample as error:
            yield Reject(sample_id, place, error.reason, error.kind)


def _records(drop: Drop, split: str) -> Iterator[tuple[str, dict[str, Any] | BadSample]]:
    for file in getattr(drop, split):
        name = file.relative_to(drop.root).as_posix()
        if drop.format == "parquet" and file.suffix.lower() != ".parquet":
            raise DropError(drop.name, f"`format` is parquet, {name} is not")
        try:
            for place, record in read_records(file):
                yield name + place, record
        except UnreadableFile as error:
            raise _drop_error(drop, file, error) from None


def _drop_error(drop: Drop, file: Path, error: UnreadableFile) -> DropError:
    return DropError(drop.name, f"{file.relative_to(drop.root).as_posix()} {error.problem}")


def _layout(record: dict[str, Any] | BadSample, form: str) -> str:
    if isinstance(record, BadSample):
        raise record
    for layout, key in LAYOUTS.items():
        if record.get(key) is not None and (form == layout or form not in LAYOUTS):
            return layout
    wanted = [LAYOUTS[form]] if form in LAYOUTS else list(LAYOUTS.values())
    have = ", ".join(list(map(str, record))[:8]) or "nothing"
    raise BadSample("record", f"it has none of {', '.join(wanted)}, but {have}")


def _read_sample(drop: Drop, layout: str, record: dict[str, Any], sample_id: str, place: str) -> RawSample:
    inline: list[Any] = []
    turns = _turns(record, layout, inline)
    _check_turns(turns)
    values = _listed(record.get("images")) or _listed(record.get("image")) or inline
    if len(values) > _MOST_IMAGES:
        raise BadSample("image_tokens", f"it shows {len(values)} images; a sample has at most {_MOST_IMAGES}")
    messages = _place_images(turns, len(values))
    # Beside the drop's own folder, the two places where datasets keep pictures that they name without one.
    folders = (drop.root, drop.root / place.rpartition("/")[0], drop.root / "images")
    images = tuple(_image(value, drop.root, folders) for value in values)
    return RawSample(
        id=sample_id,
        file=place,
        images=images,
        messages=messages,
        skill=_name(record.get("skill"), "skill", drop.skill),
        metric=_metric(record.get("metric"), drop.metric),
        answers=_answers(record.get("answers"), text_of(messages[-1])),
    )


def _turns(record: dict[str, Any], layout: str, inline: list[Any]) -> list[tuple[str, list[str | None]]]:
    """The turns as (role, parts), a part a text or `_IMAGE`; pictures that parts carry are added to `inline`."""
    if layout == "question":
        answers = record.get("answer") if record.get("answer") is not None else record.get("answers")
        spoken = answers[0] if isinstance(answers, list) and answers else answers
        if spoken is None or (isinstance(spoken, float) and not math.isfinite(spoken)):
            raise BadSample("assistant", "there is no answer")
        value: Any = [
            {"role": "user", "content": record["question"]},
            {"role": "assistant", "content": str(spoken) if isinstance(spoken, int | float) else spoken},
        ]
    else:
        value = record[LAYOUTS[layout]]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadSample("turns", f"`{LAYOUTS[layout]}` is a text that is no JSON") from None
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise BadSample("turns", f"`{LAYOUTS[layout]}` is no list of turns")
    return [_turn(turn, inline) for turn in value]


def _turn(turn: dict[str, Any], inline: list[Any]) -> tuple[str, list[str | None]]:
    said = turn.get("from") if turn.get("role") is None else turn.get("role")
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise BadSample("turns", f"a turn is by {str(said)[:40]!r}; roles are user (human), assistant (gpt) and system")
    content = turn.get("value") if turn.get("content") is None else turn.get("content")
    parts: list[str | None] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get("type") == "image":
            parts.append(_IMAGE)
            inline += [part[key] for key in _INLINE if part.get(key) is not None][:1]
            continue
        if isinstance(content, list) and not isinstance(part, dict):
            raise BadSample("turns", f"a part of a turn is {type(part).__name__}, no object with a `type`")
        if isinstance(part, dict) and part.get("type") != "text":
            raise BadSample("turns", f"a part is {str(part.get('type'))[:40]!r}; parts are text and image")
        text = _unicode(part.get("text") if isinstance(part, dict) else part, "the content of a turn")
        for number, piece in enumerate(text.split(IMAGE_TOKEN)):
            parts += [_IMAGE, piece] if number else [piece]
    return role, _tidy(parts)


def _tidy(parts: list[str | None]) -> list[str | None]:
    """Join neighbouring texts, drop the line breaks that set images apart and the white space around the turn."""
    joined: list[str | None] = []
    for part in parts:
        if part is not None and joined and joined[-1] is not None:
            joined[-1] += part
        else:
            joined.append(part)
    last = len(joined) - 1
    tidy: list[str | None] = []
    for place, part in enumerate(joined):
        if part is not None:
            part = part.lstrip("\r\n") if place else part.lstrip()
            part = part.rstrip("\r\n") if place < last else part.rstrip()
        if part != "":
            tidy.append(part)
    return tidy


def _check_turns(turns: list[tuple[str, list[str | None]]]) -> None:
    roles = [role for role, _ in turns]
    if "assistant" not in roles:
        raise BadSample("assistant", "no turn is the assistant's")
    if roles[-1] != "assistant":
        raise BadSample("assistant", f"the last turn is the {roles[-1]}'s, not the assistant's")
    chat = roles[1:] if roles[0] == "system" else roles
    if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(chat)):
        raise BadSample("turns", f"turns do not alternate between user and assistant: {', '.join(roles[:8])}")
    for role, parts in turns:
        if role != "user" and _IMAGE in parts:
            raise BadSample("image_tokens", f"an image stands in the {role}'s turn")
        if role == "assistant" and not parts:
            raise BadSample("assistant", "an assistant's turn is empty")


def _place_images(turns: list[tuple[str, list[str | None]]], n_images: int) -> list[Message]:
    """Give each turn its parts; images that no token places stand before the first user's text, as LLaVA does it."""
    n_tokens = sum(part is _IMAGE for _, parts in turns for part in parts)
    if n_images and not n_tokens:
        first = next(place for place, (role, _) in enumerate(turns) if role == "user")
        turns = list(turns)
        turns[first] = ("user", [*[_IMAGE] * n_images, *turns[first][1]])
    elif n_images != n_tokens:
        raise BadSample("image_tokens", f"{n_tokens} image tokens for {n_images} images")
    if any(not parts for role, parts in turns if role == "user"):
        raise BadSample("turns", "a user's turn is empty")
    return [
        {"role": role, "content": [{"type": "image"} if p is None else {"type": "text", "text": p} for p in parts]}
        for role, parts in turns
    ]


def _listed(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list) else [value]


def _image(value: Any, root: Path, folders: tuple[Path, ...]) -> bytes | Path:
    if isinstance(value, dict):
        value = next((value[key] for key in ("bytes", "path", "url") if value.get(key) is not None), None)
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return confined(root, _unicode(value, "the path of an image"), *folders)
    raise BadSample("missing_image", f"an image is {type(value).__name__}, neither a path nor bytes")


def _sample_id(record: dict[str, Any], default: str) -> str:
    value = record.get("id")
    return _name(str(value) if isinstance(value, int) and not isinstance(value, bool) else value, "id", default)


def _name(value: Any, key: str, default: str) -> str:
    if value is None or value == "":
        return default
    if not isinstance(value, str) or not is_printable_name(value):
        raise BadSample(key, f"`{key}` is no printable text of at most {LONGEST_NAME} characters")
    return value.strip()


def _metric(value: Any, default: str) -> str:
    if value is None or value == "":
        return default
    if value not in METRICS:
        raise BadSample("metric", f"`metric` is {str(value)[:40]!r}; metrics are {', '.join(METRICS)}")
    return str(value)


def _answers(value: Any, spoken: str) -> tuple[str, ...]:
    if any(isinstance(each, float) and not math.isfinite(each) for each in _listed(value)):
        raise BadSample("answers", "an accepted answer is no number")
    listed = [str(v) if isinstance(v, int | float) else v for v in _listed(value)]
    answers = tuple(dict.fromkeys(_unicode(answer, "an accepted answer").strip() for answer in listed))
    if "" in answers:
        raise BadSample("answers", "an accepted answer is empty")
    return answers or (spoken,)


def _unicode(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BadSample("turns" if "turn" in what else "answers", f"{what} is {type(value).__name__}, no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadSample("text", f"{what} holds half a surrogate pair") from None
    if "\0" in value:
        raise BadSample("text", f"{what} holds a null character")
    return value
