"""Looks at pages of `evenkeel sim run --report` in headless Chromium, by the WebDriver protocol of chromedriver.

    look.py FOLDER                  every page of FOLDER: what does not hold is said, and fails
    look.py FOLDER --image IMAGE    a picture of the one page in FOLDER
"""

import base64
import json
import pathlib
import subprocess
import sys
import urllib.request

# Parts that every page has, and what is said in each.
PARTS = {
    "verdict": "To run it again", "expected": "expected", "nodes": "Each lane", "connections": "points at most",
    "times": "Stall", "connection": "packet by packet", "details": "What nodes said",
}
PICTURES = ["lanes", "close-up", "alive", "survival", "traffic", "stalls", "lags", "sequence"]
# Pages that have less, as there is nothing to draw: a node alone, and services that are not replicated.
WITHOUT = {"alone": ["lags"], "fails": ["lags"]}
# Nodes that answer for the VIPs at some time, and for LIPs. A node alone has lanes of its state only.
ANSWER = {"alone": (0, 0), "ecmp-crash": (4, 4), "eight": (2, 8)}

CHECK = r"""
const found = [];
const width = document.documentElement.clientWidth;
const shown = (id, least) => {
  const part = document.getElementById(id);
  if (!part) return found.push(id + ' is not there');
  const box = part.getBoundingClientRect();
  if (box.width < least || box.height < 20) found.push(`${id} is ${box.width} x ${box.height}`);
  // A picture may be scrolled in its own box.
  const frame = part.closest('.scroll') || part;
  const outer = frame.getBoundingClientRect();
  if (outer.left < -1 || outer.right > width + 1) found.push(`${id} lies from ${outer.left} to ${outer.right} of ${width}`);
  if (getComputedStyle(part).visibility !== 'visible') found.push(id + ' is hidden');
};
for (const [id, words] of Object.entries(arguments[0])) {
  shown(id, 280);
  const part = document.getElementById(id);
  if (part && !part.textContent.includes(words)) found.push(`${id} does not say ${words}`);
}
for (const id of arguments[1]) shown(id, 250);
for (const id of arguments[2]) if (document.getElementById(id)) found.push(`${id} is there, of which there is nothing`);
// Who answers for what, in the lanes: node 1: VIPs, LIPs of 1, 2, ..
const answer = word => new Set([...document.querySelectorAll('#lanes .vips title, #lanes .lips title')]
  .map(t => t.textContent).filter(t => t.split(' to ')[0].includes(word)).map(t => t.split(':')[0])).size;
const [vips, lips] = [answer('VIPs'), answer('LIPs of')];
if (vips < arguments[3][0] || lips < arguments[3][1] || (arguments[3][0] === 0 && vips > 0))
  found.push(`${vips} nodes answer for VIPs and ${lips} for LIPs, not ${arguments[3]}`);
if (document.documentElement.scrollWidth > width + 1) found.push(`the page is ${document.documentElement.scrollWidth} wide in ${width}`);
for (const text of document.querySelectorAll('svg text')) {
  const svg = text.ownerSVGElement.getBoundingClientRect(), box = text.getBoundingClientRect();
  if (box.width === 0 && text.textContent.trim() !== '') found.push('no size: ' + text.textContent);
  if (box.left < svg.left - 2 || box.right > svg.right + 12 || box.bottom > svg.bottom + 2)
    found.push(`outside of ${text.ownerSVGElement.id}: ${text.textContent}`);
}
const name = document.querySelectorAll('svg[role=img]:not([aria-label])').length;
if (name) found.push(name + ' pictures have no name');
for (const bar of document.querySelectorAll('.bar, .hop')) if (!bar.querySelector('title').textContent) found.push('a bar says nothing');
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
if (new Set(ids).size !== ids.length) found.push('an id is there twice');
const fetched = performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:'));
if (fetched.length) found.push('it fetches ' + fetched[0].name);
return [found.slice(0, 12), document.querySelectorAll('.bar').length, document.querySelectorAll('.hop').length,
  document.querySelectorAll('tr.no').length, document.documentElement.classList.contains('on'),
  getComputedStyle(document.body).backgroundColor];
"""


class Driver:
    def __init__(self):
        command = ["chromedriver", "--port=0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = self.session = None
        for line in self.process.stdout:
            if "successfully on port" in line:
                self.port = line.split("on port")[1].strip(" .\n")
                break
        if not self.port:
            sys.exit("chromedriver names no port")

    def call(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def begin(self):
        args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", "--force-color-profile=srgb", "--window-size=1280,900"]
        wanted = {"goog:chromeOptions": {"args": args}, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def on(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def run(self, script, *args):
        return self.on("POST", "/execute/sync", {"script": script, "args": list(args)})

    def end(self):
        if self.session:
            self.on("DELETE", "")
            self.session = None

    def devtools(self, command, **parameters):
        return self.on("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def window(self, width, dark=False, scripts=True):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.devtools("Emulation.setScriptExecutionDisabled", value=not scripts)


def look(driver, page, problems, what, **wanted):
    driver.on("POST", "/url", {"url": page.as_uri()})
    name = page.stem.rpartition("-")[0]
    without = WITHOUT.get(name, [])
    pictures = [p for p in PICTURES if p not in without]
    checked = driver.run(CHECK, PARTS, pictures, without, ANSWER.get(name, (1, 2)))
    found, bars, hops, failed, scripted, ground = checked
    log = [entry["message"] for entry in driver.on("POST", "/se/log", {"type": "browser"})]
    found += [f"the browser says: {line}" for line in log]
    if bars < 2:
        found.append(f"{bars} bars")
    if hops < 6:
        found.append(f"{hops} hops")
    if failed != wanted["failed"]:
        found.append(f"{failed} expectations failed, not {wanted['failed']}")
    if scripted != wanted["scripted"]:
        found.append(f"its script {'ran' if scripted else 'did not run'}")
    problems += [f"{page.name}, {what}: {line}" for line in found]
    return ground


def use(driver, page, problems, light):
    """What its script adds."""
    driver.run("document.getElementById('theme').click()")
    if driver.run("return getComputedStyle(document.body).backgroundColor") == light:
        problems.append(f"{page.name}: its button does not change light and dark")
    shown, all_, others = driver.run(
        "const f = document.getElementById('find'); f.closest('details').open = true; f.value = 'node 1:';"
        "f.dispatchEvent(new Event('input')); const all = [...document.querySelectorAll('#events li')];"
        "return [all.filter(l => !l.hidden).length, all.length, all.some(l => !l.hidden && !l.textContent.includes('node 1:'))]")
    if others or shown == 0:
        problems.append(f"{page.name}: finding events shows {shown} of {all_}")
    driver.run("const s = document.getElementById('lanes'), b = s.getBoundingClientRect();"
               "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + b.width / 2, clientY: b.top + 5, bubbles: true}))")
    if not driver.run("return document.getElementById('cursor').textContent").endswith(" s"):
        problems.append(f"{page.name}: no time under the pointer")


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    pages = sorted(folder.glob("*.html"))
    driver, problems = Driver(), []
    try:
        driver.begin()
        if len(sys.argv) > 2:
            driver.window(1160)
            driver.on("POST", "/url", {"url": pages[0].as_uri()})
            bottom = driver.run("return document.getElementById('connections').getBoundingClientRect().bottom")
            clip = {"x": 0, "y": 0, "width": 1160, "height": bottom, "scale": 1}
            shot = driver.devtools("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
            pathlib.Path(sys.argv[3]).write_bytes(base64.b64decode(shot["data"]))
            return
        failed = {page: page.read_text().count('<tr class="no">') for page in pages}
        grounds = set()
        for page in pages:
            driver.window(1280)
            light = look(driver, page, problems, "wide", failed=failed[page], scripted=True)
            use(driver, page, problems, light)
            driver.window(500)
            look(driver, page, problems, "narrow", failed=failed[page], scripted=True)
            driver.window(1280, dark=True, scripts=False)
            dark = look(driver, page, problems, "dark and without scripts", failed=failed[page], scripted=False)
            grounds.add((light, dark))
        if any(light == dark for light, dark in grounds):
            problems.append(f"light and dark are the same: {grounds}")
        driver.end()
        sizes = [page.stat().st_size for page in pages]
        for page, size in zip(pages, sizes):
            if size > 1_000_000:
                problems.append(f"{page.name} has {size} bytes")
        for line in problems:
            print(line)
        if problems or len(pages) < 2:
            sys.exit(f"{len(problems)} things do not hold in {len(pages)} pages")
        print(f"{len(pages)} pages of {min(sizes) // 1000} to {max(sizes) // 1000} kB in Chromium: no error, all parts visible, wide, narrow, dark and without scripts")
    finally:
        driver.end()
        driver.process.terminate()
        driver.process.wait()


main()
