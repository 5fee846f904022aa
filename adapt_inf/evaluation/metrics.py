"""Marks for one answer: from a prediction and the accepted answers to a number from 0 to 1, the best match.

Text is compared after Unicode composition, case folding, joining white space and dropping punctuation around it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

_AROUND = " .,;:!?\"'`“”‘’«»。、！？"
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")
_OF_WORDS = ("L", "M", "N", "Pc")  # letters, the marks on them (vowels, in many scripts), numbers, the underscore
IOU_THRESHOLD = 0.5

Box = tuple[float, float, float, float]


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction is one of the answers, up to case, white space and outer punctuation."""
    return float(any(normalised(prediction) == normalised(answer) for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words, as bags (Rajpurkar et al. 2016, SQuAD, section 6.1).

    Articles count, since the answers may be in any language. Two texts without a word are equal.
    """
    return max((_token_f1(_words(prediction), _words(answer)) for answer in answers), default=0.0)


def iou_50(prediction: str, answers: Sequence[str]) -> float:
    """1 where the predicted box covers an accepted one with intersection over union of at least 0.5.

    A box is four numbers in the text, two corners x, y, x, y in any unit that both sides share; any other count is no
    box.
    """
    box = parse_box(prediction)
    accepted = [parse_box(answer) for answer in answers]
    return float(box is not None and any(other and iou(box, other) >= IOU_THRESHOLD for other in accepted))


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "iou_50": iou_50,
}


def normalised(text: str) -> str:
    """Composed, case folded, single spaces; without punctuation at either end, unless there is nothing else."""
    whole = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    inner = whole.strip(_AROUND)
    start = whole.find(inner)
    if inner[:1].isdigit() and whole[max(start - 1, 0) : start] == "." and whole[max(start - 2, 0) : start] != "..":
        inner = f".{inner}"  # .5 is not 5
    return inner or whole


def parse_box(text: str) -> Box | None:
    """The four numbers of a text as (left, top, right, bottom), or None where there are not exactly four."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    if len(numbers) != 4:
        return None
    x0, y0, x1, y1 = numbers
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def iou(one: Box, other: Box) -> float:
    """Intersection over union; 0 where neither box has an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _words(text: str) -> list[str]:
    characters = ((unicodedata.category(each).startswith(_OF_WORDS), each) for each in normalised(text))
    runs = groupby(characters, key=lambda pair: pair[0])
    return ["".join(each for _, each in run) for of_word, run in runs if of_word]


def _token_f1(predicted: list[str], answer: list[str]) -> float:
    if not predicted or not answer:
        return float(predicted == answer)
    shared = (Counter(predicted) & Counter(answer)).total()
    return 2 * shared / (len(predicted) + len(answer))
