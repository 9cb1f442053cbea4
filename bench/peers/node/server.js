// An echo server with ws, with the native masking that its manual recommends: `node server.js [--port N]`.
//
// Without compression. A message on /broadcast goes to all connections of that path.
'use strict';

const { WebSocketServer } = require('ws');

const at = process.argv.indexOf('--port');
const port = at < 0 ? 0 : Number(process.argv[at + 1]);
const members = new Set();

const server = new WebSocketServer({
  host: '127.0.0.1',
  port,
  backlog: 4096,
  perMessageDeflate: false,
  maxPayload: 64 << 20,
});

server.on('listening', () => console.log(`listening ws://127.0.0.1:${server.address().port}`));
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
