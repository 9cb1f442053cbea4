//! tokio-tungstenite as a client: for each line `SECONDS` of the standard input, one message is under way on every
//! connection for so long; then how many came back is printed. See bench/peers/clients.

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::WebSocketStream;

use crate::{argument, Failure};

static RUNNING: AtomicBool = AtomicBool::new(false);

type Socket = WebSocketStream<TcpStream>;

async fn drive(mut socket: Socket, payload: Bytes, compare: bool) -> Result<(Socket, u64), String> {
    let mut echoes = 0;
    loop {
        socket.send(Message::Binary(payload.clone())).await.map_err(|error| error.to_string())?;
        match socket.next().await {
            Some(Ok(Message::Binary(echo))) if echo.len() == payload.len() && (!compare || echo == payload) => echoes += 1,
            other => return Err(format!("wrong echo: {other:?}")),
        }
        if !RUNNING.load(Ordering::Relaxed) {
            return Ok((socket, echoes));
        }
    }
}

fn number(name: &str) -> Result<usize, Failure> {
    Ok(argument(name).ok_or(format!("{name} is missing"))?.parse()?)
}

pub async fn run() -> Result<(), Failure> {
    let port = number("--connect")?;
    let payload: Bytes = (0..number("--bytes")?).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut sockets = Vec::new();
    for _ in 0..number("--connections")? {
        let stream = TcpStream::connect(("127.0.0.1", port as u16)).await?;
        stream.set_nodelay(true)?;
        sockets.push(tokio_tungstenite::client_async(format!("ws://127.0.0.1:{port}/"), stream).await?.0);
    }
    println!("ready");
    let mut compare = true; // in the first turn
    for line in std::io::stdin().lock().lines() {
        let pause = Duration::from_secs_f64(line?.trim().parse()?);
        RUNNING.store(true, Ordering::Relaxed);
        let tasks: Vec<_> =
            sockets.drain(..).map(|socket| tokio::spawn(drive(socket, payload.clone(), compare))).collect();
        tokio::time::sleep(pause).await;
        RUNNING.store(false, Ordering::Relaxed);
        let mut echoes = 0;
        for task in tasks {
            let (socket, count) = task.await??;
            sockets.push(socket);
            echoes += count;
        }
        compare = false;
        println!("{echoes}");
    }
    Ok(())
}
