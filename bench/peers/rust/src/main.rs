//! Echo servers with the WebSocket libraries of Rust: `levada-peers --library NAME [--port N]`.
//!
//! Each as its documentation's echo example, on Tokio's runtime of one thread.

use std::future::Future;

use fastwebsockets::{upgrade, FragmentCollector, OpCode, WebSocketError};
use futures_util::{future, StreamExt, TryStreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const MAX_MESSAGE: usize = 64 << 20;

type Failure = Box<dyn std::error::Error>;

async fn echo_fastwebsockets(pending: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = pending.await?;
    socket.set_max_message_size(MAX_MESSAGE);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn upgraded(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, pending) = upgrade::upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(async move {
        let _ = echo_fastwebsockets(pending).await;
    }));
    Ok(response)
}

async fn serve_fastwebsockets(stream: TcpStream) {
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(upgraded));
    let _ = connection.with_upgrades().await;
}

async fn serve_tungstenite(stream: TcpStream) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    if let Ok(socket) = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await {
        let (write, read) = socket.split();
        let data = read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
        let _ = data.forward(write).await;
    }
}

async fn accept_each<F>(listener: TcpListener, serve: fn(TcpStream) -> F) -> Result<(), Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

async fn run() -> Result<(), Failure> {
    let port = argument("--port").map_or(Ok(0), |text| text.parse::<u16>())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening ws://{}", listener.local_addr()?);
    match argument("--library").as_deref() {
        Some("fastwebsockets") => accept_each(listener, serve_fastwebsockets).await,
        Some("tokio_tungstenite") => accept_each(listener, serve_tungstenite).await,
        _ => Err("--library fastwebsockets or tokio_tungstenite".into()),
    }
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(run())
}
