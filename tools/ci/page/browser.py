"""The checks of tools/ci/page-check: what a person does with the page, in Chromium.

    browser.py CHROMIUM URL-WITH-DEMO URL-WITH-KEY FOLDER-FOR-PICTURES     (the key is in ORCD_PAGE_KEY)
"""

import contextlib
import json
import os
import re
import signal
import sys
import traceback
import urllib.request
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Error, expect, sync_playwright

CHROMIUM, DEMO, CLOSED, PICTURES = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
KEY = os.environ["ORCD_PAGE_KEY"]
# What a machine may take that is busy with other things.
LIMIT_MS = 60_000
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
COMPLETIONS = "**/v1/chat/completions"
LEAST_SCORE = 95

# What breaks the page's policy is told to the check.
WATCH = """
  globalThis.violations = [];
  document.addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective} ${e.blockedURI}`));
"""


class Browser:
    """One Chromium, and a fresh profile for each page."""

    def __init__(self, chromium):
        self.chromium = chromium

    @contextlib.contextmanager
    def page(self, url=DEMO, viewport=WIDE, load=True, **options):
        """The page at `url`; afterwards nothing may have gone wrong in it."""
        context = self.chromium.new_context(viewport=viewport, **options)
        context.set_default_timeout(LIMIT_MS)
        page = context.new_page()
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.add_init_script(WATCH)
        if load:
            page.goto(url)
        yield page
        assert not faults, faults
        assert not page.evaluate("violations"), page.evaluate("violations")
        context.close()


def say(page, text):
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answer(page, number=1):
    return page.get_by_role("article", name=f"Answer {number}", exact=True)


def wait_for_end(page, number=1):
    expect(page.locator(f"article[aria-label='Answer {number}']:not([aria-busy])")).to_be_visible()
    return answer(page, number)


def text_of(article):
    """What the model said, without the mark of a kill."""
    return article.locator("> .text").evaluate(
        "(e) => [...e.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data).join('')")


def parameter(page, label, value):
    page.get_by_label(label, exact=True).fill(str(value))


def health(url=DEMO):
    with urllib.request.urlopen(f"{url}/health", timeout=60) as response:
        return json.load(response)


def stream(*deltas, more=()):
    """A stream of chat completions with these deltas."""
    chunks = [{"choices": [{"index": 0, "delta": delta, "token_ids": [number], "finish_reason": None}]}
              for number, delta in enumerate(deltas)]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, *more]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def answers_with(page, body, status=200):
    kind = "text/event-stream" if status == 200 else "application/json"
    page.route(COMPLETIONS, lambda route: route.fulfill(status=status, content_type=kind, body=body))


# ---- the checks, each a function

def it_is_painted_without_a_request_beyond_itself(browser):
    with browser.page(load=False) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.route("**/*", lambda route: route.continue_() if route.request.url == f"{DEMO}/" else route.abort())
        page.goto(DEMO)
        expect(page.get_by_label("Message", exact=True)).to_be_visible()
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length === 1")
        expect(page.locator("#state-text")).to_have_text("unreachable")
        assert asked[0] == f"{DEMO}/" and all(url.startswith(f"{DEMO}/") for url in asked), asked
        assert set(asked[1:]) <= {f"{DEMO}/health", f"{DEMO}/props"}, asked


def it_talks_with_the_model_and_remembers_what_was_said(browser):
    with browser.page() as page:
        expect(page.locator("#state-text")).to_have_text("healthy")
        say(page, "Count to five")
        first = wait_for_end(page)
        assert len(text_of(first)) > 3, text_of(first)
        expect(first.locator(".figures")).to_have_text(re.compile(r"^\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ m?s · \d+ in the prompt"))
        with page.expect_request(COMPLETIONS) as sent:
            say(page, "Write a haiku about rain")
        roles = [message["role"] for message in sent.value.post_data_json["messages"]]
        assert roles == ["user", "assistant", "user"], roles
        wait_for_end(page, 2)
        page.get_by_role("button", name="New conversation").click()
        expect(page.get_by_role("article")).to_have_count(0)
        with page.expect_request(COMPLETIONS) as sent:
            say(page, "Count to five")
        assert len(sent.value.post_data_json["messages"]) == 1
        wait_for_end(page, 3)


def parameters_are_sent_and_defaults_shown(browser):
    with browser.page() as page:
        expect(page.get_by_label("Temperature", exact=True)).to_have_attribute("placeholder", "0.7")
        parameter(page, "Temperature", 0)
        parameter(page, "Most tokens", 3)
        parameter(page, "Seed", 7)
        parameter(page, "System message", "Be brief")
        parameter(page, "Stop sequences, one a line, four at most", "###\nEND")
        with page.expect_request(COMPLETIONS) as sent:
            say(page, "Count to five")
        body = sent.value.post_data_json
        assert (body["temperature"], body["max_tokens"], body["seed"], body["stop"]) == (0, 3, 7, ["###", "END"]), body
        assert body["messages"][0] == {"role": "system", "content": "Be brief"} and "top_k" not in body, body
        expect(wait_for_end(page).locator(".figures")).to_contain_text("cut: no more tokens were allowed")
        # What the browser knows to be wrong is not sent.
        parameter(page, "Temperature", 3)
        say(page, "Count to five")
        expect(page.get_by_role("article", name="Answer")).to_have_count(1)
        assert page.evaluate("document.activeElement.id") == "temperature"


def ids_and_logprobs_are_shown_on_demand(browser):
    with browser.page() as page:
        say(page, "Count to five")
        plain = wait_for_end(page)
        plain.get_by_text("Token ids").click()
        assert re.fullmatch(r"\d+( \d+)*", plain.locator(".ids").inner_text())
        page.get_by_label("Logprobs of each token").check()
        say(page, "Count to five")
        detailed = wait_for_end(page, 2)
        tokens = int(detailed.locator(".figures").inner_text().split()[0])
        assert detailed.locator("table").count() == 0, "the table is made before somebody looks"
        detailed.get_by_text("Token ids and logprobs").click()
        rows = detailed.locator("tbody tr")
        expect(rows).to_have_count(tokens)
        cells = rows.nth(0).locator("td").all_inner_texts()
        assert cells[1].startswith('"') and cells[2].isdigit() and float(cells[3]) <= 0, cells
        assert rows.nth(0).locator("td code").count() == 5, "the token and four alternatives"


def reasoning_is_folded(browser):
    with browser.page() as page:
        answers_with(page, stream({"reasoning_content": "first "}, {"reasoning_content": "this"}, {"content": "so "}, {"content": "that"}))
        say(page, "Why?")
        article = wait_for_end(page)
        assert text_of(article) == "so that"
        thoughts = article.locator("details.reasoning")
        expect(thoughts.locator(".text")).to_be_hidden()
        thoughts.get_by_text("Reasoning").click()
        expect(thoughts.locator(".text")).to_have_text("first this")


def what_a_model_says_is_never_markup(browser):
    hostile = "<img src=x onerror=\"violations.push('run')\"><script>violations.push('run')</script><b>bold</b> &amp; </div>"
    with browser.page() as page:
        logprobs = {"content": [{"token": hostile, "logprob": -0.5, "top_logprobs": [{"token": hostile, "logprob": -0.5}]}]}
        more = [{"choices": [{"index": 0, "delta": {}, "token_ids": [9], "logprobs": logprobs}]}]
        answers_with(page, stream({"reasoning_content": hostile}, {"content": hostile}, more=more))
        say(page, hostile)
        article = wait_for_end(page)
        article.get_by_text("Reasoning").click()
        article.get_by_text("Token ids and logprobs").click()
        assert text_of(article) == hostile
        assert page.locator("main :is(img, script, b)").count() == 0
        expect(page.get_by_role("article", name="Your message").locator(".text")).to_have_text(hostile)
        # And were the page to try, the browser would refuse.
        refused = page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>'; return 'no'; } catch (e) { return e.name; } }")
        assert refused == "TypeError", refused
        page.evaluate("globalThis.violations = []")


def errors_are_shown(browser):
    with browser.page() as page:
        error = {"error": {"message": "the queue <is> full", "type": "x", "param": None, "code": "QUEUE_FULL"}}
        answers_with(page, json.dumps(error), 503)
        say(page, "Hello")
        expect(wait_for_end(page).locator(".error")).to_have_text("QUEUE_FULL: the queue <is> full")
        page.unroute(COMPLETIONS)
        answers_with(page, f"data: {json.dumps(error)}\n\ndata: [DONE]\n\n")
        say(page, "Hello")
        expect(wait_for_end(page, 2).locator(".error")).to_contain_text("QUEUE_FULL")
        page.unroute(COMPLETIONS)
        answers_with(page, "data: {}\n\n")
        say(page, "Hello")
        expect(wait_for_end(page, 3).locator(".error")).to_have_text("The stream broke off before its end.")
        expect(page.get_by_role("status")).to_contain_text("Answer failed")


@contextlib.contextmanager
def stopped_worker():
    """The worker that serves stands still meanwhile."""
    pid = health()["worker"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        # One that does not answer a cancellation is replaced.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def an_answer_can_be_stopped(browser):
    for stop in (lambda page: page.get_by_role("button", name="Stop").click(), lambda page: page.keyboard.press("Escape")):
        with browser.page() as page, stopped_worker():
            say(page, "Write twenty haiku about winter")
            expect(page.get_by_role("button", name="Send", exact=True)).to_be_hidden()
            expect(page.locator("dl")).to_contain_text("1 running")
            stop(page)
            expect(wait_for_end(page).locator(".figures")).to_contain_text("stopped")
            expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
            expect(page.get_by_role("button", name="Stop")).to_be_hidden()
            # The job is gone: nothing runs in the service.
            expect(page.locator("dl")).to_contain_text("0 running")


def it_is_used_by_keyboard_and_heard_at_the_end_only(browser):
    with browser.page(viewport=NARROW) as page:
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the message")).to_be_focused()
        visited = []
        for _ in range(7):
            page.keyboard.press("Tab")
            style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style not in ("none", ""), f"no focus is seen on {visited}"
            visited.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        assert visited == ["theme", "Service", "Parameters", "message", "send", "kill", "fresh"], visited
        page.evaluate("""() => {
            globalThis.heard = [];
            const announcer = document.getElementById("announcer");
            new MutationObserver(() => heard.push(announcer.textContent)).observe(announcer, { childList: true, characterData: true, subtree: true });
        }""")
        page.get_by_label("Message", exact=True).focus()
        page.keyboard.type("Write a haiku about rain")
        page.keyboard.press("Shift+Enter")
        assert page.get_by_label("Message", exact=True).input_value().endswith("\n")
        page.keyboard.press("Enter")
        article = wait_for_end(page)
        heard = page.evaluate("heard")
        assert len(heard) == 2 and heard[0] == "The answer begins.", heard
        assert heard[1].startswith("Answer complete") and text_of(article) in heard[1], heard
        assert page.locator("[aria-live]:not([role=status])").count() == 0
        expect(page.get_by_label("Message", exact=True)).to_be_focused()


def themes_are_the_system_s_or_as_chosen(browser):
    background = "getComputedStyle(document.body).backgroundColor"
    with browser.page(color_scheme="light") as page:
        light = page.evaluate(background)
        page.get_by_label("Theme").select_option("Dark")
        dark = page.evaluate(background)
        assert light != dark
        page.reload()
        assert page.evaluate(background) == dark, "it is kept"
        page.get_by_label("Theme").select_option("System")
        assert page.evaluate(background) == light
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(background) == dark
    with browser.page(reduced_motion="reduce") as page, stopped_worker():
        say(page, "Count to five")
        expect(answer(page)).to_be_visible()
        name = page.evaluate("getComputedStyle(document.querySelector('[aria-busy] > .text'), '::after').animationName")
        assert name == "none", name


def it_asks_for_the_key_and_keeps_it_to_itself(browser):
    with browser.page(CLOSED) as page:
        expect(page.get_by_label("API key")).to_be_visible()
        assert page.get_by_role("button", name="kill").count() == 0, "there is no --demo here"
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Use the key").click()
        expect(page.get_by_text("The service does not know this key")).to_be_visible()
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.get_by_label("Temperature", exact=True)).to_have_attribute("placeholder", "0.7")
        say(page, "Count to five")
        assert len(text_of(wait_for_end(page))) > 3
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
        assert KEY not in kept and KEY not in page.content()


def a_kill_in_mid_sentence_changes_no_byte(browser):
    with browser.page() as page:
        parameter(page, "Seed", 7)
        say(page, "Write twenty haiku about winter")
        undisturbed = text_of(wait_for_end(page))
        lost = health()["worker"]["restarts"]
        for attempt in range(2, 10):
            page.get_by_role("button", name="New conversation").click()
            page.get_by_role("button", name="Send, then kill the worker").click()
            article = wait_for_end(page, attempt)
            outcome = article.locator(".pause").inner_text()
            assert text_of(article) == undisturbed
            found = re.search(r"killed after token (\d+)\. The answer went on after ([\d.]+ m?s)\.$", outcome)
            if found:
                assert int(found[1]) >= 10, outcome
                mark = article.locator("mark").inner_text()
                assert mark == f"killed: {found[2]}", mark
                page.screenshot(path=PICTURES / "killed.png")
                break
            # A busy machine: the worker had nothing left to do.
            assert "had been made already" in outcome, outcome
        else:
            raise AssertionError("no answer was disturbed")
        expect(page.locator("dl")).to_contain_text("signal 9 (SIGKILL)")
        expect(page.locator("#state-text")).to_have_text("healthy")
        assert health()["worker"]["restarts"] > lost


def an_answer_that_runs_can_be_killed_by_hand(browser):
    with browser.page() as page:
        pid = health()["worker"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        say(page, "Count to five")
        page.get_by_role("button", name="Kill the worker now").click()
        article = wait_for_end(page)
        outcome = article.locator(".pause").inner_text()
        assert re.fullmatch(r"The worker was killed after token 0\. The answer went on after [\d.]+ m?s\.", outcome), outcome
        assert len(text_of(article)) > 3


def it_shows_how_the_service_is(browser):
    with browser.page() as page:
        expect(page.locator("dl")).to_contain_text("Workers lost")
        page.route("**/health", lambda route: route.fulfill(status=503, json={"status": "starting", "load_percent": 40}))
        expect(page.locator("#state-text")).to_have_text("starting, 40 %")
        page.unroute("**/health")
        page.route("**/health", lambda route: route.abort())
        expect(page.locator("#state-text")).to_have_text("unreachable")
        page.unroute("**/health")
        expect(page.locator("#state-text")).to_have_text("healthy")


def everybody_can_use_it(browser):
    """By axe-core's rules, with everything shown; and a picture of each for people to look at."""
    for name, viewport, scheme in (("light", WIDE, "light"), ("dark", WIDE, "dark"), ("narrow", NARROW, "light"), ("narrow-dark", NARROW, "dark")):
        with browser.page(viewport=viewport, color_scheme=scheme) as page:
            page.screenshot(path=PICTURES / f"empty-{name}.png")
            look_at(page, f"empty, {name}")
            page.locator("aside details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
            page.get_by_label("Logprobs of each token").check()
            page.get_by_role("button", name="Send, then kill the worker").click()
            wait_for_end(page)
            answers_with(page, stream({"reasoning_content": "They ask why. "}, {"content": "Because of this."}))
            say(page, "Why?")
            wait_for_end(page, 2)
            page.unroute(COMPLETIONS)
            answers_with(page, json.dumps({"error": {"message": "no", "code": "QUEUE_FULL"}}), 503)
            say(page, "And then?")
            wait_for_end(page, 3)
            page.locator("details").evaluate_all("(all) => all.forEach((one) => one.open = true)")
            look_at(page, name)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewport["width"], f"{name}: {width} px wide"
            page.set_viewport_size({**viewport, "height": page.evaluate("document.documentElement.scrollHeight")})
            page.screenshot(path=PICTURES / f"all-{name}.png")
    with browser.page(CLOSED) as page:
        expect(page.get_by_label("API key")).to_be_visible()
        look_at(page, "key")
        page.screenshot(path=PICTURES / "key.png")


def look_at(page, what):
    found = Axe().run(page).response
    violated, passed = found["violations"], found["passes"]
    score = 100 * len(passed) / (len(passed) + len(violated))
    told = [f"{v['id']} ({v['impact']}): {[node['html'][:120] for node in v['nodes']]}" for v in violated]
    print(f"  {what}: {score:.0f} of 100 by {len(passed) + len(violated)} rules of axe-core")
    assert score >= LEAST_SCORE and not any(v["impact"] in ("serious", "critical") for v in violated), "\n".join(told)


CHECKS = [
    it_is_painted_without_a_request_beyond_itself,
    it_talks_with_the_model_and_remembers_what_was_said,
    parameters_are_sent_and_defaults_shown,
    ids_and_logprobs_are_shown_on_demand,
    reasoning_is_folded,
    what_a_model_says_is_never_markup,
    errors_are_shown,
    an_answer_can_be_stopped,
    it_is_used_by_keyboard_and_heard_at_the_end_only,
    themes_are_the_system_s_or_as_chosen,
    it_asks_for_the_key_and_keeps_it_to_itself,
    a_kill_in_mid_sentence_changes_no_byte,
    an_answer_that_runs_can_be_killed_by_hand,
    it_shows_how_the_service_is,
    everybody_can_use_it,
]


def main():
    expect.set_options(timeout=LIMIT_MS)
    only = os.environ.get("ORCD_PAGE_ONLY", "")
    failed = []
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        except Error as error:
            print(f"SKIPPED the check of the page: {CHROMIUM} can't be started: {error.message.splitlines()[0]}")
            return 0
        browser = Browser(chromium)
        checks = [check for check in CHECKS if only in check.__name__]
        for check in checks:
            name = check.__name__.replace("_", " ")
            try:
                check(browser)
                print(f"ok: {name}", flush=True)
            except (AssertionError, Error):
                failed.append(name)
                print(f"FAILED: {name}\n{traceback.format_exc()}", flush=True)
        print(f"the page in Chromium {chromium.version}: {len(checks) - len(failed)} passed, {len(failed)} failed")
        chromium.close()
    return 1 if failed else 0


sys.exit(main())
