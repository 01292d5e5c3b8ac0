"""The page in a browser: at two widths, light and dark."""

import pytest

from hiera_video.commands import report
from tests.reporting.browser import Browser, needs_chromium
from tests.reporting.runs import write_reconstructions, write_run, write_test, write_videos

pytestmark = needs_chromium
PICTURES = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
PLAYED = """Promise.all([...document.querySelectorAll("video")].map(async video => {
    await video.play();
    while (video.currentTime < 0.2) await new Promise(done => setTimeout(done, 20));
    return video.readyState >= 2 && video.videoWidth > 0;
}))"""
# Tables that are wider than their place; a confusion matrix may be, its names stay in view.
CUT_OFF = """[...document.querySelectorAll(".box")]
    .filter(box => box.querySelector("table:not(.matrix)") && box.scrollWidth > box.clientWidth)
    .map(box => box.getAttribute("aria-label"))"""
# Contrast of every word with what is behind it, by WCAG 2; the least one.
CONTRAST = """(() => {
    const light = c => c.map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const behind = node => {
        if (!node) return [255, 255, 255];
        const [r, g, b, a = 1] = numbers(getComputedStyle(node).backgroundColor);
        if (a === 0) return behind(node.parentElement);
        return behind(node.parentElement).map((v, i) => v * (1 - a) + [r, g, b][i] * a);
    };
    const words = [...document.querySelectorAll("body *")].filter(node =>
        [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim())
        && !node.classList.contains("zero") && node.checkVisibility());
    return Math.min(...words.map(node => {
        const style = getComputedStyle(node);
        const front = light(numbers(node.closest("svg") ? style.fill : style.color).slice(0, 3));
        const back = light(behind(node));
        return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    }));
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with every part that there is."""
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "fit")
    write_reconstructions(run, [100, 200])
    bad = [f"{'a-long-folder/' * 9}{i}.mp4,Invalid data found when processing input" for i in "ab"]
    (run / "bad_videos.csv").write_text("\n".join(["path,reason", *bad]))
    videos = write_videos(folder / "videos", 3)
    write_test(run, folder / "test", videos, [0, 1, 1], [0, 2, 2])
    names = tuple(f"a long name of a class, number {i}" for i in range(30))
    write_test(run, folder / "test-2", [f"{i}.mp4" for i in range(30)], list(range(30)),
               list(range(29, -1, -1)), names)  # fmt: skip
    report.run([str(run), "--test", str(folder / "test"), "--out", str(folder / "few.html")])
    report.run([str(run), "--test", str(folder / "test-2"), "--out", str(folder / "many.html")])
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["few", "many"])
def test_the_page_is_whole_in_a_browser(browser, page, name, width, dark):
    browser.open(page / f"{name}.html", width, dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate(PICTURES)
    assert browser.evaluate("document.images.length") == (2 if name == "few" else 3)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(CUT_OFF) == []
    if name == "few":
        assert browser.evaluate(PLAYED) == [True, True]
    assert browser.evaluate(CONTRAST) >= 4.5
    assert browser.complaints() == []
    assert browser.requests() == [(page / f"{name}.html").as_uri()]


def test_colours_follow_the_reader(browser, page):
    background = "getComputedStyle(document.body).backgroundColor"
    seen = []
    for dark in (False, True):
        browser.open(page / "few.html", 1280, dark)
        seen.append(browser.evaluate(background))
    assert seen[0] != seen[1]


def test_faults_would_be_noticed(browser, page, tmp_path):
    """The browser reports what the page forbids itself, and what does not load."""
    text = (page / "few.html").read_text()
    broken = tmp_path / "broken.html"
    end = '<img src="data:image/png;base64,AAAA"><img src="http://127.0.0.1:9/x.png">'
    end += "<script>document.title = 'ran'</script><p style='width: 3000px'>wide</p></main>"
    broken.write_text(text.replace("</main>", end))
    browser.open(broken, 400, False)
    assert not browser.evaluate(PICTURES)
    assert browser.evaluate("document.documentElement.scrollWidth") > 400
    assert browser.evaluate("document.title") != "ran"
    assert len(browser.complaints()) >= 2  # the picture and the script that it did not load
