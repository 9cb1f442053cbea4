// npm's ws against an echo server: node_ws.js URL.
'use strict';
const crypto = require('crypto');
const WebSocket = require('ws');

const url = process.argv[2];
const sizes = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20];
const scripts = 'levada água κόσμε 日本語 한국어 🌊👨‍👩‍👧 𝄞';
let passed = 0;
let failed = 0;

const fail = (text) => { throw new Error(text); };
// The next such event; an error, or an early end, rejects.
const once = (socket, event) => new Promise((resolve, reject) => {
  const listeners = {
    error: reject,
    close: (code) => reject(new Error(`closed with ${code}`)),
    [event]: (...args) => resolve(args),
  };
  const settle = (listener) => (...args) => {
    for (const name in added) socket.off(name, added[name]);
    listener(...args);
  };
  const added = {};
  for (const name in listeners) socket.on(name, added[name] = settle(listeners[name]));
});

async function open(options) {
  const socket = new WebSocket(url, { maxPayload: 64 << 20, ...options });
  await once(socket, 'open');
  return socket;
}

async function close(socket, code = 1000, reason = '') {
  const closed = once(socket, 'close');
  socket.close(code, reason);
  const [got] = await closed;
  if (got !== code) fail(`close code ${got}, expected ${code}`);
}

function sendAndCompare(socket, message) {
  const answer = once(socket, 'message');
  socket.send(message);
  return answer.then(([data, isBinary]) => {
    if (isBinary !== Buffer.isBuffer(message)) fail('text and binary mixed up');
    if (!data.equals(Buffer.from(message))) fail(`another payload of ${data.length} bytes`);
  });
}

async function echo(message, options) {
  const socket = await open(options);
  await sendAndCompare(socket, message);
  await close(socket);
}

async function fragmented(pieces) {
  const socket = await open({ perMessageDeflate: false });
  const answer = once(socket, 'message');
  pieces.forEach((piece, i) => socket.send(piece, { fin: i === pieces.length - 1, binary: false }));
  const [data] = await answer;
  if (data.toString() !== pieces.join('')) fail('another payload');
  await close(socket);
}

async function ping() {
  const socket = await open();
  for (const payload of ['', 'ping', Buffer.alloc(125, 0xff)]) {
    const pong = once(socket, 'pong');
    socket.ping(payload);
    if (!(await pong)[0].equals(Buffer.from(payload))) fail('another pong payload');
  }
  socket.pong('unsolicited');
  await sendAndCompare(socket, 'after');
  await close(socket);
}

async function closing(code, reason) {
  const socket = await open();
  await close(socket, code, reason);
}

async function closingWithoutCode() {
  const socket = await open();
  const closed = once(socket, 'close');
  socket.close();
  const [code] = await closed;
  if (code !== 1005) fail(`close code ${code}, expected none`);
}

async function concurrent(count, rounds) {
  const one = async (number) => {
    const socket = await open();
    for (let i = 0; i < rounds; ++i) await sendAndCompare(socket, `${number} ${i}`);
    await close(socket);
  };
  await Promise.all(Array.from({ length: count }, (_, number) => one(number)));
}

async function pipelined(count) {
  const socket = await open();
  let next = 0;
  const all = new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('close', (code) => reject(new Error(`closed with ${code} after ${next}`)));
    socket.on('message', (data) => {
      if (data.toString() !== String(next++)) reject(new Error('out of order'));
      if (next === count) resolve();
    });
  });
  for (let i = 0; i < count; ++i) socket.send(String(i));
  await all;
  await close(socket);
}

async function check(name, test) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('timeout')), 60000); });
  try {
    await Promise.race([test(), late]);
    ++passed;
    console.log('ok', name);
  } catch (error) {
    ++failed;
    console.log('FAILED', name, error.message);
  } finally {
    clearTimeout(timer);
  }
}

async function main() {
  for (const size of sizes) {
    await check(`text of ${size} bytes`, () => echo('t'.repeat(size)));
    await check(`binary of ${size} bytes`, () => echo(crypto.randomBytes(size)));
  }
  await check('text in many scripts', () => echo(scripts));
  await check('large text in many scripts', () => echo(scripts.repeat(10000)));
  await check('no compression offered', () => echo(scripts, { perMessageDeflate: false }));
  await check('fragmented text', () => fragmented([...scripts]));
  await check('fragmented text with empty fragments', () => fragmented(['', 'a'.repeat(70000), '', 'b']));
  await check('ping and pong', ping);
  await check('close 1000', () => closing(1000, ''));
  await check('close 1001 with a reason', () => closing(1001, 'going away'));
  await check('close 4999 with a reason in many scripts', () => closing(4999, 'água 日本語 🌊'));
  await check('close without a code', closingWithoutCode);
  await check('50 connections at the same time, 20 echoes each', () => concurrent(50, 20));
  await check('1000 pipelined texts', () => pipelined(1000));
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

main();
