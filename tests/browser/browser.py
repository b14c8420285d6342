"""The system's Chromium over WebDriver, for the tests and for `just screenshots`."""

from __future__ import annotations

import os
import shutil

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1280,900",
)


def start(*more: str, trusts_all: bool = False) -> webdriver.Chrome | None:
    """A browser of its own profile; None where the system has no Chromium with its driver. Blocking.

    more: further flags; trusts_all: as somebody who goes on after the warning about a certificate.
    """
    browser = os.environ.get("CHROMIUM_BIN") or shutil.which("chromium") or shutil.which("google-chrome")
    control = os.environ.get("CHROMEDRIVER_BIN") or shutil.which("chromedriver")
    if browser is None or control is None:
        return None
    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.accept_insecure_certs = trusts_all
    for flag in (*FLAGS, *more):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(control))
