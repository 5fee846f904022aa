"""Tiny random models of the families that people tune, each from its own configuration and processor classes.

Well under 200,000 parameters: four text layers of width 32, a vision tower of one or two layers of width 16, byte-level
BPE. Weights are drawn wide (standard deviation 0.1), so that pictures and words matter to the outputs. Chat templates
are those of the families' checkpoints, cut to what they do with text and images; some mark what the assistant says with
{% generation %}, the others do not, as it is in the wild.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.utils import is_torchvision_available

CORPUS = [
    "What colour is the square? It is red, green, blue, yellow, black or white.",
    "How many pictures are there? There are two pictures. Which is the same? The first, the second.",
    "USER: ASSISTANT: User: Assistant: user assistant model system yes no left right above below.",
]
WIDE = 0.1  # standard deviation of the weights

LLAVA = (  # the template of llava-hf's checkpoints: it marks the answer, and no end of turn
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': ' }}{% endif %}"
    "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type'] == 'text' %}{% if m['role'] != 'assistant' %}{{ c['text'] + ' ' }}"
    "{% else %}{% generation %}{{ c['text'] + ' ' }}{% endgeneration %}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    "{% for c in m['content'] %}{{ '<image>\n' if c['type'] == 'image' else c['text'] }}{% endfor %} [/INST]"
    "{% else %}{% for c in m['content'] %} {{ c['text'] }}{% endfor %}{{ eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% for c in m['content'] %}{{ 'IMAGE' if c['type'] == 'image' else c['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED_CHATML = CHATML.replace(
    "{{ '<|im_start|>' + m['role'] + '\n' }}{% for c in m['content'] %}",
    "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'][0]['text'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}{% for c in m['content'] %}",
).replace("{{ '<|im_end|>\n' }}{% endfor %}{% if add", "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add")
IDEFICS = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{% for c in m['content'] %}{{ '<start_of_image>' if c['type'] == 'image' else c['text'] | trim }}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PREFIX = (  # PaliGemma's checkpoints bring none: the prompt as it stands, its processor adds the rest
    "{% for m in messages %}{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
    "{% endfor %}{% endfor %}"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

Made = tuple[Any, Any]  # model, processor


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: as people call it.
        make: builds model and processor.
        needs_torchvision: whether its processor does.
        text_only: whether it takes samples without an image.
        turns: whether it learns all turns of an assistant; False: the last one alone.
        reads_both_ways: whether a prompt's tokens see what follows them.
        linear_projector: whether what leads from vision to text is made of linear maps, which an adapter can lie on.
    """

    name: str
    make: Callable[[], Made]
    needs_torchvision: bool = False
    text_only: bool = True
    turns: bool = True
    reads_both_ways: bool = False
    linear_projector: bool = True


def save_family(family: Family, folder: Path, seed: int = 0) -> Path:
    """Save the family's tiny model, with weights drawn from `seed`, as a Hugging Face folder, and return it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = family.make()
        _widen(model)
    tokenizer = processor.tokenizer
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = [
        token
        for name in ("<|im_end|>", "<end_of_utterance>", "<end_of_turn>", tokenizer.eos_token)
        if (token := tokenizer.convert_tokens_to_ids(name)) is not None
    ]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _widen(model: Any) -> None:
    """Families differ in what they draw how wide; here every matrix is drawn alike."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=WIDE)


def _tokenizer(
    special: list[str], named: dict[str, str] | None = None, bos: str | None = "<s>", eos: str = "</s>"
) -> Any:
    first = list(dict.fromkeys(["<pad>", *([bos] if bos else []), eos, *(named or {}).values(), *special]))
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = len(first) + len(alphabet) + 40
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token=bos,
        eos_token=eos,
        additional_special_tokens=special,
        extra_special_tokens=named or {},
        padding_side="left",
    )


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


def _tower(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
        **more,
    }


def _llava() -> Made:
    tokenizer = _tokenizer(["<image>"])
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**_tower(projection_dim=16)),
        text_config=tf.LlamaConfig(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    processor = tf.LlavaProcessor(
        image_processor=tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return tf.LlavaForConditionalGeneration(config), processor


PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def _llava_next() -> Made:
    tokenizer = _tokenizer(["<image>"])
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**_tower(projection_dim=16)),
        text_config=tf.MistralConfig(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    processor = tf.LlavaNextProcessor(
        image_processor=tf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL,
    )
    return tf.LlavaNextForConditionalGeneration(config), processor


def _llava_onevision() -> Made:
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<video>"], bos=None, eos="<|im_end|>")
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        text_config=tf.Qwen2Config(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    processor = tf.LlavaOnevisionProcessor(
        image_processor=tf.LlavaOnevisionImageProcessor(
            size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
        ),
        video_processor=tf.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("IMAGE", "<image>\n"),
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


IDEFICS_TOKENS = [
    "<|im_start|>",
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
]


def _idefics3() -> Made:
    tokenizer = _tokenizer(IDEFICS_TOKENS, bos="<|begin_of_text|>", eos="<|end_of_text|>")
    config = tf.Idefics3Config(
        vision_config=tf.Idefics3VisionConfig(**_tower(patch_size=8)),
        text_config=tf.LlamaConfig(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = tf.Idefics3Processor(
        image_processor=tf.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS,
    )
    return tf.Idefics3ForConditionalGeneration(config), processor


def _smolvlm() -> Made:
    tokenizer = _tokenizer(IDEFICS_TOKENS, bos="<|begin_of_text|>", eos="<|end_of_text|>")
    config = tf.SmolVLMConfig(
        vision_config=tf.SmolVLMVisionConfig(**_tower(patch_size=8)),
        text_config=tf.LlamaConfig(**_text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=True,
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    sampling = {"fps": 1, "max_frames": 4, "video_size": {"longest_edge": 32}}
    processor = tf.SmolVLMProcessor(
        image_processor=tf.SmolVLMImageProcessor(**sizes),
        video_processor=tf.SmolVLMVideoProcessor(**sizes, video_sampling=sampling),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS,
    )
    return tf.SmolVLMForConditionalGeneration(config), processor


QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}


def _qwen(version: str) -> Made:
    tokenizer = _tokenizer(["<|endoftext|>", *QWEN_TOKENS], bos=None, eos="<|im_end|>")
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in {
            "image": "image_pad",
            "video": "video_pad",
            "vision_start": "vision_start",
            "vision_end": "vision_end",
        }.items()
    }
    text = _text(tokenizer, rope_parameters=dict(QWEN_ROPE))
    tower: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 8}
    if version == "Qwen2VL":
        tower |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
    else:
        tower |= {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
    if version == "Qwen2_5_VL":
        tower |= {"window_size": 32, "fullatt_block_indexes": [1]}
    if version == "Qwen3VL":
        tower |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
        text |= {"head_dim": 8, "rope_parameters": {**QWEN_ROPE, "mrope_interleaved": True}}
    config = getattr(tf, f"{version}Config")(vision_config=tower, text_config=text, tie_word_embeddings=True, **ids)
    sizes = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}}
    video = tf.Qwen3VLVideoProcessor if version == "Qwen3VL" else tf.Qwen2VLVideoProcessor
    template = MARKED_CHATML if version == "Qwen3VL" else CHATML
    processor = getattr(tf, f"{version}Processor")(
        image_processor=tf.Qwen2VLImageProcessor(**sizes),
        video_processor=video(**sizes),
        tokenizer=tokenizer,
        chat_template=template.replace("IMAGE", QWEN_IMAGE),
    )
    return getattr(tf, f"{version}ForConditionalGeneration")(config), processor


def _paligemma() -> Made:
    tokenizer = _tokenizer(["<image>"], bos="<bos>", eos="<eos>")
    image_processor = tf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    image_processor.image_seq_length = 4
    processor = tf.PaliGemmaProcessor(image_processor=image_processor, tokenizer=tokenizer, chat_template=PREFIX)
    config = tf.PaliGemmaConfig(
        vision_config=tf.SiglipVisionConfig(**_tower(vision_use_head=False, projection_dim=32)),
        text_config=tf.GemmaConfig(**_text(tokenizer, head_dim=8)),
        image_token_id=processor.image_token_id,
        projection_dim=32,
        hidden_size=32,
    )
    return tf.PaliGemmaForConditionalGeneration(config), processor


def _gemma3() -> Made:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _tokenizer(["<start_of_turn>", "<end_of_turn>"], named, bos="<bos>", eos="<eos>")
    processor = tf.Gemma3Processor(
        image_processor=tf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=GEMMA,
    )
    config = tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**_tower(patch_size=8, vision_use_head=False)),
        text_config=tf.Gemma3TextConfig(
            **_text(tokenizer, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, final_logit_softcapping=5.0),
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        image_token_id=tokenizer.image_token_id,
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
        mm_tokens_per_image=4,
    )
    return tf.Gemma3ForConditionalGeneration(config), processor


def _internvl() -> Made:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(["<|im_start|>", "<|im_end|>"], named, bos=None, eos="<|im_end|>")
    config = tf.InternVLConfig(
        vision_config=tf.InternVLVisionConfig(**_tower(image_size=[32, 32], patch_size=[8, 8])),
        text_config=tf.Qwen2Config(**_text(tokenizer, tie_word_embeddings=True)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    sizes = {"height": 32, "width": 32}
    processor = tf.InternVLProcessor(
        image_processor=tf.GotOcr2ImageProcessor(size=sizes, crop_to_patches=True, max_patches=3),
        video_processor=tf.InternVLVideoProcessor(size=sizes),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=MARKED_CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return tf.InternVLForConditionalGeneration(config), processor


FAMILIES = [
    Family("LLaVA 1.5", _llava),
    Family("LLaVA-NeXT", _llava_next),
    Family("LLaVA-OneVision", _llava_onevision, needs_torchvision=True),
    Family("Idefics3", _idefics3),
    Family("SmolVLM", _smolvlm, needs_torchvision=True),
    Family("Qwen2-VL", lambda: _qwen("Qwen2VL"), needs_torchvision=True),
    Family("Qwen2.5-VL", lambda: _qwen("Qwen2_5_VL"), needs_torchvision=True),
    Family("Qwen3-VL", lambda: _qwen("Qwen3VL"), needs_torchvision=True),
    Family("PaliGemma", _paligemma, text_only=False, turns=False, reads_both_ways=True),
    Family("Gemma 3", _gemma3, linear_projector=False),
    Family("InternVL", _internvl, needs_torchvision=True),
]
HERE = [family for family in FAMILIES if is_torchvision_available() or not family.needs_torchvision]
"""The families whose processors load in this environment."""
