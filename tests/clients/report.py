#!/usr/bin/env python3
"""report.py CHROMIUM PAGE...: loads pages in Chromium on a phone and on a laptop, in light and in dark mode.

A page must log nothing, ask for nothing, be no wider than the screen, and pass the rules of axe-core.
"""
import glob
import os
import sys

import axe_playwright_python
from playwright.sync_api import sync_playwright

chromium, *pages = sys.argv[1:]
[axe] = glob.glob(os.path.join(os.path.dirname(axe_playwright_python.__file__), "**", "axe.min.js"), recursive=True)
failed = 0


def look(browser, page, scheme, width, height):
    """What is wrong with the page."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    wrong, loaded = [], []
    tab.on("console", lambda message: wrong.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    tab.on("request", lambda request: loaded.append(request.url))
    tab.goto("file://" + os.path.abspath(page))
    asked = [url for url in loaded if not url.startswith("data:")]
    if len(asked) != 1:
        wrong.append(f"it loads {asked[1:]}")
    wide = tab.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        wrong.append(f"it is {wide} pixels wide")
    tab.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    with open(axe) as script:
        tab.evaluate(script.read())
    result = tab.evaluate("axe.run()")
    wrong += [f"axe: {rule['id']}: {rule['nodes'][0]['target']} and {len(rule['nodes']) - 1} more" for rule in result["violations"]]
    print(f"  {os.path.basename(page)}, {width} pixels, {scheme}: {len(result['passes'])} rules of axe passed")
    context.close()
    return wrong


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    for page in pages:
        for scheme in "light", "dark":
            for width, height in (390, 844), (1280, 800):
                for problem in look(browser, page, scheme, width, height):
                    print(f"{page}, {width} pixels, {scheme}: {problem}")
                    failed += 1
    browser.close()
sys.exit(failed > 0)
