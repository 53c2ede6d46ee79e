use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use axum::routing::get;
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::*;

async fn started(bounds: Bounds) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/healthz", get(|| async { "ok" }));
    (address, tokio::spawn(serve_within(bounds, listener, router)))
}

async fn silent(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn healthz(address: SocketAddr) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    timeout(Duration::from_secs(2), asked).await.expect("an answer, and the end of the connection")
}

/// Whether it was closed by the other side within this.
async fn is_closed(stream: &mut TcpStream, within: Duration) -> bool {
    timeout(within, stream.read(&mut [0; 512])).await.is_ok()
}

/// How many are closed by the other side, once it is so many or a long time has passed.
async fn closed(streams: &mut [TcpStream], wanted: usize) -> usize {
    let start = Instant::now();
    loop {
        let each = streams.iter_mut().map(|stream| is_closed(stream, Duration::from_millis(500)));
        let closed = join_all(each).await.into_iter().filter(|is_closed| *is_closed).count();
        if closed >= wanted || start.elapsed() > Duration::from_secs(30) {
            return closed;
        }
    }
}

#[tokio::test]
async fn a_crowd_of_silent_ones_neither_keeps_a_probe_from_its_answer_nor_grows() {
    let (address, server) = started(BOUNDS).await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(silent(Ipv4Addr::new(127, 0, 0, 9), address).await);
    }
    let start = Instant::now();
    assert!(healthz(address).await.starts_with("HTTP/1.1 200"));
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(closed(&mut crowd, 300 - BOUNDS.connections).await >= 300 - BOUNDS.connections);
    server.abort();
}

#[tokio::test]
async fn whoever_has_most_gives_way_not_another_who_came_before() {
    let bounds = Bounds { connections: 8, ..BOUNDS };
    let (address, server) = started(bounds).await;
    let mut first = silent(Ipv4Addr::LOCALHOST, address).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(silent(Ipv4Addr::new(127, 0, 0, 9), address).await);
    }
    assert_eq!(closed(&mut crowd, 20 - 7).await, 20 - 7);
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.abort();
}

#[tokio::test]
async fn who_says_nothing_or_not_all_is_let_go() {
    let bounds = Bounds { head: Duration::from_millis(200), ..BOUNDS };
    let (address, server) = started(bounds).await;
    let mut silent_one = silent(Ipv4Addr::LOCALHOST, address).await;
    let mut slow = silent(Ipv4Addr::LOCALHOST, address).await;
    slow.write_all(b"GET /healthz HT").await.unwrap();
    for stream in [&mut silent_one, &mut slow] {
        assert!(is_closed(stream, Duration::from_secs(2)).await);
    }
    server.abort();

    let (address, server) = started(Bounds { whole: Duration::from_millis(200), ..BOUNDS }).await;
    assert!(is_closed(&mut silent(Ipv4Addr::LOCALHOST, address).await, Duration::from_secs(2)).await);
    server.abort();
}
