from __future__ import annotations

from pipeline.reporting.markdown import render


def test_verdict_is_the_first_sentence(record):
    lines = render(record).splitlines()
    assert lines[0] == "# fashion_mnist on local"
    assert lines[2] == f"**{record.verdict.reason}.**"


def test_table_has_every_number_of_every_variant(record):
    table = [line for line in render(record).splitlines() if line.startswith("|")]
    assert table[0] == (
        "| variant | status | budget | raw size | gzip size | top-1 | change | p50 | p90 | load | first inference "
        "| peak memory | runtime |"
    )
    assert table[5] == (
        "| **int8** | VALID | meets it | 104.4 KiB | 82.4 KiB | 92.72 % (92.20–93.21) | −0.19 pp "
        "| 61.8 µs (60.9–63.0) | 66.7 µs (64.9–69.8) | 1.91 ms | 402 µs | 58.5 MiB | litert 2.3.0 (1 thread) |"
    )
    assert len(table) == 7 and {line.count(" | ") for line in table} == {12}


def test_failures_are_listed_with_their_reasons(record):
    text = render(record)
    assert "- **pruned_int8 INVALID**: throttled in 3 of 5 blocks" in text
    assert "- **dynamic_range FAILED**: load: litert cannot load it: unresolved custom op \\| HYBRID_CONV" in text


def test_conditions_name_device_runtime_and_data(record):
    text = render(record)
    assert "- **device**: local (Intel(R) Xeon(R) Platinum), transport local" in text
    assert "- **runtime**: litert 2.3.0 (1 thread)" in text
    assert "- **samples**: 10,000 scored, from /usr/share/datasets/fashion-mnist" in text


def test_a_reader_is_told_what_each_number_means(record):
    assert "## How to read a number" in render(record) and "Wilson" in render(record)


def test_names_cannot_break_the_table_or_carry_html(hostile_record):
    text = render(hostile_record)
    assert "<script" not in text.replace("\\<", "")
    assert "\\|x\\|" in text


def test_a_run_without_numbers_still_has_a_report(nothing_measured):
    assert "no variant may ship" in render(nothing_measured)
