"""A headless Chromium that tests can steer, through its debugging pipe; no network."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-unsafe-swiftshader", "--use-angle=swiftshader", "--hide-scrollbars"),
)
# moves two descriptors to 3 and 4, higher ones first so that none is lost, and becomes the browser
MOVE = """
import os, sys
for here, there in ((int(sys.argv[1]), 50), (int(sys.argv[2]), 51), (50, 3), (51, 4)):
    os.dup2(here, there)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page; `call` is a command of the DevTools protocol."""

    def __init__(self, profile, *flags, size=(1280, 900)):
        # the browser reads commands from its descriptor 3 and answers on 4
        from_us, self._write = os.pipe()
        self._read, to_us = os.pipe()
        pipe = [*FLAGS, *flags, "--remote-debugging-pipe", f"--window-size={size[0]},{size[1]}"]
        command = [CHROMIUM, *pipe, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", MOVE, str(from_us), str(to_us), *command],
            pass_fds=(from_us, to_us),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._buffer, self._last, self._session, self.events = b"", 0, None, []
        target = next(
            t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        self._session = self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, path):
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete'")

    def run(self, script):
        """The value of an expression in the page."""
        out = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in out, out["exceptionDetails"]
        return out["result"].get("value")

    def wait(self, script, seconds=30):
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.05)

    def drag(self, x, y, dx, dy):
        """Press at a place of the window, move, let go."""
        for kind, left, top in (
            ("mousePressed", x, y),
            ("mouseMoved", x + dx / 2, y + dy / 2),
            ("mouseMoved", x + dx, y + dy),
            ("mouseReleased", x + dx, y + dy),
        ):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=left, y=top, button="left", clickCount=1
            )

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def picture(self, **options):
        """The window as PNG, or a `clip` of the page."""
        shot = self.call("Page.captureScreenshot", format="png", **options)
        return base64.b64decode(shot["data"])

    def told(self, method):
        """Parameters of events of a kind."""
        return [e["params"] for e in self.events if e.get("method") == method]

    def close(self):
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(20)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
        finally:
            os.close(self._write)
            os.close(self._read)

    def _message(self):
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            if not part:
                raise OSError("the browser has gone")
            self._buffer += part
        one, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(one)


@pytest.fixture
def browser(tmp_path):
    """Call it with further flags to get a page; skips the test where there is no Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine to render the page")
    opened = []

    def start(*flags, size=(900, 700)):
        opened.append(Browser(tmp_path / f"profile{len(opened)}", *flags, size=size))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
