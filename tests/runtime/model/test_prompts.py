"""Prompts against transformers' rendering of the checkpoint's template, and every place a template may be."""

import json
import shutil

import pytest
from qvl_local.runtime.errors import CheckpointError
from qvl_local.runtime.model.prompts import (
    ChatTemplate,
    Message,
    Piece,
    embedding_messages,
    load_template,
    reranking_messages,
)

ECHO = "{% for m in messages %}{{ m.role }}:{% for c in m.content %}[{{ c.text }}]{% endfor %}{% endfor %}"
# Shaped as the published one: every branch that it takes for systems, images and videos.
PUBLISHED = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].content is string %}
        {{- messages[0].content }}
    {%- else %}
        {%- for content in messages[0].content %}
            {%- if 'text' in content %}
                {{- content.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set image_count = namespace(value=0) %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- for content in message.content %}
            {%- if content.type == 'image' or 'image' in content or 'image_url' in content %}
                {%- set image_count.value = image_count.value + 1 %}
                {%- if add_vision_id %}Picture {{ image_count.value }}: {% endif -%}
                <|vision_start|><|image_pad|><|vision_end|>
            {%- elif content.type == 'video' or 'video' in content %}
                {%- if add_vision_id %}Video: {% endif -%}
                <|vision_start|><|video_pad|><|vision_end|>
            {%- elif 'text' in content %}
                {{- content.text }}
            {%- endif %}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def rendered(texts=(), images=0, videos=0, instruction=None, source=PUBLISHED):
    template = ChatTemplate(source, name="template")
    return template.render(embedding_messages(texts, images=images, videos=videos, instruction=instruction))


@pytest.mark.parametrize(
    ("instruction", "system"),
    [
        (None, "Represent the user's input."),
        ("", "Represent the user's input."),
        ("  \n", "Represent the user's input."),
        ("Find the dog", "Find the dog."),
        ("  Find the dog! ", "Find the dog!"),
        ("狗。", "狗。"),
        ("(a dog)", "(a dog)"),
        ("costs 5 $", "costs 5 $."),
    ],
)
def test_the_instruction_ends_in_punctuation(instruction, system):
    assert rendered(["a"], instruction=instruction).startswith(f"<|im_start|>system\n{system}<|im_end|>\n")


def test_videos_come_before_images_before_texts():
    image, video = (
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|vision_start|><|video_pad|><|vision_end|>",
    )
    assert f"user\n{video}{image}{image}one two<|im_end|>\n<|im_start|>assistant\n" in rendered(
        ["one ", "two"], images=2, videos=1
    )


def test_nothing_is_null_but_an_empty_text_is_itself():
    assert "user\nNULL<|im_end|>" in rendered()
    assert "user\n<|im_end|>" in rendered([""])


def test_the_reranking_prompt_word_for_word():
    messages = reranking_messages((["two dogs"], 0, 0), ([], 1, 0), instruction=None)
    assert ChatTemplate(PUBLISHED, name="template").render(messages) == (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: "
        "Given a search query, retrieve relevant candidates that answer the query.<Query>:two dogs\n"
        "<Document>:"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )


def test_reranking_parts_may_be_empty_and_instructions_are_left_alone():
    messages = reranking_messages(([], 0, 0), ([], 0, 0), instruction="Find it")
    text = ChatTemplate(PUBLISHED, name="template").render(messages)
    assert "<Instruct>: Find it<Query>:NULL\n<Document>:NULL<|im_end|>" in text


@pytest.mark.parametrize("source", [PUBLISHED, None], ids=["published", "tiny"])
def test_rendering_is_that_of_transformers(source, tiny_embedding, tiny_folder):
    source = source or (tiny_folder / "embedding" / "chat_template.jinja").read_text(encoding="utf-8")
    for texts, images, videos in (
        ([], 0, 0),
        (["a\n b ", "<b>&amp; {{ x }}"], 2, 1),
        ([""], 0, 0),
        (["\u00e9"], 0, 2),
    ):
        conversation = tiny_embedding.embedding_conversation(texts=texts, images=images, videos=videos)
        theirs = tiny_embedding.processor.apply_chat_template(
            conversation, chat_template=source, add_generation_prompt=True, tokenize=False
        )
        assert rendered(texts, images, videos, source=source) == theirs


def test_frames_are_kept_and_then_need_no_jinja(tmp_path, monkeypatch):
    messages = embedding_messages(["two dogs"], images=1, videos=0, instruction=None)
    first = ChatTemplate(PUBLISHED, name="template", frames=tmp_path).render(messages)

    def refuse(*_):
        raise AssertionError("rendered again")

    monkeypatch.setattr(ChatTemplate, "_run", refuse)
    later = ChatTemplate(PUBLISHED, name="template", frames=tmp_path)
    assert later.render(messages) == first
    other = embedding_messages(["a cat"], images=1, videos=0, instruction="Hm.")
    assert "a cat" in later.render(other)
    with pytest.raises(AssertionError, match="rendered again"):
        ChatTemplate(PUBLISHED + " ", name="template", frames=tmp_path).render(messages)


@pytest.mark.parametrize(
    "touching",
    ["{{ c.text | trim }}", "{{ c.text | upper }}", "{% if c.text %}<{{ c.text }}>{% endif %}", "."],
)
def test_a_template_that_touches_texts_is_rendered_each_time(tmp_path, touching):
    source = ECHO.replace("{{ c.text }}", touching)
    messages = [Message("user", (Piece("text", " a b\n"),))]
    for _ in range(2):
        template = ChatTemplate(source, name="template", frames=tmp_path)
        plain = ChatTemplate(source, name="template")._run(messages)
        assert template.render(messages) == plain


def test_a_damaged_frame_cache_is_ignored(tmp_path):
    messages = [Message("user", (Piece("text", "a"),))]
    ChatTemplate(ECHO, name="template", frames=tmp_path).render(messages)
    (kept,) = tmp_path.glob("*.json")
    for content in ("{", "[]", '{"user:text": 3}'):
        kept.write_text(content, encoding="utf-8")
        assert ChatTemplate(ECHO, name="template", frames=tmp_path).render(messages) == "user:[a]"


def test_every_place_of_a_template(tmp_path):
    def place(name, content):
        folder = tmp_path / name.replace("/", "-").split(".")[0]
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return folder

    named = [{"name": "asking", "template": "{{ messages }}"}, {"name": "default", "template": ECHO}]
    # As the published 2B reranker ships it: for another caller, without messages.
    other = "<Instruct>: {{ instruction }}<Query>:{{ query_content }}"
    folders = [
        place("chat_template.jinja", ECHO),
        place("chat_template.json", {"chat_template": ECHO}),
        place("tokenizer_config.json", {"chat_template": ECHO}),
        place("additional_chat_templates/default.jinja", ECHO),
    ]
    for folder in folders:
        assert load_template(folder).render([Message("user", (Piece("text", "a"),))]) == "user:[a]"
    folder = place("tokenizer_config.json", {"chat_template": named})
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "reranker.jinja").write_text(other, encoding="utf-8")
    assert load_template(folder).render([Message("user", (Piece("text", "a"),))]) == "user:[a]"
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="no chat template"):
        load_template(folder)


def test_a_jinja_file_comes_before_the_others(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{{ messages | length }}", encoding="utf-8")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": ECHO}), encoding="utf-8")
    assert load_template(tmp_path).render([Message("user", (Piece("text", "a"),))]) == "1"


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[7].content }}",
        "{{ raise_exception('no') }}{{ messages }}",
    ],
)
def test_broken_and_hostile_templates_are_checkpoint_errors(source):
    with pytest.raises(CheckpointError, match="template"):
        ChatTemplate(source, name="some/chat_template.jinja").render([Message("user", (Piece("text", "a"),))])


def test_a_checkpoint_without_a_template_is_named(tmp_path, tiny_folder):
    shutil.copy(tiny_folder / "embedding" / "tokenizer_config.json", tmp_path)
    with pytest.raises(CheckpointError, match="no chat template"):
        load_template(tmp_path)
