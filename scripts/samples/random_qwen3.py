"""Writes a model in a shape of Qwen3-Embedding with random weights, for tests and benchmarks without a model hub.

    python scripts/samples/random_qwen3.py OUT [--shape tiny|42M|one-layer|0.6B|4B|8B]

It takes exactly the code path of Qwen3-Embedding: the architecture, last-token pooling on an appended <|endoftext|>, the query
prompt and sentence-transformers files are the same. Only the vectors mean nothing. The tokenizer is a byte-level BPE trained
on Python's own documentation. The shapes 0.6B, 4B and 8B are those of Qwen3-Embedding. 42M has 42M parameters, one-layer is
its first layer.
"""

from __future__ import annotations

import argparse
import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END = "<|endoftext|>"
QUERY_PROMPT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size")
SHAPES: dict[str, dict[str, int]] = {
    name: dict(zip(SIZES, numbers, strict=True))
    for name, numbers in {
        "tiny": (64, 2, 2, 1, 32, 128, 4096),
        "42M": (256, 4, 4, 2, 64, 768, 151_669),
        "one-layer": (256, 1, 4, 2, 64, 768, 151_669),
        "0.6B": (1024, 28, 16, 8, 128, 3072, 151_669),
        "4B": (2560, 36, 32, 8, 128, 9728, 151_669),
        "8B": (4096, 36, 32, 8, 128, 12_288, 151_669),
    }.items()
}


def make(out: Path, shape: str) -> None:
    """Writes the model's folder."""
    import torch
    from transformers import Qwen3Model

    config = write_description(out, shape)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # the largest takes minutes on a CPU
        Qwen3Model(config).to(torch.bfloat16).save_pretrained(out)


def write_description(out: Path, shape: str) -> Any:
    """Writes all files but the weights and `config.json`. Returns the `Qwen3Config` that belongs to the weights."""
    from transformers import Qwen3Config

    sizes = SHAPES[shape]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(min(sizes["vocab_size"], 32_000))
    tokenizer.save(str(out / "tokenizer.json"))
    end_id = tokenizer.token_to_id(END)
    write_sentence_transformers_files(out, sizes["hidden_size"])
    return Qwen3Config(max_position_embeddings=32_768, rope_theta=1_000_000.0, eos_token_id=end_id, bos_token_id=end_id, **sizes)


def write_sentence_transformers_files(out: Path, width: int) -> None:
    """Writes modules, pooling, prompts and the tokenizer's settings."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    write_json(
        out / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (name, path) in enumerate(modules)
        ],
    )
    pooling = {"word_embedding_dimension": width, "pooling_mode_lasttoken": True, "include_prompt": True}
    write_json(out / "1_Pooling" / "config.json", pooling)
    prompts = {"prompts": {"query": QUERY_PROMPT, "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(out / "config_sentence_transformers.json", prompts)
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END,
            "padding_side": "left",
            "model_max_length": 131_072,
            "clean_up_tokenization_spaces": False,
        },
    )


@cache
def train_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE that appends the end token, as the tokenizer of Qwen3-Embedding does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(END, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    topics = importlib.import_module("pydoc_data.topics").topics
    tokenizer.train_from_iterator([topics[name] for name in sorted(topics)], trainer)
    end_id = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, end_id)])
    return tokenizer


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes a model in a shape of Qwen3-Embedding with random weights.")
    parser.add_argument("out", type=Path, help="folder of the model")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="size of the model (default: %(default)s)")
    options = parser.parse_args()
    make(options.out, options.shape)
