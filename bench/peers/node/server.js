// An echo server with ws, with the native masking that its manual recommends: `node server.js [--port N] [--cert FILE
// --key FILE]`.
//
// Without compression. A message on /broadcast goes to all connections of that path.
'use strict';

const fs = require('fs');
const https = require('https');
const { WebSocketServer } = require('ws');

function option(name) {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
}

const place = { host: '127.0.0.1', port: Number(option('--port') ?? 0), backlog: 4096 };
const secure = option('--cert') &&
  https.createServer({ cert: fs.readFileSync(option('--cert')), key: fs.readFileSync(option('--key')) });
const members = new Set();

const server = new WebSocketServer({
  ...(secure ? { server: secure } : place),
  perMessageDeflate: false,
  maxPayload: 64 << 20,
});

server.on('listening', () => console.log(`listening ws://127.0.0.1:${server.address().port}`));
if (secure) secure.listen(place);
server.on('connection', (socket, request) => {
  socket.on('error', () => socket.terminate());
  if (request.url !== '/broadcast') {
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    return;
  }
  members.add(socket);
  socket.on('close', () => members.delete(socket));
  socket.on('message', (data, binary) => {
    for (const member of members) member.send(data, { binary });
  });
});
process.on('SIGTERM', () => process.exit(0));
