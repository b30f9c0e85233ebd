"""Settings of a model's folder that change vectors are obeyed, or refused by name."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding import model_files
from bulkembed.embedding.model_shape import UNLOADABLE
from bulkembed.embedding.settings_file import Settings
from bulkembed.embedding.tokenizer_classes import surrounding
from bulkembed.errors import ModelError
from bulkembed.records import Model
from bulkembed.text.tokenizer import Tokenizer
from scripts.samples.twin_files import WEIGHTS_OF_NOTHING, describe
from scripts.samples.twins import TWINS
from tests.support.models import recipe

REFUSED = {
    "mpnet": "config.json: vLLM does not load the architecture MPNetModel",
    "jina-v2": "config.json: vLLM does not load the architecture JinaBertModel",
    "gte-qwen2": "add_eos_token is true, but tokenizer.json adds no '<|endoftext|>'",
    "jina-v3": "type 'custom_st.Transformer' is not supported",
}

LEFT = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twins without their weights."""
    root = tmp_path_factory.mktemp("twins")
    for name, twin in TWINS.items():
        describe(root / name, twin)
        (root / name / "model.safetensors").write_bytes(WEIGHTS_OF_NOTHING)
    return root


@pytest.fixture
def folder(twins: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(twins / "labse", tmp_path / "labse"))


def described(folder: Path) -> Model:
    return model_files.describe(str(folder), None)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        described(folder)
    return str(caught.value)


def rewrite(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


@pytest.mark.parametrize("name", TWINS)
def test_the_models_that_are_used_most_are_described_or_refused_by_name(twins: Path, name: str) -> None:
    if name in REFUSED:
        assert REFUSED[name] in refusal(twins / name)
        return
    found, twin = described(twins / name), TWINS[name]
    widths = [module.out_features for module in twin.modules if not isinstance(module, str)]
    assert found.width == (widths or [64])[-1]
    assert (found.pooling, found.max_tokens) == (twin.pooling.removesuffix("token"), twin.transformer.get("max_seq_length", 512))
    assert dict(found.prompts) == twin.prompts
    Tokenizer(str(twins / name / "tokenizer.json"), found.max_tokens, found.end_token)


def test_what_vllm_does_not_load_is_not_in_its_registry() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "model_executor" / "models" / "registry.py").read_text(encoding="utf-8")
    assert [name for name in UNLOADABLE if f'"{name}"' in text] == []


@pytest.mark.parametrize(("padding", "tokens"), [(1, 512), (0, 513), (3, 510)])
def test_the_roberta_family_counts_positions_from_its_padding_token_on(twins: Path, tmp_path: Path, padding: int, tokens: int) -> None:
    folder = Path(shutil.copytree(twins / "multilingual-e5", tmp_path / "e5"))
    (folder / "sentence_bert_config.json").unlink()
    rewrite(folder / "config.json", pad_token_id=padding)
    assert described(folder).max_tokens == tokens


def test_the_limit_of_sentence_transformers_goes_before_that_of_the_tokenizer(folder: Path) -> None:
    rewrite(folder / "tokenizer_config.json", model_max_length=100)
    assert described(folder).max_tokens == 256
    (folder / "sentence_bert_config.json").unlink()
    assert described(folder).max_tokens == 100


def test_vectors_are_cut_as_the_files_say(folder: Path) -> None:
    rewrite(folder / "config_sentence_transformers.json", truncate_dim=16)
    found = described(folder)
    assert [form.dim for form in recipe(RunConfig(source="in", output="out", model="m"), found).row_schema.vectors] == [16]
    assert found.width == 64


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"is_decoder": True}, "is_decoder is 'True': transformers makes a decoder of the model"),
        ("tokenizer_config.json", {"do_lower_case": True}, "do_lower_case is true, but tokenizer.json does the opposite"),
        ("tokenizer_config.json", {"tokenize_chinese_chars": False}, "tokenize_chinese_chars is false"),
        ("tokenizer_config.json", {"strip_accents": True}, "strip_accents is true"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "truncation_side is 'left': long texts would lose their beginning"),
        ("tokenizer_config.json", {"split_special_tokens": True}, "split_special_tokens"),
        ("tokenizer_config.json", {"bos_token": "<new>"}, "bos_token '<new>' is no token of tokenizer.json"),
        ("tokenizer_config.json", {"extra_special_tokens": ["<new>"]}, "extra_special_tokens '<new>' is no token"),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"7": {"content": "[MASK]"}}},
            "'[MASK]' has the id 7, but tokenizer.json has 4",
        ),
        ("tokenizer_config.json", {"add_eos_token": True, "eos_token": "[MASK]"}, "add_eos_token is true, but tokenizer.json adds no"),
        ("tokenizer_config.json", {"word_dropout": 0.5}, "word_dropout is a setting that bulkembed does not know"),
        ("special_tokens_map.json", {"cls_token": {"content": "<new>"}}, "cls_token '<new>' is no token"),
        ("added_tokens.json", {"<new>": 7}, "'<new>' has the id 7"),
        (
            "tokenizer.json",
            {"truncation": {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}},
            "direction is 'Left'",
        ),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is 'True': tokenizer.json keeps capital letters"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"tokenizer_args": {"lowercase": True}}, "tokenizer_args: lowercase is a setting"),
        ("sentence_bert_config.json", {"query_length": 32}, "query_length"),
        ("config_sentence_transformers.json", {"default_prompt_name": "ask"}, "default_prompt_name is 'ask', which is none of its prompts"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type is 'SparseEncoder'"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "hamming"}, "similarity_fn_name is 'hamming'"),
        ("config_sentence_transformers.json", {"truncate_dim": 65}, "truncate_dim is 65, more than the 64"),
        ("config_sentence_transformers.json", {"whiten": True}, "whiten is a setting that bulkembed does not know"),
        ("2_Dense/config.json", {"use_residual": True}, "use_residual is 'True'"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Mish"}, "activation_function"),
        ("2_Dense/config.json", {"in_features": 32}, "asks for {'linear.weight': [64, 32]"),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "Tanh after mean pooling"),
    ],
)
def test_a_setting_that_changes_vectors_is_refused_by_name(folder: Path, name: str, changes: dict[str, Any], message: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    rewrite(folder / name, **changes)
    line = refusal(folder)
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "tokenizer_config.json",
            {"cls_token": "[MASK]"},
            "the first token of BertTokenizer is '[MASK]', and that of tokenizer.json is '[CLS]'",
        ),
        ("tokenizer_config.json", {"sep_token": "[MASK]"}, "the last token of BertTokenizer is '[MASK]'"),
        ("tokenizer_config.json", {"unk_token": "[MASK]"}, "the unknown token of BertTokenizer is '[MASK]'"),
        ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizerFast"}, "the model of XLMRobertaTokenizer is 'Unigram'"),
        ("tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer"}, "the model of Qwen2Tokenizer is 'BPE'"),
        ("tokenizer.json", {"post_processor": None}, "the first token of BertTokenizer is '[CLS]', and that of tokenizer.json is ''"),
        (
            "tokenizer.json",
            {"normalizer": None},
            "the normalizer of BertTokenizer is 'BertNormalizer', and that of tokenizer.json is 'none'",
        ),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "the pre_tokenizer of BertTokenizer"),
    ],
)
def test_a_tokenizer_that_transformers_builds_otherwise_is_refused(folder: Path, name: str, changes: dict[str, Any], message: str) -> None:
    if name == "tokenizer.json":
        rewrite(folder / "tokenizer_config.json", do_lower_case=None, tokenize_chinese_chars=None)
    rewrite(folder / name, **changes)
    assert message in refusal(folder)
    rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert described(folder).width == 64, "this class takes tokenizer.json as it is"


@pytest.mark.parametrize(
    ("processor", "tokens"),
    [
        ({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}, ("[CLS]", "[SEP]")),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0]}]},
            ("a", "b"),
        ),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "e"}}]}, ("", "e")),
        ({"type": "TemplateProcessing", "single": []}, ("", "")),
        ({"type": "TemplateProcessing", "single": [3, {"SpecialToken": 3}]}, ("", "")),
        ({}, ("", "")),
    ],
)
def test_the_tokens_around_a_text(processor: dict[str, Any], tokens: tuple[str, str]) -> None:
    assert surrounding(Settings("tokenizer.json", processor)) == tokens


@pytest.mark.parametrize("code", [{"AutoTokenizer": ["tokenization_x.Own", None]}, ["tokenization_x.Own", None]])
def test_code_of_a_tokenizer_is_refused_unless_it_is_trusted_by_name(folder: Path, code: Any) -> None:
    rewrite(folder / "tokenizer_config.json", auto_map=code)
    found = described(folder)
    places = {"source": "in", "output": "out", "model": "m"}
    for args in ({}, {"trust_remote_code": False}):
        with pytest.raises(ModelError, match=r"tokenizer_config.json of .* names code of its own \(auto_map\).*trust_remote_code"):
            recipe(RunConfig.model_validate(places | {"engine": {"args": args}}), found)
    assert recipe(RunConfig.model_validate(places | {"engine": {"args": {"trust_remote_code": True}}}), found)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer_config.json", {"auto_map": {}}),
        ("tokenizer_config.json", {"padding_side": "left", "clean_up_tokenization_spaces": True, "chat_template": "{{ messages }}"}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"4": {"content": "[MASK]", "special": True}}, "word_dropout": None}),
        ("tokenizer.json", {"padding": None}),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "sdpa"}, "unpad_inputs": False}),
        ("config_sentence_transformers.json", {"__version__": {"transformers": "5"}, "similarity_fn_name": "dot"}),
    ],
)
def test_a_setting_that_changes_nothing_is_let_pass(folder: Path, name: str, changes: dict[str, Any]) -> None:
    rewrite(folder / name, **changes)
    assert described(folder).width == 64


def test_a_model_that_compares_lengths_too_is_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:-1]))
    rewrite(folder / "config_sentence_transformers.json", similarity_fn_name="dot")
    assert "similarity_fn_name is 'dot': it compares vectors that are not normalised" in refusal(folder)


def test_the_weights_of_a_linear_layer_are_of_the_models_identity(folder: Path) -> None:
    before = described(folder)
    path = folder / "2_Dense" / "model.safetensors"
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[-1] ^= 1
    path.write_bytes(data.tobytes())
    assert described(folder).digest != before.digest
    path.write_bytes(b"\x00" * 4)
    assert "not a safetensors file" in refusal(folder)
    path.unlink()
    assert "cannot be read" in refusal(folder)
