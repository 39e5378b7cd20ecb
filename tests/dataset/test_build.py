"""`render`: what is in the dataset, and that its bytes depend on data and settings alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.chat import conversation, tree, write_jsonl

from ocrmem.conversations import SPLITS, Conversation, Message, read_conversations
from ocrmem.dataset.build import build_dataset
from ocrmem.dataset.manifest import shards_of
from ocrmem.dataset.memory_dataset import MemoryDataset
from ocrmem.dataset.quality import check_dataset
from ocrmem.dataset.samples import SampleMaker
from ocrmem.errors import ConfigError, DataError
from ocrmem.rendering import load_atlas, render_text, transcript
from ocrmem.tokens import load_tokenizer


def all_samples(dataset: MemoryDataset):
    return [sample for split in SPLITS for sample in dataset.samples(split)]


def test_a_sample_has_pages_exactly_when_its_history_is_over_the_threshold(make_config, small_data):
    config = make_config()
    result = build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    samples = all_samples(dataset)
    assert {sample.has_memory for sample in samples} == {True, False}
    for sample in samples:
        assert sample.has_memory == (sample.history_tokens > config.model.context_threshold)
        assert sample.memory_tokens == sum(int(dataset.kept(name).sum()) for name in sample.pages)
        assert sample.sequence_tokens <= config.model.max_seq_length
        assert sample.answer_tokens > 1
    assert result["samples"] == {split: len(dataset.samples(split)) for split in SPLITS}
    assert result["unique_pages"] == len(dataset.page_hashes()) == len(set(dataset.page_hashes()))
    assert f"{len(dataset.samples('train'))} train samples" in result["summary"][0]


def test_pages_are_those_of_the_history_drawn_on_its_own(make_config, small_data):
    config = make_config(render={"page_size": 512, "max_pages": 1})
    build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    atlas = load_atlas()
    dropped = 0
    for sample in all_samples(dataset):
        if not sample.has_memory:
            continue
        pages = render_text(transcript(sample.history, config.render.labels), config.render, atlas).pages
        assert list(sample.pages) == [page.hash for page in pages[-1:]]
        assert sample.dropped_pages == len(pages) - 1
        dropped += sample.dropped_pages
        assert (dataset.page(sample.pages[-1]).bits == pages[-1].bits).all()
    assert dropped > 0
    assert dataset.manifest["counts"]["dropped_pages"] == dropped


def test_text_on_dropped_pages_is_no_compression(make_config, small_data):
    config = make_config(render={"page_size": 512, "max_pages": 1})
    build_dataset(config)
    samples = all_samples(MemoryDataset.open(config.paths.dataset))
    maker = SampleMaker(config, load_tokenizer(config))
    cut = [sample for sample in samples if sample.dropped_pages]
    assert cut
    for sample in cut:
        text = transcript(sample.history, config.render.labels)
        rendering = render_text(text, config.render, load_atlas())
        start = rendering.rows[sample.dropped_pages * rendering.geometry.rows].start
        shown = len(maker.builder.encode_content(text[start:]))
        assert 0 < sample.pictured_tokens < sample.history_tokens
        # Labels are not the template's roles, so the two counts differ by a few tokens a message.
        assert abs(sample.pictured_tokens - shown) <= 12 * len(sample.history)
        assert sample.compression_ratio == sample.pictured_tokens / (sample.memory_tokens + 2)


def test_blank_patches_count_when_they_are_kept(make_config, small_data):
    config = make_config(model={"drop_blank_tokens": False, "max_seq_length": 4096})
    build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    with_memory = [sample for sample in all_samples(dataset) if sample.has_memory]
    assert all(sample.memory_tokens == 64 * len(sample.pages) for sample in with_memory)
    assert dataset.kept(with_memory[0].pages[0]).all()


def test_a_page_of_empty_lines_has_nothing_to_read_and_is_left_out(make_config, tmp_path):
    row = conversation("blank", 4)
    row["messages"][1]["content"] += "\n" * 70 + "end"
    write_jsonl(tmp_path / "data" / "train.jsonl", [row])
    config = make_config()
    build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    assert all(dataset.kept(name).any() for name in dataset.page_hashes())
    last = dataset.samples("train")[-1]
    text = transcript(last.history, config.render.labels)
    assert len(last.pages) < len(render_text(text, config.render, load_atlas()).pages)
    assert last.dropped_pages == 0


def test_the_samples_of_a_conversation_share_pages(make_config, tmp_path):
    write_jsonl(tmp_path / "data" / "train.jsonl", [conversation("long", 20)])
    result = build_dataset(make_config())
    assert result["unique_pages"] < result["pages"] / 2


def test_pages_that_several_shards_share_are_stored_once(make_config, tmp_path):
    first, second = conversation("same", 5), conversation("same", 5)
    second["id"], second["messages"][0] = "twin", {"role": "system", "content": "Someone else."}
    write_jsonl(tmp_path / "data" / "train.jsonl", [first, conversation("other", 5), second])
    config = make_config(data={"shard_conversations": 1})
    result = build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    assert len(dataset.page_hashes()) == len(set(dataset.page_hashes())) == result["unique_pages"]
    by_conversation = {sample.conversation_id: sample.pages for sample in dataset.samples("train")}
    assert by_conversation["same"] == by_conversation["twin"]


def test_a_shard_keeps_only_the_pages_that_earlier_ones_lack(make_config, tmp_path):
    first, longer = conversation("same", 7), conversation("same", 7)
    longer["id"] = "longer"
    longer["messages"] += conversation("more", 3)["messages"][1:]
    write_jsonl(tmp_path / "data" / "train.jsonl", [first, longer])
    config = make_config(data={"shard_conversations": 1})
    build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    by_shard = [shard["rows"] for shard in shards_of(dataset.manifest, "pages")]
    pages = {
        c: {p for s in dataset.samples("train") if s.conversation_id == c for p in s.pages} for c in ("same", "longer")
    }
    assert pages["same"] & pages["longer"]
    assert by_shard == [len(pages["same"]), len(pages["longer"] - pages["same"])]
    for sample in dataset.samples("train"):
        assert sample.memory_tokens == sum(int(dataset.kept(name).sum()) for name in sample.pages)


def test_a_file_system_without_hard_links_gives_the_same_dataset(make_config, small_data, monkeypatch):
    config = make_config()
    build_dataset(config)
    linked = tree(Path(config.paths.dataset))

    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    build_dataset(config)
    assert tree(Path(config.paths.dataset)) == linked


def test_a_conversation_that_the_template_refuses_is_named_by_file_and_line(make_config, tmp_path, make_tokenizer):
    make_tokenizer(
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    ).save_pretrained(tmp_path / "toolless")
    rows = [conversation("a", 3), conversation("b", 3)]
    rows[1]["messages"].insert(2, {"role": "tool", "content": "4711", "tool_call_id": "x"})
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    with pytest.raises(DataError, match="no tools") as error:
        build_dataset(make_config(model={"base_model_name": str(tmp_path / "toolless")}))
    assert {problem.place.split(": ")[0] for problem in error.value.problems} == {
        str(tmp_path / "data" / "train.jsonl:2")
    }


def test_a_history_without_any_ink_is_a_problem_not_a_sample(make_config):
    blank = Message("user", " \n" * 300)
    messages = (blank, Message("assistant", " " * 300), Message("user", "What?"), Message("assistant", "x"))
    labels = {"system": "", "user": "", "assistant": "", "tool": ""}
    config = make_config(render={"labels": labels})
    made = SampleMaker(config, load_tokenizer(config)).make(Conversation("id", messages, "train", "a.jsonl:7"))
    assert [sample.id for sample in made.samples] == ["id#0"]
    (problem,) = made.problems
    assert problem.place == "a.jsonl:7: sample id#1"
    assert "no ink" in problem.message


def test_hugging_face_datasets_reads_samples_and_pages(make_config, small_data, tmp_path):
    datasets = pytest.importorskip("datasets")
    config = make_config()
    result = build_dataset(config)
    root = Path(config.paths.dataset)
    samples = datasets.load_dataset(
        "parquet",
        data_files={split: str(root / "samples" / f"{split}-*.parquet") for split in SPLITS},
        cache_dir=str(tmp_path / "cache"),
    )
    assert {split: rows.num_rows for split, rows in samples.items()} == result["samples"]
    ours = MemoryDataset.open(root).samples("train")[2]
    theirs = samples["train"][2]
    assert theirs["id"] == ours.id
    assert [(m["role"], m["content"]) for m in theirs["history"]] == [(m.role, m.content) for m in ours.history]
    pages = datasets.load_dataset(
        "parquet", data_files=str(root / "pages" / "*.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert pages["hash"][:] == list(MemoryDataset.open(root).page_hashes())


def test_a_dataset_of_other_settings_is_replaced(make_config, small_data):
    first = make_config()
    build_dataset(first)
    before = tree(Path(first.paths.dataset))
    second = make_config(render={"page_size": 640})
    build_dataset(second)
    assert MemoryDataset.open(second.paths.dataset).page_size == 640
    build_dataset(first)
    assert tree(Path(first.paths.dataset)) == before


def test_no_sample_with_memory_names_the_threshold_and_the_longest_history(make_config, small_data):
    config = make_config(model={"context_threshold": 4096, "max_seq_length": 8192})
    with pytest.raises(DataError, match=r"no sample gets memory.*more than 4096 tokens") as error:
        build_dataset(config)
    maker = SampleMaker(config, load_tokenizer(config))
    longest = max(maker.make(row).longest_history for row in read_conversations(config))
    assert f"the longest history has {longest} tokens" in str(error.value)
    assert f"Set model.context_threshold below {longest}" in str(error.value)
    assert not Path(config.paths.dataset).exists()


def test_training_samples_without_memory_are_refused_even_if_held_out_ones_have_it(make_config, tmp_path):
    write_jsonl(tmp_path / "data" / "train.jsonl", [conversation("short", 1)])
    write_jsonl(tmp_path / "data" / "eval.jsonl", [conversation("long", 5)])
    with pytest.raises(DataError, match="no training sample gets memory"):
        build_dataset(make_config())


@pytest.mark.parametrize(("recent", "advised"), [(1, False), (2, True)])
def test_without_any_history_no_lower_threshold_is_advised(make_config, tmp_path, recent, advised):
    write_jsonl(tmp_path / "data" / "train.jsonl", [conversation("short", 1)])
    with pytest.raises(DataError, match=r"the longest history has 0 tokens\. Bring conversations of several") as error:
        build_dataset(make_config(data={"recent_turns": recent}))
    assert ("lower data.recent_turns" in str(error.value)) == advised


def test_every_sample_that_does_not_fit_is_named_at_once(make_config, tmp_path):
    rows = [conversation("a", 3), conversation("b", 3), conversation("c", 3)]
    for row in (rows[0], rows[2]):
        row["messages"][-1]["content"] = "code " * 2000
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    config = make_config(data={"shard_conversations": 1})
    with pytest.raises(DataError) as error:
        build_dataset(config)
    places = [problem.place for problem in error.value.problems]
    assert [place.split(": ")[1] for place in places] == ["sample a#2", "sample c#2"]
    assert places[0].startswith(str(tmp_path / "data" / "train.jsonl:1"))
    assert all("max_seq_length" in problem.remedy for problem in error.value.problems)
    with pytest.raises(DataError, match="sample c#2"):  # what the first run left is not taken for complete
        build_dataset(config)
    assert not Path(config.paths.dataset).exists()


def test_skip_bad_leaves_out_what_does_not_fit_and_says_so(make_config, tmp_path):
    rows = [conversation("a", 3), conversation("b", 3)]
    rows[0]["messages"][-1]["content"] = "code " * 2000
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    with (tmp_path / "data" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    config = make_config(data={"skip_bad": True})
    result = build_dataset(config)
    root = Path(config.paths.dataset)
    assert result["left_out"] == 1
    left_out = json.loads((root / "left_out.jsonl").read_text(encoding="utf-8"))
    assert "a#2" in left_out["place"]
    assert "{broken" in (root / "rejects.jsonl").read_text(encoding="utf-8")
    assert result["rejects"] == str(root / "rejects.jsonl")
    assert [sample.id for sample in MemoryDataset.open(root).samples("train")] == [
        "a#0",
        "a#1",
        "b#0",
        "b#1",
        "b#2",
    ]


def test_page_sizes_that_do_not_fit_are_found_before_any_work(make_config, small_data):
    config = make_config()
    broken = config.model_copy(update={"render": config.render.model_copy(update={"page_size": 500})})
    with pytest.raises(ConfigError, match=r"render\.page_size"):
        build_dataset(broken)


@pytest.mark.slow
def test_real_chat_at_1024_px(make_config, tmp_path):
    """English, Chinese, emoji and code on pages of DeepSeek-OCR's size."""
    texts = {
        "en": "The quick brown fox jumps over the lazy dog while I look for the notes of last week. " * 6,
        "zh": "请记住：储物柜的密码是四七一一。今天的茶已经凉了，我们稍后再去厨房泡一壶新的。" * 8,
        "emoji": "Great 👍🏽 — see you 🏖️ at 7 pm 🙂 family 👨‍👩‍👧, flags 🇩🇪🇨🇳! " * 8,
        "code": "def f(x):\n\treturn [i ** 2 for i in range(x)]  # squares\n\n\nprint(f(10))\n" * 6,
    }
    rows = []
    for name, text in texts.items():
        messages = []
        for turn in range(12):
            messages += [
                {"role": "user", "content": f"{turn}: {text}"},
                {"role": "assistant", "content": f"{turn}. {text[: len(text) // 2]}".strip()},
            ]
        rows.append({"id": name, "messages": messages})
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    model = {"context_threshold": 1024, "max_seq_length": 8192}
    # The test's tokenizer has about a token a character, so ratios are higher than a real one's.
    bounds = {"max_compression_ratio": 60.0}
    config = make_config(model=model, render={"page_size": 1024, "max_pages": 8}, check=bounds)
    build_dataset(config)
    dataset = MemoryDataset.open(config.paths.dataset)
    assert dataset.tokens_per_page == 256
    ratios = {}
    for sample in dataset.samples("train"):
        if sample.has_memory:
            assert all(1 <= dataset.kept(name).sum() <= 256 for name in sample.pages)
            ratios[sample.conversation_id] = sample.compression_ratio
    assert set(ratios) == set(texts)
    assert all(ratio > 1 for ratio in ratios.values())
    assert check_dataset(config)["success"] is True


def test_message_and_sample_survive_parquet(make_config, tmp_path):
    """Zero bytes, quotes, line ends of every kind: what was read is what comes back."""
    row = conversation("odd", 4)
    odd = 'a\x00b "quoted" \r\n\u2028 \U0001f642 <|im_end|> \t x'
    row["messages"][1]["content"] += odd
    write_jsonl(tmp_path / "data" / "train.jsonl", [row])
    config = make_config()
    build_dataset(config)
    sample = MemoryDataset.open(config.paths.dataset).samples("train")[-1]
    expected = [Message(m["role"], m["content"]) for m in row["messages"]]
    assert list(sample.prompt[:1]) == expected[:1]
    assert list(sample.history) == expected[1:-2]
    assert sample.answer == expected[-1].content


@pytest.mark.parametrize(
    ("systems", "usual"),
    [(["ana", "ana", "tea"], "ana"), ([None, None, "tea"], None), ([None, "tea", "tea"], "tea")],
)
def test_the_usual_system_message_is_that_of_most_samples(make_config, systems, usual):
    config = make_config(model={"context_threshold": 0})
    rows = [conversation(f"c{number}", 2, system=system) for number, system in enumerate(systems)]
    write_jsonl(Path(config.data.path) / "train.jsonl", rows)
    build_dataset(config)
    assert MemoryDataset.open(config.paths.dataset).samples("train").usual_system() == usual
