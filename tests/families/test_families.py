"""Whose family a base model is, what its tokenizer lacks, and a family that a test adds in one class."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.live_bytes import saved_bytes
from support.models import VISION as SMALL_VISION
from support.models import small_config
from support.planned import made_batch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ocrmem import families
from ocrmem.config import RunConfig
from ocrmem.conversations import ConversationReader, locate_conversations, read_conversations
from ocrmem.dataset.sequence import SequenceBuilder
from ocrmem.errors import ModelError
from ocrmem.families import FAMILIES, Family, Marks, Shape, family_of, known_positions
from ocrmem.generation.question import read_question
from ocrmem.model.modeling import MEMModel
from ocrmem.planning.activations import Projection, activations
from ocrmem.planning.flops import flops
from ocrmem.planning.shapes import base_config, shape_of
from ocrmem.planning.workload import BatchShape
from ocrmem.synthetic.tokenizer import build_tiny_tokenizer
from ocrmem.tokens import load_tokenizer

GEMMA_3 = "<image_soft_token>"
OTHER_MARKS = Marks("<memory>", "<token>", "</memory>")


class Memories(Family):
    """A family as a later file would write it."""

    marks = (OTHER_MARKS,)

    def tool_call(self, name: str, arguments: str) -> str:
        return f'{{"name": "{name}", "parameters": {arguments}}}'

    def shape(self, config):
        return Shape.of(config, head_norms=False)


@pytest.fixture
def llama(monkeypatch) -> Family:
    monkeypatch.setitem(FAMILIES, "llama", Memories("llama"))
    return FAMILIES["llama"]


def write_config(directory: Path, **values) -> str:
    (directory / "config.json").write_text(json.dumps(values))
    return str(directory)


def write_tokenizer(directory: Path, *, drop: tuple[str, ...] = (), add: tuple[str, ...] = ()) -> str:
    """The tiny tokenizer beside a Llama's config.json, with other special tokens."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    for number, token in enumerate(drop):
        text = text.replace(token, f"<other {number}>")
    path.write_text(text, encoding="utf-8")
    settings = directory / "tokenizer_config.json"
    values = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: v for name, v in values.items() if "special_tokens" not in name}))
    if add:
        again = AutoTokenizer.from_pretrained(directory)
        again.add_tokens(list(add), special_tokens=True)
        again.save_pretrained(directory)
    return write_config(directory, model_type="llama")


def named(base: str) -> RunConfig:
    return RunConfig.load("configs/qwen3-8b-8gpu.yaml", [f"model.base_model_name={base}", "model.base_revision=null"])


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("tiny", "tiny"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("qwen/qwen3-4b-instruct-2507", "qwen3"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "llama"),
        ("someone/else", "unknown"),
        ("no/directory/of/that/name", "unknown"),
    ],
)
def test_a_name_says_whose_family_it_is(name, model_type):
    assert family_of(name).model_type == model_type


def test_a_directory_says_it_by_its_config_json(tmp_path):
    assert family_of(write_config(tmp_path, model_type="qwen3")) is FAMILIES["qwen3"]
    assert family_of(write_config(tmp_path, model_type="llama")) is FAMILIES["llama"]
    other = family_of(write_config(tmp_path, model_type="exaone"))
    assert (other.model_type, family_of("exaone") in FAMILIES.values()) == ("exaone", False)


def test_a_model_in_the_hub_cache_says_it_too(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--tuned" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    write_config(snapshot, model_type="qwen3")
    (tmp_path / "models--someone--tuned" / "refs").mkdir()
    (tmp_path / "models--someone--tuned" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert family_of("someone/tuned") is FAMILIES["qwen3"]
    assert family_of("someone/tuned", "abc") is FAMILIES["qwen3"]


@pytest.mark.parametrize(
    ("model_type", "vocabulary", "start", "placeholder"),
    [
        ("qwen2", ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"], "<|vision_start|>", "<|image_pad|>"),
        ("llama", ["[", "]", "<unk>"], "[", "<unk>"),
        ("llama", ["<issue_start>", "<empty_output>", "<issue_closed>", "["], "<issue_start>", "<empty_output>"),
        ("mistral", ["[", "]", "<unk>", "[control_768]"], "[", "<unk>"),
        ("gemma2", ["<unused0>", "<unused1>", "<unused2>"], "<unused0>", "<unused1>"),
        ("gemma3_text", ["<start_of_image>", "<image_soft_token>", "<end_of_image>"], "<start_of_image>", GEMMA_3),
        ("of nobody", ["<unused0>", "<unused1>", "<unused2>", "<unk>"], "<unused0>", "<unused1>"),
    ],
)  # fmt: skip
def test_memory_is_marked_with_the_first_tokens_that_the_vocabulary_has(
    tmp_path, model_type, vocabulary, start, placeholder
):
    family = family_of(write_config(tmp_path, model_type=model_type))
    marks = family.marks_in(vocabulary)
    assert (marks.start, marks.placeholder) == (start, placeholder)


def test_ordinary_text_around_memory_stays_text_in_a_message(tmp_path):
    tokenizer = build_tiny_tokenizer()
    marks = (Marks("usr", "<|image_pad|>", "bot"),)
    builder = SequenceBuilder(tokenizer, 64, family=Family("plain", marks))
    assert builder.memory.start in builder.encode_content("usr ana bot")
    assert builder.memory.placeholder not in builder.encode_content("<|image_pad|>")


def test_every_file_of_the_package_is_in_the_table():
    folder = Path(families.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "family", "registry"}
    assert files == {type(family).__module__.rsplit(".", 1)[1] for family in FAMILIES.values()}


def test_families_need_neither_torch_nor_transformers():
    code = "import sys, ocrmem.families; print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_tokenizer_without_the_marks_is_refused_by_family_and_token(tmp_path):
    name = write_tokenizer(tmp_path, drop=("<|vision_start|>", "<|image_pad|>"))
    with pytest.raises(ModelError) as refused:
        load_tokenizer(named(name))
    said = str(refused.value)
    assert said.startswith(f"model.base_model_name: the tokenizer of '{name}' (family llama) has no ")
    assert "mark memory with: <|reserved_special_token_0|>, " in said
    assert "; or [, <unk>, ]. Add three of them as special tokens" in said


def test_a_family_chooses_its_own_marks(tmp_path, llama):
    name = write_tokenizer(tmp_path, drop=("<|vision_start|>",), add=("<memory>", "<token>", "</memory>"))
    config = named(name)
    builder = SequenceBuilder.of(config)
    ids = [builder.memory.start, builder.memory.placeholder, builder.memory.end]
    assert builder.tokenizer.convert_ids_to_tokens(ids) == ["<memory>", "<token>", "</memory>"]
    assert not set(ids) & set(builder.encode_content("<memory><token></memory>"))


def test_a_family_chooses_what_its_template_is_given():
    class Loud(Family):
        template_options = {"loud": True}  # noqa: RUF012

    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = "{% if loud %}{{ 'ask ' }}{% endif %}" + tokenizer.chat_template
    assert SequenceBuilder(tokenizer, 64).count([]) == 0
    plain = SequenceBuilder(tokenizer, 64)._markup(["user"])
    assert SequenceBuilder(tokenizer, 64, family=Loud("loud"))._markup(["user"])[0] == (
        *tokenizer("ask", add_special_tokens=False)["input_ids"],
        *plain[0],
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_family_without_head_norms_is_planned_to_the_byte_and_the_operation(llama, checkpointing):
    base = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=112,
            vocab_size=72,
            tie_word_embeddings=True,
        )
    )
    model = MEMModel(small_config(projector_hidden_size=80), base).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = made_batch(padded=True)
    rows, length = batch["input_ids"].shape
    memory, answers = len(batch["memory_features"]), int((batch["labels"] != -100).sum())
    shape, proj = shape_of(base.config), Projection(SMALL_VISION, 80, False)
    size = BatchShape(rows, length, length**2, memory, answers, padded=True)
    if not checkpointing:
        kept = saved_bytes(lambda: model(**batch), model.parameters())
        assert kept == activations(shape, proj, size, 4, checkpointing=False).kept
    with FlopCounterMode(display=False) as counted:
        model(**batch).loss.backward()
    assert flops(shape, proj, size, checkpointing=checkpointing).executed == counted.get_total_flops()


def test_the_plan_takes_a_family_that_has_a_shape(tmp_path, llama):
    LlamaConfig(num_hidden_layers=2, max_position_embeddings=8192).save_pretrained(tmp_path)
    assert shape_of(base_config(named(str(tmp_path)))).layers == 2


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("tiny", 512),
        ("Qwen/Qwen3-8B", 40960),
        ("Qwen/Qwen3-0.6B", 40960),
        ("Qwen/Qwen3-8B-Base", 32768),
        ("Qwen/Qwen3-4B-Instruct-2507", 262144),
        ("Qwen/Qwen3-Embedding-8B", None),
        ("someone/else", None),
    ],
)
def test_known_positions(name: str, positions: int | None) -> None:
    assert known_positions(name) == positions


def test_a_family_writes_its_tool_calls_into_every_reading(tmp_path, llama):
    call = {"tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}]}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", **call}]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(json.dumps({"id": "a", "messages": messages}) + "\n")
    LlamaConfig(max_position_embeddings=8192).save_pretrained(tmp_path)
    config = named(str(tmp_path))
    config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(tmp_path / "data")})})
    said = '{"name": "look", "parameters": {"at": 1}}'
    stored = locate_conversations(config).read(range(1))
    scanned = [found for found, _, _ in ConversationReader(tmp_path / "data", 0.0, config.model.family).read()]
    _, answer = read_question(json.dumps({"messages": messages}).encode(), "q", config.model.family)
    for conversation in (*read_conversations(config), *stored, *scanned):
        assert conversation.messages[-1].content == said
    assert answer == said
