"""The page works in a real Chromium, with a microphone that plays real speech, on the real stack."""

import base64
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import jiwer
import numpy as np
import pytest
import soundfile
from playwright.async_api import Page, async_playwright, expect
from whisperline_local import Stack

pytestmark = [pytest.mark.integration, pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

SENTENCES = {
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country",
    "ever tried ever failed no matter try again fail again fail better",
}
LIMIT_MS = 30_000
MICROPHONE_ERROR_RATE = 0.25  # on a busy machine Chromium's fake microphone has gaps of 10 ms; a file has none
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

DROP = """([name, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""

NOTE_PARTIALS = """() => {
  const partial = document.getElementById("partial");
  window.partials = [];
  new MutationObserver(() => window.partials.push(partial.querySelector(".text").textContent))
    .observe(partial, { subtree: true, childList: true, characterData: true });
}"""

# Returns the level in dB of a resampled tone, and if blocks of 128 samples give the same output as one block.
RESAMPLE = """async ([rate, frequency]) => {
  const { Resampler } = await import("/resampler.js");
  const tone = Float32Array.from({ length: rate }, (_, i) => Math.sin((2 * Math.PI * frequency * i) / rate));
  const whole = new Resampler(rate).push(tone);
  const blockwise = new Resampler(rate);
  const pieces = [];
  for (let at = 0; at < rate; at += 128) pieces.push(...blockwise.push(tone.subarray(at, at + 128)));
  const steady = whole.subarray(1600, 14400); // without the filter's onset and end
  const power = steady.reduce((sum, sample) => sum + sample ** 2, 0) / steady.length;
  return { level: 10 * Math.log10(2 * power), same: pieces.every((s, i) => s === whole[i]), samples: whole.length };
}"""

# Returns what the level says after so many frames of 100 ms whose samples are SAMPLE.
LEVEL = """async (frames) => {
  const { Level } = await import("/level.js");
  const level = new Level();
  for (let n = 0; n < frames; n++) level.push(Int16Array.from({ length: 1600 }, (_, i) => SAMPLE));
  return level.problem;
}"""

# Returns the lines on the page, and the text to copy, after two finals of one turn and one of another.
TURNS = """async () => {
  const { Transcript } = await import("/transcript.js");
  const transcript = new Transcript(document.getElementById("finals"), document.getElementById("partial"));
  const final = { startS: 0, delayS: 0.5 };
  transcript.final({ ...final, index: 0, text: "So it", endsTurn: false });
  transcript.final({ ...final, index: 1, text: "goes.", endsTurn: true });
  transcript.final({ ...final, index: 2, text: "", endsTurn: true });
  transcript.final({ ...final, index: 3, text: "And on.", endsTurn: true });
  return [Array.from(document.querySelectorAll("#finals .text"), (line) => line.textContent), transcript.text];
}"""


def _words(text: str) -> str:
    return " ".join(re.sub(r"[^a-z ]", "", text.replace("\n", " ").lower()).split())


@asynccontextmanager
async def _page(url: str, *flags: str) -> AsyncIterator[Page]:
    """Open the page in a new browser. Fail on requests to other hosts, script errors and broken security rules."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package chromium, or name the program in $CHROMIUM")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*root, *flags])
        try:
            page = await browser.new_page()
            problems = _watch(page, urlsplit(url).netloc)
            await page.goto(url)
            yield page
            assert problems == []
        finally:
            await browser.close()


def _watch(page: Page, host: str) -> list[str]:
    """Return a list that collects requests to other hosts, script errors and broken security rules."""
    problems: list[str] = []

    def note_foreign(url: str) -> None:
        if urlsplit(url).netloc != host:
            problems.append(f"asked {url}")

    page.on("request", lambda request: note_foreign(request.url))
    page.on("websocket", lambda socket: note_foreign(socket.url))
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("console", lambda said: problems.append(said.text) if "Content Security Policy" in said.text else None)
    return problems


def _microphone(clip: Path) -> list[str]:
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={clip}%noloop",
    ]


def _file(path: Path) -> list[str]:
    return [path.name, base64.b64encode(path.read_bytes()).decode()]


async def _spoken(page: Page) -> str:
    """Return the words of the finals, once the sentence is complete."""
    last_words = re.compile(r"(your country|fail better)\W*$", re.IGNORECASE)
    await expect(page.locator("#finals .text").last).to_have_text(last_words, timeout=LIMIT_MS)
    return _words(" ".join(await page.locator("#finals .text").all_inner_texts()))


async def test_the_microphone(stack: Stack, demo_clip: Path, figure: Callable[[str], None]) -> None:
    """Speech becomes grey text while it is spoken, then black text with its delay."""
    async with _page(stack.gateway_urls[0], *_microphone(demo_clip)) as page:
        await page.evaluate(NOTE_PARTIALS)
        await page.get_by_role("button", name="Start microphone").click()
        await expect(page.get_by_role("status")).to_have_text("Listening", timeout=LIMIT_MS)
        heard = await _spoken(page)
        assert min(jiwer.wer(sentence, heard) for sentence in SENTENCES) <= MICROPHONE_ERROR_RATE
        assert await page.evaluate("window.partials.filter((text) => /\\w/.test(text)).length") > 0
        delays = await page.locator("#finals .delay").all_inner_texts()
        figure(f"the page's times from the last word to each final: {delays}")
        assert all(re.fullmatch(r"\+\d+\.\d\d s", delay) for delay in delays)
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("status")).to_contain_text("Done", timeout=LIMIT_MS)
        await expect(page.locator("#partial")).to_be_hidden()


async def test_a_microphone_that_is_too_quiet(stack: Stack, tmp_path: Path) -> None:
    """When five seconds bring no sound that could be understood, the page says so, until it is over."""
    noise = np.random.default_rng(0).normal(0, 5, 15 * 16_000).round().astype(np.int16)  # 76 dB below full scale
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    async with _page(stack.gateway_urls[0], *_microphone(tmp_path / "noise.wav")) as page:
        await expect(page.locator("#quiet")).to_be_hidden()
        await page.get_by_role("button", name="Start microphone").click()
        await expect(page.locator("#quiet")).to_contain_text("The microphone is very quiet", timeout=LIMIT_MS)
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("status")).to_contain_text("Done", timeout=LIMIT_MS)
        await expect(page.locator("#quiet")).to_be_hidden()


@pytest.mark.parametrize(
    ("sample", "problem"),
    [("0", "still"), ("9000", "still"), ("9000 + 30 * (i % 2)", "quiet"), ("300 * (i % 2)", None)],
)
async def test_the_level(sample: str, problem: str | None, stack: Stack) -> None:
    """The level tells no sound from little and enough; an offset is no sound, and 4.9 s are too short to judge."""
    async with _page(stack.gateway_urls[0]) as page:
        script = LEVEL.replace("SAMPLE", sample)
        assert await page.evaluate(script, 49) is None
        assert await page.evaluate(script, 50) == problem


async def test_a_dropped_file(stack: Stack, demo_clip: Path) -> None:
    """A file that is dropped on the page is transcribed, and the session closes by itself."""
    async with _page(stack.gateway_urls[0]) as page:
        await page.get_by_label("Send files as fast as possible").check()
        await page.evaluate(DROP, _file(demo_clip))
        await expect(page.get_by_role("status")).to_contain_text("Done", timeout=LIMIT_MS)
        assert await _spoken(page) in SENTENCES


async def test_a_file_that_is_no_audio(stack: Stack) -> None:
    """A file that cannot be read is named in the error, and the page can be used again."""
    async with _page(stack.gateway_urls[0]) as page:
        await page.evaluate(DROP, ["notes.txt", base64.b64encode(b"no audio at all").decode()])
        await expect(page.get_by_role("alert")).to_contain_text("notes.txt cannot be read as audio")
        await expect(page.get_by_role("button", name="Start microphone")).to_be_enabled()


async def test_a_gateway_that_is_killed(stack: Stack, demo_clip: Path) -> None:
    """When the gateway dies in the middle of speech, the page resumes, and no word is lost or doubled."""
    async with _page(stack.gateway_urls[0]) as page:
        await page.evaluate(DROP, _file(demo_clip))
        await expect(page.locator("#transcript")).to_contain_text(re.compile("[a-z]{2}"), timeout=LIMIT_MS)
        stack.kill("gateway")
        await expect(page.get_by_role("status")).to_contain_text("Connection lost", timeout=LIMIT_MS)
        await expect(page.get_by_role("status")).to_contain_text("Done", timeout=2 * LIMIT_MS)
        assert await _spoken(page) in SENTENCES
        indices = await page.locator("#finals li").evaluate_all("lines => lines.map((line) => +line.dataset.index)")
        assert indices == sorted(set(indices))


async def test_a_refused_microphone(stack: Stack) -> None:
    """If the browser refuses the microphone, the page says what to do."""
    async with _page(stack.gateway_urls[0], "--use-fake-device-for-media-stream", "--deny-permission-prompts") as page:
        await page.get_by_role("button", name="Start microphone").click()
        await expect(page.get_by_role("alert")).to_contain_text("The browser blocked the microphone. Allow it")
        await expect(page.get_by_role("button", name="Start microphone")).to_be_enabled()


async def test_a_turn_is_a_line(stack: Stack) -> None:
    """The finals of one turn stand on one line, and are copied as one."""
    async with _page(stack.gateway_urls[0]) as page:
        assert await page.evaluate(TURNS) == [["So it goes.", "And on."], "So it goes.\nAnd on."]


@pytest.mark.parametrize("rate", [48_000, 44_100, 32_000])
async def test_the_resampler(rate: int, stack: Stack) -> None:
    """The resampler passes the speech band within 0.5 dB, attenuates aliases by 70 dB, and ignores block sizes."""
    async with _page(stack.gateway_urls[0]) as page:
        for frequency, low, high in [(200, -0.1, 0.1), (4_000, -0.1, 0.1), (7_000, -0.5, 0.1), (9_000, -400, -70)]:
            result = await page.evaluate(RESAMPLE, [rate, frequency])
            assert low <= result["level"] <= high, (rate, frequency, result)
            assert result["same"]
            assert result["samples"] == pytest.approx(16_000, abs=40)
