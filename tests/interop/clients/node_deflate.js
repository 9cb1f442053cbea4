// npm's ws with permessage-deflate against an echo server that agrees to it, with takeover, when asked:
// node_deflate.js [--fast] URL. Every combination of the four parameters: one connection each, on which messages of
// 16 bytes to 128 KiB, text and binary, whole and fragmented, are echoed and compared.
'use strict';
const crypto = require('crypto');
const WebSocket = require('ws');

const url = process.argv[process.argv.length - 1];
const fast = process.argv.includes('--fast');
const sizes = [16, 100, 128, 1000, 4096, 16384, 131072];
const largeFrom = 16384;
const names = ['ana', 'bruno', 'carla', 'duarte'];

function message(number) {
  let size = sizes[number % sizes.length];
  if (size >= largeFrom && number % 3) size /= 64;
  if (number % 4 === 3) return crypto.randomBytes(size);
  let text = '';
  while (text.length < size) text += `{"id":${crypto.randomInt(1e6)},"user":"${names[crypto.randomInt(4)]}"},`;
  text = text.slice(0, size);
  return number % 2 ? Buffer.from(text) : text;
}

function send(socket, data, fragmented) {
  if (!fragmented) return socket.send(data);
  const binary = Buffer.isBuffer(data);
  const cuts = [0, data.length >> 2, data.length >> 1, data.length];
  for (let i = 0; i < 3; ++i) socket.send(data.slice(cuts[i], cuts[i + 1]), { binary, fin: i === 2 });
}

function run([serverBits, clientBits, serverReset, clientReset], count) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, {
      perMessageDeflate: {
        serverMaxWindowBits: serverBits, clientMaxWindowBits: clientBits, serverNoContextTakeover: serverReset,
        clientNoContextTakeover: clientReset, threshold: 0,
      },
    });
    const fail = (why) => { reject(new Error(why)); socket.terminate(); };
    const timer = setTimeout(() => fail('timeout'), 120000);
    let number = 0;
    let wanted;
    const next = () => send(socket, wanted = message(number), number % 5 === 4);
    socket.on('open', () => (socket.extensions.includes('permessage-deflate') ? next() : fail('no agreement')));
    socket.on('message', (data, isBinary) => {
      if (isBinary !== Buffer.isBuffer(wanted) || !data.equals(Buffer.from(wanted))) return fail(`message ${number} differs`);
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
  const bits = fast ? [9, 12, 15] : [8, 9, 10, 11, 12, 13, 14, 15];
  let passed = 0;
  let failed = 0;
  for (const serverBits of bits) for (const clientBits of bits) {
    for (const serverReset of [false, true]) for (const clientReset of [false, true]) {
      const parameters = [serverBits, clientBits, serverReset, clientReset];
      try {
        await run(parameters, fast ? 100 : 1000);
        ++passed;
        console.log('ok', parameters.join(' '));
      } catch (error) {
        ++failed;
        console.log('FAILED', parameters.join(' '), error.message);
      }
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
