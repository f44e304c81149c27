from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.yaml_file import Section, load_yaml


class Inner(Section):
    port: int = Field(22, ge=1, le=65535)
    mode: Literal["a", "b"] = "a"
    share: float | None = Field(None, gt=0, lt=1)


class Outer(Section):
    name: str
    inner: Inner = Inner()
    many: dict[str, list[Inner]] = Field(default_factory=dict)


def messages(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, Outer)
    return [str(mistake).replace(str(tmp_path) + "/", "") for mistake in caught.value.mistakes]


def test_a_good_file_becomes_its_model(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("name: x\ninner: {port: 23, share: 0.5}\nmany: {a: [{}]}\n")
    assert load_yaml(path, Outer) == Outer(name="x", inner=Inner(port=23, share=0.5), many={"a": [Inner()]})


def test_all_mistakes_are_told_at_once_with_line_key_value_and_what_is_allowed(tmp_path):
    text = "nme: 3\ninner:\n  port: 22a\n  mode: c\n  share: 2\n"
    text += 'many:\n  q:\n    - {port: 70000}\n    - {prt: 1, port: "3"}\n'
    assert messages(tmp_path, text) == [
        'f.yaml:1: "name" is missing; expected text',
        'f.yaml:1: unknown key "nme"; known: name, inner, many',
        'f.yaml:3: inner.port is "22a"; expected an integer from 1 to 65535',
        'f.yaml:4: inner.mode is "c"; expected one of a, b',
        "f.yaml:5: inner.share is 2; expected a number above 0 and below 1",
        "f.yaml:8: many.q[0].port is 70000; expected an integer from 1 to 65535",
        'f.yaml:9: many.q[1].port is "3"; expected an integer from 1 to 65535',
        'f.yaml:9: unknown key "many.q[1].prt"; known: port, mode, share',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml:1: the file holds nothing; expected a mapping of keys to values"),
        ("- a\n", "f.yaml:1: the file holds a list; expected a mapping of keys to values"),
        ("name: x\nname: y\n", 'f.yaml:2: not YAML: found duplicate key "name" with value "y" (original value: "x")'),
        ("name: [\n", "f.yaml:2: not YAML: expected the node content, but found '<stream end>'"),
        ("name: x\ninner: 3\n", "f.yaml:2: inner is 3; expected a mapping"),
        ("name: true\n", "f.yaml:1: name is true; expected text"),
    ],
)
def test_a_file_that_is_no_mapping_of_this_kind_is_told(tmp_path, text, message):
    assert messages(tmp_path, text) == [message]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_yaml(tmp_path / "nowhere.yaml", Outer)


def test_a_file_that_is_not_text_is_told(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(path, Outer)
