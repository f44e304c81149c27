import json
from pathlib import Path

import pytest

from device_agent.errors import AgentError
from device_agent.layout import SERVICE, check_home


@pytest.mark.parametrize("said", [None, {}, {"homes": []}, {"homes": ["/srv/other", "/srv/agent"]}])
def test_an_agent_may_serve_the_folder_that_it_was_installed_for_last(tmp_path, said):
    if said is not None:
        (tmp_path / SERVICE).write_text(json.dumps(said))
    check_home(tmp_path, Path("/srv/agent"))


def test_an_agent_may_serve_no_other_folder(tmp_path):
    (tmp_path / SERVICE).write_text(json.dumps({"homes": ["/srv/agent", "/srv/other"]}))
    with pytest.raises(AgentError, match="installed to keep its files in /srv/other, not in /srv/agent"):
        check_home(tmp_path, Path("/srv/agent"))


@pytest.mark.parametrize("content", ["", "[]", "7", '{"homes": 7}', '{"homes": {"a": "b"}}', "\x00\x80"])
def test_a_note_that_makes_no_sense_is_named(tmp_path, content):
    (tmp_path / SERVICE).write_text(content, encoding="latin-1")
    with pytest.raises(AgentError, match=r"service\.json does not say which folder"):
        check_home(tmp_path, tmp_path)
