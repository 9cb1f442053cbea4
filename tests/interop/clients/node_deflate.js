// npm's ws with permessage-deflate against an echo server that agrees to it, with takeover, when asked:
// node_deflate.js [--fast] [--paths] URL. Every combination of the four parameters: 1000 messages each (100 with --fast) of 16 bytes
// to 128 KiB, text and binary, whole and fragmented, are echoed and compared. A window of 8 bits is 9 to Node when it
// compresses. Where both windows are the same, what it compresses has zlib's usual level, else the fast one. With --paths
// the server is deflate_server.cc: some of its paths, too, that bound windows, share contexts or send final blocks.
'use strict';
const crypto = require('crypto');
const WebSocket = require('ws');

const url = process.argv[process.argv.length - 1].replace(/\/$/, '');
const fast = process.argv.includes('--fast');
const sizes = Array.from({ length: 14 }, (_, power) => 16 << power);
const inFlight = 8; // messages on their way
const poolBytes = 1 << 20; // that messages are cut from: text that compresses well, and bytes that do not
const noise = crypto.randomBytes(poolBytes);
let text = '';
while (text.length < poolBytes) text += `{"id":${crypto.randomInt(1e6)},"user":"ana"},`;

// The message, and whether it is sent in fragments.
function message(number) {
  const size = sizes[number % sizes.length];
  const form = Math.floor(number / sizes.length);
  const at = crypto.randomInt(poolBytes - size);
  const fragmented = form % 4 > 1;
  if (form % 2 === 0) return [text.slice(at, at + size), fragmented];
  return [form % 4 === 1 ? noise.subarray(at, at + size) : Buffer.from(text.slice(at, at + size)), fragmented];
}

function send(socket, data, fragmented) {
  if (!fragmented) return socket.send(data);
  const binary = Buffer.isBuffer(data);
  const cuts = [0, data.length >> 2, data.length >> 1, data.length];
  for (let i = 0; i < 3; ++i) socket.send(data.slice(cuts[i], cuts[i + 1]), { binary, fin: i === 2 });
}

const all = [15, 15, false, false];
// The path, what to ask for, and what is then agreed on: the windows of the server and the client, and who resets.
const paths = [
  ['/9/15/3', all, [9, 15, false, false]], ['/12/10/0', all, [12, 10, true, true]],
  ['/15/9/1', all, [15, 9, false, true]], ['/8/12/2', [10, 11, false, false], [8, 11, true, false]],
  ['/final', all, [15, 15, true, true]],
];

function bitsOf(agreed, name) {
  const found = agreed.match(new RegExp(`${name}_max_window_bits=(\\d+)`));
  return found ? Number(found[1]) : 15;
}

function run(path, [serverBits, clientBits, serverReset, clientReset], wantedAgreement, count) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url + path, {
      perMessageDeflate: {
        serverMaxWindowBits: serverBits, clientMaxWindowBits: clientBits, serverNoContextTakeover: serverReset,
        clientNoContextTakeover: clientReset || undefined, // false would refuse a server that resets the client
        threshold: 0,
        zlibDeflateOptions: { level: serverBits === clientBits ? 6 : 1 },
      },
    });
    const fail = (why) => { reject(new Error(why)); socket.terminate(); };
    const timer = setTimeout(() => fail('timeout'), 120000);
    let number = 0;
    let sent = 0;
    const wanted = [];
    const next = () => {
      if (sent === count) return;
      const [data, fragmented] = message(sent++);
      wanted.push(data);
      send(socket, data, fragmented);
    };
    let agreed = '';
    socket.on('upgrade', (response) => { agreed = response.headers['sec-websocket-extensions'] || ''; });
    socket.on('open', () => {
      const got = [bitsOf(agreed, 'server'), bitsOf(agreed, 'client'),
        agreed.includes('server_no_context_takeover'), agreed.includes('client_no_context_takeover')];
      const right = agreed.startsWith('permessage-deflate') && got.join() === wantedAgreement.join();
      if (!right) return fail(`agreed on "${agreed}"`);
      for (let i = 0; i < inFlight; ++i) next();
    });
    socket.on('message', (data, isBinary) => {
      timer.refresh();
      const expected = wanted.shift();
      if (isBinary !== Buffer.isBuffer(expected) || !data.equals(Buffer.from(expected))) return fail(`message ${number} differs`);
      if (++number === count) socket.close(1000); else next();
    });
    socket.on('error', reject);
    socket.on('close', (code) => {
      clearTimeout(timer);
      if (code === 1000 && number === count) resolve(); else reject(new Error(`closed with ${code} after ${number}`));
    });
  });
}

async function main() {
  const bits = fast ? [8, 9, 12, 15] : [8, 9, 10, 11, 12, 13, 14, 15];
  let passed = 0;
  let failed = 0;
  const todo = [];
  for (const serverBits of bits) for (const clientBits of bits) {
    for (const serverReset of [false, true]) for (const clientReset of [false, true]) {
      const parameters = [serverBits, clientBits, serverReset, clientReset];
      todo.push(['/', parameters, parameters]);
    }
  }
  if (process.argv.includes('--paths')) todo.push(...paths);
  for (const [path, parameters, agreed] of todo) {
    try {
      await run(path, parameters, agreed, fast ? 100 : 1000);
      ++passed;
      console.log('ok', path, parameters.join(' '));
    } catch (error) {
      ++failed;
      console.log('FAILED', path, parameters.join(' '), error.message);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
