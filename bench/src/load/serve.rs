//! The world: a DNS server and TCP servers, one thread each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};
use socket2::SockRef;

use super::{CONNECT_PORT, DNS, ECHO_PORT, MESSAGE_MAX, SINK_PORT, answer, stay_on, steady};

/// Serves until the process is ended. Prints a line when all is ready.
pub fn serve() -> Result<()> {
    stay_on(1)?;
    let dns = UdpSocket::bind((DNS, 53)).context("the DNS server")?;
    let listen = |port| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("the server of port {port}"))?;
        steady(&SockRef::from(&listener))?;
        Ok::<_, anyhow::Error>(listener)
    };
    let (connect, echo, sink) = (listen(CONNECT_PORT)?, listen(ECHO_PORT)?, listen(SINK_PORT)?);
    thread::spawn(move || each(&connect, drop));
    thread::spawn(move || each(&echo, |stream| spawn(stream, echo_back)));
    thread::spawn(move || each(&sink, |stream| spawn(stream, forget)));
    println!("ready");
    loop {
        let mut message = [0; MESSAGE_MAX];
        // An error is of one datagram, such as an ICMP message about the last answer.
        let Ok((len, from)) = dns.recv_from(&mut message) else { continue };
        let len = answer(&mut message, len);
        if len > 0 {
            let _ = dns.send_to(&message[..len], from);
        }
    }
}

fn each(listener: &TcpListener, mut take: impl FnMut(TcpStream)) {
    for stream in listener.incoming().flatten() {
        take(stream);
    }
}

fn spawn(stream: TcpStream, work: fn(TcpStream) -> std::io::Result<()>) {
    thread::spawn(move || work(stream));
}

fn echo_back(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 64];
    loop {
        let len = stream.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..len])?;
    }
}

fn forget(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = vec![0; 256 << 10];
    while stream.read(&mut bytes)? > 0 {}
    Ok(())
}
