// An echo server made of npm's ws, for checking_client.cc and deflate_client.cc, which say what its paths do. Prints its URL first; ends on
// SIGTERM. With two arguments, certificate and key, it speaks TLS.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');
const { WebSocketServer } = require('ws');

const [cert, key] = process.argv.slice(2).map((name) => fs.readFileSync(name));
const listener = cert ? https.createServer({ cert, key }) : http.createServer();
const server = new WebSocketServer({
  server: listener,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => offered.has('levada.echo') && 'levada.echo',
  verifyClient: ({ req }, answer) => answer(req.url !== '/refuse', 403, 'no\n'),
});

// Cut in bytes: a fragment may end inside a character.
function sendFragments(socket, data, binary, size) {
  for (let at = 0; at < data.length; at += size) {
    socket.send(data.subarray(at, at + size), { binary, fin: at + size >= data.length });
  }
}

server.on('connection', (socket, request) => {
  const [, verb, code, reason] = request.url.split('/');
  if (verb === 'close') return socket.close(Number(code), decodeURIComponent(reason));
  if (verb === 'ping') {
    socket.on('pong', (data) => { if (data.toString() === 'are you there') socket.send('pong'); });
    socket.ping('are you there');
  }
  socket.on('message', (data, binary) => {
    if (verb === 'fragments') sendFragments(socket, data, binary, 1000);
    else if (verb === 'thirds') sendFragments(socket, data, binary, Math.ceil(data.length / 3));
    else socket.send(data, { binary });
  });
});
listener.listen(0, '127.0.0.1',
  () => console.log(`listening ${cert ? 'wss' : 'ws'}://127.0.0.1:${listener.address().port}`));
process.on('SIGTERM', () => process.exit(0));
