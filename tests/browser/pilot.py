"""A pilot at a browser: what a test does with the pages, and what it demands of every one of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, ViewportSize, expect

#: Milliseconds a page gets to show what a test waits for: the machine may be busy.
PATIENCE_MS = 60_000
#: Bytes of a page with its style and scripts, as they are sent.
LARGEST_PAGE = 100 * 1024
#: All rules of WCAG 2.2 A and AA that a machine can check, and axe's best practices.
AXE = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}

#: What pages are looked at in: what the style sheet makes a difference for.
SCHEMES: tuple[Literal["dark"], Literal["light"]] = ("dark", "light")
SCREENS: tuple[ViewportSize, ViewportSize] = ({"width": 360, "height": 740}, {"width": 1280, "height": 900})

#: In place of EVE's image server, which no test asks.
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" fill="#26303c"/>'
    '<path d="M32 10 50 52 32 43 14 52z" fill="#5b6b7d"/></svg>'
)

#: Keys pressed to get somewhere before it counts as out of reach.
MOST_TABS = 120


@dataclass
class Pilot:
    """One browser with its own cookies. `problems`: what its console said, and what it asked of strangers."""

    context: BrowserContext
    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    @classmethod
    def sit_down(cls, context: BrowserContext, url: str) -> Pilot:
        context.set_default_timeout(PATIENCE_MS)
        context.route("**", lambda route: route.continue_() if "//127.0.0.1:" in route.request.url else route.abort())
        context.route(
            "https://images.evetech.net/**",
            lambda route: route.fulfill(body=PICTURE, content_type="image/svg+xml"),
        )
        pilot = cls(context, context.new_page(), url)
        pilot.page.on("console", pilot._hear)
        pilot.page.on("pageerror", lambda error: pilot.problems.append(str(error)))
        return pilot

    def open(self, path: str = "/") -> None:
        self.page.goto(self.url + path)

    def log_in(self, name: str) -> None:
        """From our page to the SSO's and back, with clicks."""
        self.open()
        self.page.get_by_role("link", name="Log in with EVE Online").click()
        self.page.get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1)).to_have_text(name, timeout=PATIENCE_MS)

    @property
    def sync(self) -> Locator:
        return self.page.locator("#sync")

    @property
    def rows(self) -> Locator:
        """Killmails, as shown."""
        return self.page.locator(".killmail")

    def wait_for_sync(self) -> None:
        """Until it has ended, and the parts of the page that this changes have been made anew."""
        expect(self.sync).to_have_attribute("data-phase", "FINISHED", timeout=PATIENCE_MS)
        last = self.page.locator("#history tbody tr").first
        expect(last.get_by_role("cell", name="Finished", exact=True)).to_be_visible(timeout=PATIENCE_MS)

    def shown_ids(self) -> list[int]:
        return [int(row.get_attribute("data-id") or 0) for row in self.rows.all()]

    def marks_the_page(self) -> None:
        """From now on `was_not_reloaded` can tell."""
        self.page.evaluate("() => { window.untouched = true }")

    def was_not_reloaded(self) -> bool:
        return bool(self.page.evaluate("() => window.untouched === true"))

    def listens(self) -> None:
        """From the next page on, `heard` tells what a screen reader is given to read."""
        self.page.add_init_script(LISTEN)

    def heard(self) -> list[str]:
        """What the page announced since it was loaded, the state of the connection aside."""
        heard: list[str] = self.page.evaluate("() => window.heard")
        return heard

    def expects(self, demand: Callable[[], bool], what: str) -> None:
        """Wait until something is so that Playwright cannot ask for; the page goes on meanwhile."""
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not demand():
            assert time.monotonic() < deadline, what
            self.page.wait_for_timeout(50)

    @property
    def focused(self) -> str:
        """The text (or name) of what has the focus, which must be visible."""
        text, visible = self.page.evaluate(FOCUSED)
        assert visible, f"the focus on {text!r} cannot be seen"
        return str(text)

    def was_cut_off(self) -> None:
        """The server was away for a while: that the browser says so is as it should be."""
        said = ("WebSocket connection to", "Failed to load resource: net::ERR_")
        self.problems[:] = [problem for problem in self.problems if not problem.startswith(said)]

    def press_tab_until(self, is_there: Callable[[str], bool]) -> str:
        """Tab from one thing to the next until one's text is it; fails where a focus cannot be seen."""
        passed = []
        for _ in range(MOST_TABS):
            self.page.keyboard.press("Tab")
            passed.append(self.focused)
            if is_there(passed[-1]):
                return passed[-1]
        raise AssertionError(f"not within {MOST_TABS} presses of Tab: {passed}")

    def demands_of_any_page(self) -> list[str]:
        """What is wrong with the page as it is shown now, for people and for machines."""
        overflow = self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        wrong = [f"{overflow} px too wide"] if overflow > 0 else []
        weight = self.page.evaluate(WEIGHT)
        if weight > LARGEST_PAGE:
            wrong.append(f"{weight} bytes")
        return wrong + self.inaccessible()

    def demands_everywhere(self) -> list[str]:
        """The same, in both colour schemes and on both screens."""
        wrong = []
        for scheme in SCHEMES:
            # Nothing moves: a row that fades in would be in between the colours of both.
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for screen in SCREENS:
                self.page.set_viewport_size(screen)
                wrong += [f"{scheme}, {screen['width']} px: {each}" for each in self.demands_of_any_page()]
        return wrong

    def inaccessible(self) -> list[str]:
        """What axe finds."""
        violations: list[dict[str, Any]] = Axe().run(self.page, options=AXE).response["violations"]
        return [
            f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in violations for node in each["nodes"]
        ]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"{message.text} ({message.location.get('url')})")


#: The text (or name) of what has the focus, and whether a sighted person sees that it has.
FOCUSED = """() => {
  const it = document.activeElement;
  if (it === document.body) return ["", true];  // between the page's end and its start, in the browser's own bar
  const style = getComputedStyle(it);
  const label = it.getAttribute("aria-label") || it.labels?.[0]?.textContent || it.textContent || it.name || "";
  const box = it.getBoundingClientRect();
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  return [label.trim().slice(0, 200), outlined && box.width > 0 && box.right > 0];
}"""

#: Collects, from before the page's own scripts run, what live regions say and which alerts appear.
LISTEN = """(() => {
  window.heard = [];
  const regions = '[role="status"]:not(#live), [role="alert"]';
  const hear = (region) => region?.textContent.trim() && heard.push(region.textContent.trim().replace(/\\s+/g, " "));
  const listen = () => new MutationObserver((changes) => {
    const changed = changes.map(({ target }) => target.parentElement?.closest(regions) ?? target.closest?.(regions));
    const added = changes.flatMap(({ addedNodes }) => [...addedNodes]).filter((node) => node.querySelectorAll)
      .flatMap((node) => [...node.querySelectorAll(regions)]);
    new Set([...changed, ...added]).forEach(hear);
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
  document.addEventListener("readystatechange", () => document.readyState === "interactive" && listen());
})()"""

#: Bytes of the page and of everything it is made of, pictures aside.
WEIGHT = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter((each) => each.initiatorType !== "img")
  .reduce((sum, each) => sum + each.encodedBodySize, 0)"""
