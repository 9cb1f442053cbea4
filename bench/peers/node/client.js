// ws as a client, with its native masking: `node client.js --connect PORT --connections C --bytes B`. For each line
// `SECONDS` of the standard input, one message is under way on every connection for so long; then how many came back is
// printed. See bench/peers/clients.
'use strict';

const WebSocket = require('ws');
const readline = require('readline');

const option = (name) => Number(process.argv[process.argv.indexOf(name) + 1]);
const port = option('--connect');
const connections = option('--connections');
const payload = Buffer.from(Array.from({ length: option('--bytes') }, (_, i) => (i * 7 + (i >> 8)) & 255));

let running = false;
let compare = true; // in the first turn
let echoes = 0;
let outstanding = 0;
let open = 0;
const sockets = [];

function giveUp(error) {
  console.error(error.message);
  process.exit(1);
}

function answered(socket, data) {
  if (data.length !== payload.length || (compare && !data.equals(payload))) giveUp(new Error('wrong echo'));
  echoes++;
  if (running) {
    socket.send(payload);
  } else if (--outstanding === 0) {
    compare = false;
    console.log(echoes);
  }
}

function serve() {
  console.log('ready');
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    echoes = 0;
    running = true;
    outstanding = connections;
    for (const socket of sockets) socket.send(payload);
    setTimeout(() => { running = false; }, 1000 * Number(line));
  }).on('close', () => process.exit(0));
}

for (let i = 0; i < connections; i++) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`, { perMessageDeflate: false, maxPayload: 64 << 20 });
  sockets.push(socket);
  socket.on('error', giveUp);
  socket.on('message', (data) => answered(socket, data));
  socket.on('open', () => { if (++open === connections) serve(); });
}
