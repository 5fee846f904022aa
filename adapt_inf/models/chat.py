"""A sample's messages as the text that the model reads, and the places in it where the assistant speaks.

The places come from the chat template's {% generation %} where it has one; otherwise from rendering the chat up to each
assistant turn and up to its end, two more renderings a turn (50 us each). Both cover the end-of-turn token, which the
model must learn to say. Texts of samples are untrusted: control tokens in them are broken up, so none can pose as an
image or as another turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from adapt_inf.data.samples import Sample
from adapt_inf.errors import ModelError, SampleError
from adapt_inf.models.vlm import VLM, first_line

Span = tuple[int, int]
Chat = list[dict[str, Any]]

NO_TEMPLATE = "its processor has no chat template"
MEND_TEMPLATE = (
    "Put a chat_template.jinja into its folder, best one with {% generation %} around what the assistant says."
)

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def render(vlm: VLM, sample: Sample, *, with_images: bool = True, generation: bool = False) -> tuple[str, list[Span]]:
    """The chat as text, one image token per picture, and the character spans of the assistant's turns.

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
    chat = _chat(vlm, sample, with_images, generation)
    try:
        if generation:
            return _apply(vlm, template, chat, prompt=True)[0], []
        if _GENERATION.search(template):
            text, spans = _apply(vlm, template, chat, mask=True)
        else:
            text, _ = _apply(vlm, template, chat)
            spans = list(_turn_spans(vlm, template, chat, text))
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise SampleError(sample.sample_id, f"the model's chat template fails on it ({first_line(error)})") from error
    if not any(start < end for start, end in spans):
        raise SampleError(sample.sample_id, "the model's chat template shows no assistant turn of it")
    return text, spans


def chat_template(processor: Any) -> str:
    """The processor's default template; empty where there is none."""
    template = getattr(processor, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template or ""


def _chat(vlm: VLM, sample: Sample, with_images: bool, generation: bool) -> Chat:
    turns = sample.messages
    if generation:
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        turns = turns[:last]
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
        for turn in turns
    ]


def _control_tokens(vlm: VLM) -> re.Pattern[str]:
    """Matches every token that stands for more than its letters; made once per model."""
    if vlm.control_tokens is None:
        tokens = {str(token) for token in vlm.tokenizer.all_special_tokens} | set(vlm.tokenizer.get_added_vocab())
        tokens |= {token for token in (getattr(vlm.processor, "image_token", None),) if token}
        longest_first = sorted((token for token in tokens if token.strip()), key=lambda token: (-len(token), token))
        vlm.control_tokens = re.compile("|".join(re.escape(token) for token in longest_first) or r"(?!)")
    return vlm.control_tokens


def _broken(token: re.Match[str]) -> str:
    return f"{token[0][:1]} {token[0][1:]}"


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
