// Opens an HTML report of levada-load in headless Chromium and reads its plots back:
//     html_test.js REPORT.html [SCREENSHOT-PREFIX]      CHROMIUM names the program
// The page must need no network, log nothing to the console, show every plot inside of a phone's width, and each
// line must lie where its data say, which must be the data of the capsule that the page carries.
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

const file = path.resolve(process.argv[2]);
const pictures = process.argv[3];
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-pipe'];
let passed = 0;
let failed = 0;

function check(name, right, details = '') {
  if (right) ++passed; else ++failed;
  console.log(right ? `ok ${name}` : `FAILED ${name} ${details}`);
}

function start(profile) {
  const browser = spawn(process.env.CHROMIUM || 'chromium', [...flags, `--user-data-dir=${profile}`, 'about:blank'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const calls = new Map();
  const events = [];
  let lastId = 0;
  let rest = Buffer.alloc(0);
  const ended = new Promise((resolve) => browser.on('exit', resolve).on('error', resolve));
  ended.then(() => calls.forEach(({ reject }) => reject(new Error('the browser ended'))));
  browser.stdio[3].on('error', () => {});
  browser.stdio[4].on('data', (data) => {
    rest = Buffer.concat([rest, data]);
    for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) {
      const message = JSON.parse(rest.subarray(0, end).toString());
      const call = calls.get(message.id);
      if (!call) events.push(message);
      else if (message.error) call.reject(new Error(message.error.message));
      else call.resolve(message.result);
    }
  });
  const call = (method, params = {}, sessionId = undefined) => {
    const id = ++lastId;
    browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => calls.set(id, { resolve, reject }));
  };
  return { call, events, ended, kill: () => browser.kill('SIGKILL') };
}

// Runs in the page: every figure with its lines, as drawn and as data, and what overflows.
function readBack() {
  const numbers = (text) => text.trim().split(/\s+/).filter(Boolean).map((pair) => pair.split(',').map(Number));
  return {
    answer: document.getElementById('answer').textContent,
    capsule: JSON.parse(document.getElementById('capsule').textContent),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    cut: [...document.querySelectorAll('svg text')].filter((text) => {
      const { x, y, width, height } = text.getBBox();
      return x < 0 || y < 0 || x + width > 640 || y + height > 300;
    }).map((text) => text.textContent),
    background: getComputedStyle(document.body).backgroundColor,
    figures: [...document.querySelectorAll('figure')].map((figure) => ({
      id: figure.id,
      width: figure.getBoundingClientRect().width,
      height: figure.getBoundingClientRect().height,
      lines: [...figure.querySelectorAll('polyline')].map((line) => ({
        name: line.dataset.name,
        stroke: getComputedStyle(line).stroke,
        data: numbers(line.dataset.points),
        drawn: numbers(line.getAttribute('points')),
      })),
    })),
  };
}

// Whether the drawn points lie in the picture, go to the right, and have the order of their values (up is less).
function liesRight(line) {
  if (line.data.length !== line.drawn.length) return false;
  return line.drawn.every(([x, y], i) => {
    if (!(x >= 71 && x <= 641 && y >= 0 && y <= 300)) return false;
    if (i === 0) return true;
    const [px, py] = line.drawn[i - 1];
    return x >= px && Math.sign(line.data[i][1] - line.data[i - 1][1]) * (py - y) >= -0.02;
  });
}

function checkPlots(page) {
  const figure = (id) => page.figures.find((each) => each.id === id) || { lines: [] };
  const { capsule } = page;
  for (const id of ['percentiles', 'latency', 'throughput', 'server-cpu', 'server-memory'])
    check(`the plot ${id} has lines`, figure(id).lines.length > 0 && figure(id).lines[0].data.length > 0);
  for (const { id, lines } of page.figures)
    for (const line of lines) check(`${id}: ${line.name} lies where its data say`, liesRight(line), JSON.stringify(line));
  for (const [i, key] of ['p50_us', 'p99_us', 'max_us'].entries()) {
    const shown = figure('latency').lines[i].data.map(([, y]) => y);
    const wanted = capsule.series.filter((second) => second.max_us > 0).map((second) => second[key]);
    check(`latency by second, ${key}, is the capsule's`, shown.length === wanted.length &&
      shown.every((y, at) => Math.abs(y - wanted[at]) < 0.01), `${shown} ${wanted}`);
  }
  let before = 0;
  const rates = capsule.series.map(({ at_s: at, messages }) => {
    const rate = messages / (at - before);
    before = at;
    return rate;
  });
  const drawn = figure('throughput').lines[0].data.map(([, y]) => y);
  check("throughput is the capsule's", drawn.every((y, i) => Math.abs(y - rates[i]) < 0.01 * rates[i]), `${drawn} ${rates}`);
  const response = figure('percentiles').lines[0].data;
  const median = response.find(([x]) => x >= 1.99);
  check("the percentile curve's middle is the median", Math.abs(median[1] / capsule.latency_us.response.p50 - 1) < 0.05,
    `${median} ${capsule.latency_us.response.p50}`);
  check("the server's CPU is the capsule's",
    figure('server-cpu').lines[0].data.every(([, y], i) => Math.abs(y - capsule.server.seconds[i].cpu) < 0.01));
}

async function look(browser, scheme, width) {
  const { targetId } = await browser.call('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await browser.call('Target.attachToTarget', { targetId, flatten: true });
  const call = (method, params) => browser.call(method, params, sessionId);
  await call('Runtime.enable');
  await call('Log.enable');
  await call('Network.enable');
  await call('Page.enable');
  await call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  await call('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: width < 600 });
  const { errorText } = await call('Page.navigate', { url: `file://${file}` });
  if (errorText) throw new Error(errorText);
  const loaded = "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))";
  await call('Runtime.evaluate', { expression: loaded, awaitPromise: true });
  const { result, exceptionDetails } = await call('Runtime.evaluate', { expression: `(${readBack})()`, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception.description);
  if (pictures) {
    const { data } = await call('Page.captureScreenshot', { captureBeyondViewport: true });
    fs.writeFileSync(`${pictures}-${scheme}-${width}.png`, Buffer.from(data, 'base64'));
  }
  return result.value;
}

async function main() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
  const browser = start(profile);
  const guard = setTimeout(browser.kill, 120000);
  try {
    const light = await look(browser, 'light', 1280);
    checkPlots(light);
    check('the first line is the answer', /msg\/s, p99 .* errors?, [\d,]+ connections?$/.test(light.answer), light.answer);
    const dark = await look(browser, 'dark', 1280);
    check('dark is another page', dark.background !== light.background && dark.figures[0].lines[0].stroke !== light.figures[0].lines[0].stroke);
    const phone = await look(browser, 'light', 390);
    check('nothing overflows on a phone', phone.overflow <= 0, phone.overflow);
    check('no text of a plot is cut off', [...light.cut, ...phone.cut].length === 0, [light.cut, phone.cut]);
    check('plots are as wide as a phone', phone.figures.every(({ width, height }) => width > 300 && width <= 390 && height > 100));
    const noise = browser.events.filter(({ method }) => ['Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'].includes(method));
    check('the console is silent', noise.length === 0, JSON.stringify(noise));
    const asked = browser.events.filter(({ method, params }) => method === 'Network.requestWillBeSent' && !/^(file|data):/.test(params.request.url));
    check('no network is needed', asked.length === 0, JSON.stringify(asked.map(({ params }) => params.request.url)));
  } catch (error) {
    check('the browser', false, error.message);
  }
  browser.call('Browser.close').catch(() => {});
  const forced = setTimeout(browser.kill, 10000);
  await browser.ended;
  clearTimeout(forced);
  clearTimeout(guard);
  fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
