"""What a page has that somebody fills in, and what of it cannot be seen, in both themes."""

from __future__ import annotations

from typing import Any, Final

from tests.browser.chromium import Page

TEXT: Final = 4.5
"""The contrast of what was typed with what it stands on (WCAG 2.2, 1.4.3)."""
EDGE: Final = 3.0
"""The contrast of an input's edge with what is around it (1.4.11)."""
# Colors are painted to be read: Chromium hands out whatever notation a style has.
FAULTS: Final = """([text, edge]) => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const over = colors => {
    context.clearRect(0, 0, 1, 1);
    for (const color of colors) { context.fillStyle = color; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = rgb => {
    const [r, g, b] = rgb.map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const contrast = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + .05) / (low + .05);
  };
  const chain = element => element ? [...chain(element.parentElement), element] : [];
  const ground = element => chain(element).map(each => getComputedStyle(each).backgroundColor);
  const canvas = () => document.documentElement.matches(".dark") ? "black" : "white";
  const edged = element => {
    const style = getComputedStyle(element);
    const around = over([canvas(), ...ground(element.parentElement)]);
    const line = over([canvas(), ...ground(element.parentElement), style.borderTopColor]);
    const fill = over([canvas(), ...ground(element)]);
    const isLined = parseFloat(style.borderTopWidth) >= 1 && style.borderTopStyle !== "none";
    return isLined && contrast(line, around) >= edge || contrast(fill, around) >= edge;
  };
  const faults = [];
  const wanted = "input:not([type=hidden], [type=submit], [type=button]), select, textarea";
  for (const element of document.querySelectorAll(wanted)) {
    const box = element.getBoundingClientRect();
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })
        || box.width < 2 || box.height < 2) continue;
    const style = getComputedStyle(element);
    const name = `${element.localName} ${element.type} ${element.name || element.id}`;
    const ticked = ["checkbox", "radio", "range", "file", "color"].includes(element.type);
    if (ticked && style.appearance !== "none") continue;  // the browser's own
    // The search box draws the edge around its input and its icon.
    if (!edged(element) && !edged(element.parentElement)) faults.push(`${name}: no edge`);
    const background = over([canvas(), ...ground(element)]);
    const typed = over([canvas(), ...ground(element), style.color]);
    if (!ticked && contrast(typed, background) < text) faults.push(`${name}: faint text`);
    const shade = style.backgroundColor.replaceAll(" ", "");
    const isBare = /^(rgba\\(.*,0\\)|transparent)$/.test(shade);
    const isBlind = light(background) > .5 === document.documentElement.matches(".dark");
    if (!ticked && isBlind) faults.push(`${name}: the other theme's background`);
    if (!ticked && isBare && parseFloat(style.paddingLeft) < 2) faults.push(`${name}: bare`);
  }
  return faults;
}"""


def faults(page: Page) -> list[str]:
    """Return every input of this page that cannot be seen as one, in the light and in the dark."""
    found: list[str] = []
    root = page.locator("html")
    was_dark = root.evaluate("e => e.classList.contains('dark')")
    for theme in ("light", "dark"):
        root.evaluate("(e, dark) => e.classList.toggle('dark', dark)", theme == "dark")
        # Without this a border is read while it still fades from the color of the other theme.
        root.evaluate(STILL)
        seen: list[Any] = page.evaluate(FAULTS, [TEXT, EDGE])
        found += [f"{theme}: {each}" for each in seen]
    root.evaluate("(e, dark) => e.classList.toggle('dark', dark)", was_dark)
    return found


STILL: Final = """() => {
  for (const each of document.getAnimations()) each.finish();
}"""
