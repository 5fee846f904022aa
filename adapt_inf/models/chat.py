"""A sample's messages as the text that the model reads, and the places in it where the assistant speaks.

The places come from the chat template's {% generation %} where it has one; otherwise from rendering the chat up to each
assistant turn and up to its end, two more renderings a turn (50 us each). They cover the end-of-turn token, which the
model must learn to say; a template that ends an answer with none has the end-of-sequence token put after the last one.
A processor that takes an answer apart from the prompt (as a `suffix`: the model looks both ways in the prompt) is given
the last answer so. Texts of samples are untrusted: control tokens in them are broken up, so none can pose as an image
or as another turn.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from adapt_inf.data.samples import Sample
from adapt_inf.errors import ModelError, SampleError
from adapt_inf.models.vlm import VLM, first_line

Span = tuple[int, int]
Chat = list[dict[str, Any]]


class Rendered(NamedTuple):
    """A chat as text, one image token per picture.

    Attributes:
        text: what the processor takes.
        spans: where in it the assistant speaks, as (start, end) characters.
        suffix: the last answer, where the processor takes it apart from `text`; then there are no spans.
    """

    text: str
    spans: list[Span]
    suffix: str | None = None


NO_TEMPLATE = "its processor has no chat template"
MEND_TEMPLATE = (
    "Put a chat_template.jinja into its folder, best one with {% generation %} around what the assistant says."
)

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def render(vlm: VLM, sample: Sample, *, with_images: bool = True, generation: bool = False) -> Rendered:
    """A sample's chat as the processor takes it.

    Args:
        vlm: whose chat template is used.
        sample: its messages.
        with_images: False leaves the image tokens out.
        generation: the prompt only: without the last assistant turn, ending where the model is to go on; no spans.

    Raises:
        ModelError: there is no template.
        SampleError: the template fails on the sample, or shows none of its answers.
    """
    template = chat_template(vlm.processor)
    if not template:
        raise ModelError(str(vlm.base), NO_TEMPLATE, MEND_TEMPLATE)
    chat = _chat(vlm, sample, with_images)
    last = max((i for i, turn in enumerate(chat) if turn["role"] == "assistant"), default=len(chat))
    try:
        if generation:
            return Rendered(_apply(vlm, template, chat[:last], prompt=True)[0], [])
        if takes_suffix(vlm.processor):
            suffix = "".join(part["text"] for turn in chat[last:] for part in turn["content"] if part["type"] == "text")
            text, spans = _apply(vlm, template, chat[:last], prompt=True)[0], [(0, len(suffix))]
        elif _GENERATION.search(template):
            text, spans = _apply(vlm, template, chat, mask=True)
        else:
            text, _ = _apply(vlm, template, chat)
            spans = list(_turn_spans(vlm, template, chat, text))
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SampleError(sample.sample_id, f"the model's chat template fails on it ({first_line(error)})") from error
    if not any(start < end for start, end in spans):
        raise SampleError(sample.sample_id, "the model's chat template shows no assistant turn of it")
    if takes_suffix(vlm.processor):
        return Rendered(text, [], suffix)
    return Rendered(*_with_end(vlm, text, spans))


def takes_suffix(processor: Any) -> bool:
    """Whether the processor wants the answer apart from the prompt."""
    return _has_suffix(type(processor).__call__)


@cache
def _has_suffix(call: Callable[..., Any]) -> bool:
    return "suffix" in inspect.signature(call).parameters


def chat_template(processor: Any) -> str:
    """The processor's default template; empty where there is none."""
    template = getattr(processor, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template or ""


def _chat(vlm: VLM, sample: Sample, with_images: bool) -> Chat:
    control = _control_tokens(vlm)
    return [
        {
            "role": turn["role"],
            "content": [
                {"type": "image"}
                if part["type"] == "image"
                else {"type": "text", "text": control.sub(_broken, part["text"])}
                for part in turn["content"]
                if part["type"] != "image" or with_images
            ],
        }
        for turn in sample.messages
    ]


def _control_tokens(vlm: VLM) -> re.Pattern[str]:
    """Matches every token that stands for a turn, a picture or an end; made once per model.

    These are the special tokens, those by which the processor knows pictures, and any that the template writes. Other
    added tokens (places in a picture, marks of a tool call) are words of the family's language, which a sample may use.
    """
    if vlm.control_tokens is None:
        tokenizer, template = vlm.tokenizer, chat_template(vlm.processor)
        tokens = {str(token) for token in tokenizer.all_special_tokens}
        tokens |= {
            token.content
            for token in tokenizer.added_tokens_decoder.values()
            if token.special or token.content in template
        }
        for owner in (vlm.processor, tokenizer):
            named = {name for name in vars(owner) if name.endswith("_token")} | {"image_token", "video_token"}
            values = [getattr(owner, name, None) for name in sorted(named)]
            tokens |= {value for value in values if isinstance(value, str)}
        longest_first = sorted((token for token in tokens if token.strip()), key=lambda token: (-len(token), token))
        vlm.control_tokens = re.compile("|".join(re.escape(token) for token in longest_first) or r"(?!)")
    return vlm.control_tokens


def _broken(token: re.Match[str]) -> str:
    return f"{token[0][:1]} {token[0][1:]}"


def _with_end(vlm: VLM, text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    """The end-of-sequence token after the last answer, where the template ends it with no control token at all."""
    start, _ = spans[-1]
    end = vlm.tokenizer.eos_token
    if end is None or _control_tokens(vlm).search(text, start):
        return text, spans
    text = text.rstrip() + end
    return text, [*spans[:-1], (start, len(text))]


def _turn_spans(vlm: VLM, template: str, chat: Chat, text: str) -> Iterator[Span]:
    for i, turn in enumerate(chat):
        if turn["role"] == "assistant":
            before, _ = _apply(vlm, template, chat[:i], prompt=True)
            upto, _ = _apply(vlm, template, chat[: i + 1])
            yield _shared(text, before), _shared(text, upto.rstrip())


def _shared(text: str, other: str) -> int:
    """Length of the common beginning: some templates write a turn differently when others follow."""
    if text.startswith(other):
        return len(other)
    return next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def _apply(vlm: VLM, template: str, chat: Chat, *, prompt: bool = False, mask: bool = False) -> tuple[str, list[Span]]:
    texts, spans = render_jinja_template(
        conversations=[chat],
        chat_template=template,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=mask,
        **vlm.tokenizer.special_tokens_map,
    )
    return texts[0], [(start, end) for start, end in spans[0]] if mask else []
