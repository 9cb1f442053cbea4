// Headless Chromium against an echo server: chromium.js [--no-page | --deflate [--fast]] URL. CHROMIUM names the program.
// Drives the browser through its debugging pipe: file descriptors 3 and 4, JSON messages that end in NUL. First the
// tests of chromium_page.html, served from here, then the server's own page at / (--no-page leaves that out, for
// servers that have none): it must open a WebSocket to its server and show a number of round trips. With --deflate only
// the tests of deflate_page.html, against deflate_server.cc; --fast: some of them.
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');

const url = process.argv.slice(2).find((argument) => !argument.startsWith('--'));
const deflate = process.argv.includes('--deflate');
const fast = process.argv.includes('--fast');
const wantsPage = !deflate && !process.argv.includes('--no-page');
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--remote-debugging-pipe'];
let passed = 0;
let failed = 0;

function report(name, problem) {
  if (problem) ++failed; else ++passed;
  console.log(problem ? `FAILED ${name} ${problem}` : `ok ${name}`);
}

class Browser {
  constructor(profile) {
    this.process = spawn(process.env.CHROMIUM || 'chromium', [...flags, `--user-data-dir=${profile}`, 'about:blank'],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.ended = new Promise((resolve) => {
      this.process.on('exit', resolve);
      this.process.on('error', resolve);
    });
    this.calls = new Map();
    this.lastId = 0;
    this.listener = () => {};
    let pieces = [];
    this.process.stdio[3].on('error', () => {});
    this.process.stdio[4].on('data', (data) => {
      for (let end; (end = data.indexOf(0)) >= 0; data = data.subarray(end + 1)) {
        this.receive(JSON.parse(Buffer.concat([...pieces, data.subarray(0, end)]).toString()));
        pieces = [];
      }
      pieces.push(data);
    });
    this.ended.then(() => this.calls.forEach(({ reject }) => reject(new Error('the browser ended'))));
  }

  receive(message) {
    const call = this.calls.get(message.id);
    this.calls.delete(message.id);
    if (!call) this.listener(message.method, message.params);
    else if (message.error) call.reject(new Error(message.error.message));
    else call.resolve(message.result);
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.lastId;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.calls.set(id, { resolve, reject }));
  }

  // Opens `address` in a tab of its own; the answer evaluates expressions there. `watched` reports the tab's sockets.
  async page(address, watched) {
    const { targetId } = await this.call('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await this.call('Target.attachToTarget', { targetId, flatten: true });
    const call = (method, params) => this.call(method, params, sessionId);
    if (watched) await call('Network.enable');
    await call('Runtime.enable');
    await call('Page.enable');
    const { errorText } = await call('Page.navigate', { url: address });
    if (errorText) throw new Error(`${address}: ${errorText}`);
    return async (expression) => {
      const { result, exceptionDetails } = await call('Runtime.evaluate',
        { expression, awaitPromise: true, returnByValue: true });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
      return result.value;
    };
  }
}

// Asks until the answer is true or the time is over; the last answer.
async function poll(question, seconds) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await question();
    if (answer || Date.now() > deadline) return answer;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function runTestPage(browser) {
  const html = fs.readFileSync(path.join(__dirname, deflate ? 'deflate_page.html' : 'chromium_page.html'));
  const server = http.createServer((_, response) => response.setHeader('content-type', 'text/html').end(html));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const query = `url=${encodeURIComponent(url)}${fast ? '&fast' : ''}`;
  const evaluate = await browser.page(`http://127.0.0.1:${server.address().port}/?${query}`, false);
  await poll(() => evaluate('typeof results !== "undefined"'), 30);
  for (const [name, problem] of await evaluate('results')) report(name, problem);
  server.closeAllConnections();
  server.close();
}

async function runServersPage(browser) {
  const seen = { sockets: [], frames: 0, exceptions: [] };
  browser.listener = (method, params) => {
    if (method === 'Network.webSocketCreated') seen.sockets.push(params.url);
    if (method === 'Network.webSocketFrameReceived') ++seen.frames;
    if (method === 'Runtime.exceptionThrown') seen.exceptions.push(params.exceptionDetails.text);
  };
  const address = new URL('/', url.replace(/^ws/, 'http'));
  const evaluate = await browser.page(address.href, true);
  const shown = await poll(async () => {
    const text = await evaluate('document.body ? document.body.innerText : ""');
    const match = text.match(/([1-9][\d.,' ]*)\s*round.?trips?/i) || text.match(/round.?trips?\D{0,20}[1-9]/i);
    return match && match[0];
  }, 20);
  const own = seen.sockets.some((address_) => new URL(address_).host === address.host);
  report('the page at / opens a WebSocket to its server', own ? '' : `sockets: ${seen.sockets}`);
  report('the page at / gets echoes', seen.frames > 0 ? '' : 'no frame came');
  report('the page at / shows round trips', shown ? '' : 'no number of round trips in its text');
  report('the page at / throws nothing', seen.exceptions.join('; '));
}

async function main() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'chromium-'));
  const browser = new Browser(profile);
  const guard = setTimeout(() => browser.process.kill('SIGKILL'), deflate && !fast ? 3600000 : 300000);
  try {
    await runTestPage(browser);
    if (wantsPage) await runServersPage(browser);
  } catch (error) {
    report('the browser', error.message);
  }
  browser.call('Browser.close').catch(() => {});
  const forced = setTimeout(() => browser.process.kill('SIGKILL'), 10000);
  await browser.ended;
  clearTimeout(forced);
  clearTimeout(guard);
  fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
