//! Echo servers with the WebSocket libraries of Rust: `levada-peers --library NAME [--port N]`; and a client:
//! `levada-peers --library tokio_tungstenite --connect PORT --connections C --bytes B` (client.rs).
//!
//! Each as its documentation's echo example, on Tokio's runtime of one thread. What comes on /broadcast goes to all
//! connections of that path, the bytes shared, by a queue and a writing task for each.

mod client;

use std::future::Future;
use std::sync::Mutex;

use fastwebsockets::{upgrade, FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError};
use futures_util::{future, SinkExt, StreamExt, TryStreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio_tungstenite::tungstenite::handshake::server::{Request as Asked, Response as Answer};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::Message;

const MAX_MESSAGE: usize = 64 << 20;
const BROADCAST: &str = "/broadcast";

/// The queues of the connections of one path.
struct Hub<T>(Mutex<Vec<UnboundedSender<T>>>);

impl<T: Clone> Hub<T> {
    fn join(&self) -> UnboundedReceiver<T> {
        let (queue, outgoing) = unbounded_channel();
        self.0.lock().unwrap().push(queue);
        outgoing
    }

    /// A member that has left is forgotten.
    fn publish(&self, message: T) {
        self.0.lock().unwrap().retain(|member| member.send(message.clone()).is_ok());
    }
}

static FRAMES: Hub<(OpCode, Bytes)> = Hub(Mutex::new(Vec::new()));
static MESSAGES: Hub<Message> = Hub(Mutex::new(Vec::new()));

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

async fn broadcast_fastwebsockets(pending: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let (read, mut write) = pending.await?.split(tokio::io::split);
    let mut read = FragmentCollectorRead::new(read);
    let mut outgoing = FRAMES.join();
    tokio::spawn(tokio::task::unconstrained(async move {
        while let Some((opcode, payload)) = outgoing.recv().await {
            let frame = Frame::new(true, opcode, None, Payload::Borrowed(&payload));
            if write.write_frame(frame).await.is_err() {
                return;
            }
        }
    }));
    loop {
        let frame = read.read_frame(&mut |_| future::ready(Ok::<(), WebSocketError>(()))).await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => FRAMES.publish((frame.opcode, Bytes::copy_from_slice(&frame.payload))),
            _ => {}
        }
    }
}

async fn upgraded(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, pending) = upgrade::upgrade(&mut request)?;
    let broadcast = request.uri().path() == BROADCAST;
    tokio::spawn(tokio::task::unconstrained(async move {
        let _ = if broadcast { broadcast_fastwebsockets(pending).await } else { echo_fastwebsockets(pending).await };
    }));
    Ok(response)
}

async fn serve_fastwebsockets(stream: TcpStream) {
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(upgraded));
    let _ = connection.with_upgrades().await;
}

async fn serve_tungstenite(stream: TcpStream) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let mut broadcast = false;
    let look = |request: &Asked, answer: Answer| {
        broadcast = request.uri().path() == BROADCAST;
        Ok(answer)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(config)).await else {
        return;
    };
    let (mut write, read) = socket.split();
    let mut data = read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    if !broadcast {
        let _ = data.forward(write).await;
        return;
    }
    let mut outgoing = MESSAGES.join();
    tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if write.send(message).await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(message)) = data.next().await {
        MESSAGES.publish(message);
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
    if argument("--connect").is_some() {
        return client::run().await;
    }
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
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}
