"""``report.html`` in Debian's Chromium, headless, opened from a file with the network cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.reporting import write_fleet_reports, write_reports

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1400",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason=f"{CHROMIUM} or {DRIVER} is not installed"),
]

# Where a variant's point is, in pixels of the window.
POINT = """
const view = Object.values(Bokeh.index.roots ?? Bokeh.index)[0];
const data = view.model.renderers.map((r) => r.data_source).find((s) => s.name === "variants").data;
const i = [...data.variant].indexOf(arguments[0]);
const box = view.canvas_view.el.getBoundingClientRect();
return [box.left + view.frame.x_scale.compute(data.x[i]), box.top + view.frame.y_scale.compute(data.y[i])];
"""

# The text of every tooltip that is shown; Bokeh keeps them in shadow trees.
TOOLTIPS = """
const texts = [];
const walk = (node) => {
  for (const child of node.children ?? []) {
    if (child.classList.contains("bk-Tooltip") && child.shadowRoot) texts.push(child.shadowRoot.textContent);
    if (child.shadowRoot) walk(child.shadowRoot);
    walk(child);
  }
};
walk(document.body);
return texts.join(" ");
"""

# How many pixels of the plot's canvases are not transparent.
INK = """
const canvases = [];
const walk = (node) => {
  for (const child of node.children ?? []) {
    if (child.tagName === "CANVAS" && child.width) canvases.push(child);
    if (child.shadowRoot) walk(child.shadowRoot);
    walk(child);
  }
};
walk(document.body);
const inked = (c) => c.getContext("2d").getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v);
return canvases.reduce((sum, canvas) => sum + inked(canvas).length, 0);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("chromium")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.05).until(condition)


def opened(browser, record, folder):
    """The browser, showing the report of ``record`` with its plot drawn."""
    path = write_reports(record, folder)[-1]
    browser.get_log("browser")
    browser.get(path.as_uri())
    wait(browser, lambda b: b.execute_script("return document.documentElement.dataset.drawn === 'true'"))
    wait(browser, lambda b: b.execute_script(INK) > 1000)
    return browser


def order(browser):
    script = "return [...document.querySelectorAll('#results tbody tr')].map((row) => row.dataset.variant)"
    return browser.execute_script(script)


def header(browser, text):
    from selenium.webdriver.common.by import By

    return next(b for b in browser.find_elements(By.CSS_SELECTOR, "#results thead button") if b.text == text)


def move_to(browser, point):
    from selenium.webdriver import ActionChains

    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(*map(round, point))
    actions.perform()


def test_page_opens_offline_draws_its_plot_and_reports_no_error(browser, record, tmp_path):
    opened(browser, record, tmp_path)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []
    picture = tmp_path / "report.png"
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size > 20_000


def test_hovering_a_point_shows_its_variant_and_numbers(browser, record, tmp_path):
    opened(browser, record, tmp_path)
    move_to(browser, browser.execute_script(POINT, "int8"))
    text = wait(browser, lambda b: b.execute_script(TOOLTIPS))
    assert "int8" in text and "61.8 µs (60.9–63.0)" in text and "92.72 %" in text


def test_clicking_a_heading_sorts_and_clicking_again_turns_the_order(browser, record, tmp_path):
    opened(browser, record, tmp_path)
    header(browser, "gzip size").click()
    assert order(browser) == ["pruned_int8", "dynamic_range", "int8", "float16", "float32"]
    header(browser, "gzip size").click()
    assert order(browser) == ["float32", "float16", "int8", "dynamic_range", "pruned_int8"]
    states = browser.execute_script("return [...document.querySelectorAll('[aria-sort]')].map((h) => h.ariaSort)")
    assert states == ["descending"]


def test_a_heading_sorts_by_keyboard_and_what_is_unknown_stays_last(browser, record, tmp_path):
    from selenium.webdriver.common.keys import Keys

    opened(browser, record, tmp_path)
    for expected in ("int8", "float32"):
        header(browser, "p50").send_keys(Keys.ENTER)
        assert (order(browser)[0], order(browser)[-1]) == (expected, "dynamic_range")


def test_resting_on_a_row_picks_its_point(browser, record, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    opened(browser, record, tmp_path)
    row = browser.find_element(By.CSS_SELECTOR, "tr[data-variant=float16] th")
    ActionChains(browser).move_to_element(row).perform()
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "tr.picked[data-variant=float16]"))


def test_a_hostile_name_is_shown_and_not_run(browser, hostile_record, tmp_path):
    opened(browser, hostile_record, tmp_path)
    assert browser.execute_script("return window.hacked") is None
    assert "<script>window.hacked=1</script>" in order(browser)
    move_to(browser, browser.execute_script(POINT, "<script>window.hacked=1</script>"))
    assert "<script>window.hacked=1</script>" in wait(browser, lambda b: b.execute_script(TOOLTIPS))
    assert browser.execute_script("return window.hacked") is None


def test_page_fits_a_phone_without_scrolling_sideways(browser, record, tmp_path):
    phone = {"width": 400, "height": 900, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        opened(browser, record, tmp_path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def opened_fleet(browser, fleet, folder):
    """The browser, showing the report of several devices with its plot drawn."""
    path = write_fleet_reports(fleet, folder)[-1]
    browser.get_log("browser")
    browser.get(path.as_uri())
    wait(browser, lambda b: b.execute_script("return document.documentElement.dataset.drawn === 'true'"))
    return browser


def test_the_page_of_several_devices_draws_sorts_each_table_and_reports_no_error(browser, fleet, tmp_path):
    from selenium.webdriver.common.by import By

    opened_fleet(browser, fleet, tmp_path)
    move_to(browser, browser.execute_script(POINT, "pi-b: int8"))
    text = wait(browser, lambda b: b.execute_script(TOOLTIPS))
    assert "pi-b: int8" in text and "185 µs" in text
    for table, heading, first in (("devices", "status", "pi-a"), ("variants", "gzip size", "pruned_int8")):
        headings = browser.find_elements(By.CSS_SELECTOR, f"#{table} thead button")
        next(button for button in headings if button.text == heading).click()
        assert browser.find_element(By.CSS_SELECTOR, f"#{table} tbody th span").text == first
    header(browser, "p50").click()
    assert (order(browser)[0], order(browser)[-1]) == ("pi-a: int8", "pi-b: dynamic_range")
    summary = browser.find_elements(By.TAG_NAME, "summary")[1]
    summary.click()
    assert "kernel 6.1.0" in browser.find_element(By.CSS_SELECTOR, "details[open]").text
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
