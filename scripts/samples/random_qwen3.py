"""Make a Qwen3-Embedding-shaped model with random weights: for tests and benchmarks without a hub.

    python scripts/samples/random_qwen3.py OUT [--shape tiny|42M|one-layer|0.6B|4B|8B]

Takes exactly the code path of Qwen3-Embedding: same architecture, last-token pooling on an appended
<|endoftext|>, query prompt, sentence-transformers files. Only the vectors mean nothing. The
tokenizer is a byte-level BPE trained on Python's own documentation.
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
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    | {"intermediate_size": 128, "vocab_size": 4096},
    "42M": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    | {"intermediate_size": 768, "vocab_size": 151_669},
    "one-layer": {"hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    | {"intermediate_size": 768, "vocab_size": 151_669},
    "0.6B": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    | {"intermediate_size": 3072, "vocab_size": 151_669},
    "4B": {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    | {"intermediate_size": 9728, "vocab_size": 151_669},
    "8B": {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    | {"intermediate_size": 12_288, "vocab_size": 151_669},
}


def make(out: Path, shape: str) -> None:
    """Write the model's folder."""
    import torch
    from transformers import Qwen3Model

    config = write_description(out, shape)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # minutes on a CPU with the largest
        Qwen3Model(config).to(torch.bfloat16).save_pretrained(out)


def write_description(out: Path, shape: str) -> Any:
    """Writes everything but the weights and `config.json`. Returns the `Qwen3Config`, which whoever writes the weights saves."""
    from transformers import Qwen3Config

    sizes = SHAPES[shape]
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(min(sizes["vocab_size"], 32_000))
    tokenizer.save(str(out / "tokenizer.json"))
    end_id = tokenizer.token_to_id(END)
    transformer = "sentence_transformers.models."
    write_json(
        out / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": transformer + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": transformer + "Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": transformer + "Normalize"},
        ],
    )
    write_json(
        out / "1_Pooling" / "config.json",
        {"word_embedding_dimension": sizes["hidden_size"], "pooling_mode_lasttoken": True, "include_prompt": True},
    )
    write_json(
        out / "config_sentence_transformers.json",
        {"prompts": {"query": QUERY_PROMPT, "document": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
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
    return Qwen3Config(max_position_embeddings=32_768, rope_theta=1_000_000.0, eos_token_id=end_id, bos_token_id=end_id, **sizes)


@cache
def train_tokenizer(vocabulary: int) -> Tokenizer:
    """A byte-level BPE that appends the end token, as Qwen3-Embedding's does."""
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
    parser = argparse.ArgumentParser(description="Make a Qwen3-Embedding-shaped model with random weights.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    options = parser.parse_args()
    make(options.out, options.shape)
