// The page that levada-echo serves at "/": it opens a WebSocket to its own server and shows round trips.
#pragma once

#include <string_view>

namespace levada::tools {

inline constexpr std::string_view echo_page = R"html(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>levada-echo</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 40rem; margin: 2rem auto; padding: 0 1rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }
  dd { margin: 0; font-variant-numeric: tabular-nums; }
  form { display: flex; gap: .5rem; }
  input { flex: 1; font: inherit; padding: .25rem .5rem; }
  button { font: inherit; }
  ol { padding-left: 1.5rem; overflow-wrap: anywhere; }
</style>
<h1>levada-echo</h1>
<dl>
  <dt>connection<dd id="state">connecting
  <dt>round trips<dd id="count">0
  <dt>last<dd id="last">-
  <dt>median<dd id="median">-
  <dt>99 %<dd id="p99">-
</dl>
<form id="form"><input id="text" aria-label="message" placeholder="say something"><button>Send</button></form>
<ol id="said" reversed></ol>
<script>
  const at = id => document.getElementById(id);
  const socket = new WebSocket((location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + '/');
  const trips = [];
  let sent = 0;
  const trip = () => { sent = performance.now(); socket.send('round trip ' + trips.length); };
  const show = ms => ms.toFixed(3) + ' ms';
  const report = () => {
    const sorted = [...trips].sort((a, b) => a - b);
    at('count').textContent = trips.length;
    at('last').textContent = show(trips[trips.length - 1]);
    at('median').textContent = show(sorted[sorted.length >> 1]);
    at('p99').textContent = show(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))]);
  };
  socket.onopen = () => { at('state').textContent = 'open'; trip(); };
  socket.onclose = event => { at('state').textContent = 'closed, code ' + event.code; };
  socket.onmessage = event => {
    if (event.data === 'round trip ' + trips.length) {
      trips.push(performance.now() - sent);
      report();
      if (trips.length < 1000) setTimeout(trip, trips.length < 100 ? 0 : 100);
    } else {
      const item = document.createElement('li');
      item.textContent = event.data;
      at('said').prepend(item);
    }
  };
  at('form').onsubmit = event => {
    event.preventDefault();
    socket.send(at('text').value);
    at('text').value = '';
  };
</script>
</html>
)html";

}  // namespace levada::tools
