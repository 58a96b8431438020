"""A page in headless Chromium, opened from disk, without network."""

import shutil
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip

STICKING_OUT = """
const limit = document.documentElement.clientWidth + 1;
return [...document.querySelectorAll("body *")].filter((e) => {
  const box = e.getBoundingClientRect();
  if (!box.width || box.right <= limit || e.closest("svg svg, defs, .unseen, .skip")) return false;
  for (let up = e.parentElement; up; up = up.parentElement) {
    const style = getComputedStyle(up);
    if (style.overflowX !== "visible" || style.visibility === "hidden") return up === document.body;
  }
  return true;
}).slice(0, 5).map((e) => `${e.tagName}.${e.getAttribute("class") ?? ""} ${e.textContent.slice(0, 40)}`);
"""


class Page:
    """A browser with one window.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder for the browser's profile.
    """

    def __init__(self, folder):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in [*FLAGS, f"--user-data-dir={folder}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.set_page_load_timeout(60)
        self.wide()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.driver.quit()

    def wide(self, width=1400, height=900):
        """Set the size of the window, in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefers(self, scheme="light", motion="reduce"):
        """Set what the reader's system prefers."""
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, path, hash_=""):
        """Load a file of this machine, forgetting the page before and its messages."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(path.resolve().as_uri() + hash_)
        self.settle()

    def settle(self):
        """Wait until a change is drawn."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def run(self, script, *arguments):
        """Run JavaScript in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script):
        """Wait until a script returns something true, and return it."""
        return WebDriverWait(self.driver, 30, 0.05).until(lambda _: self.run(script))

    def element(self, selector):
        """The first element of a selector."""
        return self.driver.find_element("css selector", selector)

    def press(self, selector, *keys):
        """Focus an element and press keys."""
        self.element(selector).send_keys(*keys)
        self.settle()

    def errors(self):
        """Warnings and errors of the console since the last `open`."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def fetched(self):
        """Addresses that the page loaded from anywhere but this machine's disk."""
        names = self.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        return [name for name in names if urlsplit(name).scheme not in ("file", "data", "blob")]

    def overflow(self):
        """What makes the page wider than its window: nothing, if all is well."""
        wider = self.run("return document.scrollingElement.scrollWidth - document.documentElement.clientWidth")
        found = self.run(STICKING_OUT)
        return [f"{wider} pixels", *found] if wider > 0 else found
