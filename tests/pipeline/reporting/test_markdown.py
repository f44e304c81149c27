from __future__ import annotations

import dataclasses

from pipeline.reporting.markdown import render


def test_verdict_is_the_first_sentence(record):
    lines = render(record).splitlines()
    assert lines[0] == "# fashion_mnist on local"
    assert lines[2] == f"**{record.verdict.reason}.**"


def test_table_has_every_number_of_every_variant(record):
    table = [line for line in render(record).splitlines() if line.startswith("|")]
    assert table[0] == (
        "| variant | status | budget | raw size | gzip size | top-1 | change | p50 | speed | p90 | p99 | load "
        "| first inference | peak memory | SNR | runtime |"
    )
    assert table[5] == (
        "| **int8** | VALID | meets it | 104.4 KiB | 82.4 KiB | 92.72 % (92.20–93.21) | −0.19 pp (worse, p = 0.021) "
        "| 61.8 µs (60.9–63.0) | 2.40× faster (2.33–2.50) | 66.7 µs (64.9–69.8) | — | 1.91 ms | 402 µs | 58.5 MiB "
        "| 31.4 dB (largest difference 0.08) | litert 2.3.0 (xnnpack, 1 thread) |"
    )
    assert len(table) == 7 and {line.count(" | ") for line in table} == {15}


def test_failures_are_listed_with_their_reasons(record):
    text = render(record)
    assert "- **pruned_int8 INVALID**: throttled in 3 of 5 blocks" in text
    assert "- **dynamic_range FAILED**: load: litert cannot load it: unresolved custom op \\| HYBRID_CONV" in text


def test_conditions_name_device_runtime_and_data(record):
    text = render(record)
    assert "- **device**: local (Intel(R) Xeon(R) Platinum), transport local" in text
    assert "- **runtime**: litert 2.3.0 (xnnpack, 1 thread)" in text
    assert "- **processor**: x86_64, 2 cores, 8.0 GiB of memory\n" in text
    pi = dataclasses.replace(record.device, soc="brcm,bcm2711")
    assert "- **processor**: brcm,bcm2711, x86_64, 2 cores" in render(dataclasses.replace(record, device=pi))
    assert "- **samples**: 10,000 scored, from /usr/share/datasets/fashion-mnist" in text


def test_a_reader_is_told_what_each_number_means(record):
    assert "## How to read a number" in render(record) and "Wilson" in render(record)


def test_names_cannot_break_the_table_or_carry_html(hostile_record):
    text = render(hostile_record)
    assert "<script" not in text.replace("\\<", "")
    assert "\\|x\\|" in text


def test_a_run_without_numbers_still_has_a_report(nothing_measured):
    assert "no variant may ship" in render(nothing_measured)


def test_what_only_some_records_have_stands_in_sections_of_its_own(record):
    text = render(record)
    assert "## Notes\n\n- **int8**: 2 disturbed blocks taken again\n" in text
    assert "- **int8**: runtime 40.0 MiB, model load 2.0 MiB, first inference 1.0 MiB\n" in text
    assert (
        "- **int8**: minute 1 p50 61.8 µs, 51.0 °C, 1800 MHz; minute 3 p50 68.0 µs, 81.5 °C, 1500 MHz, throttled "
        "(+10.0%); slowest: minute 3 p50 68.0 µs, 81.5 °C, 1500 MHz, throttled\n"
    ) in text
    assert "- **int8**: 4.20 W, 0.26 mJ an inference (VDD_IN 4.20 W)\n" in text
    assert "- **int8**: Convolution #1 40.0 µs (80%, xnnpack), Softmax #2 10.0 µs (20%, builtin)\n" in text


def test_conditions_say_what_was_allowed_and_how_the_board_was(record):
    text = render(record)
    assert "- **allowed**: at most 80 °C, others at most 0.5 cores, no throttling, no swapping; 3 retries\n" in text
    assert "- **before**: 51.0 °C, 1800 of 1800 MHz, governor ondemand, load 0.10\n" in text
    assert "- **after**: 81.5 °C, throttled now: throttled, since boot: under-voltage\n" in text
