//! Bulk TCP from a pod, with a ping beside it.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use l7egg_node_agent::netns::Netns;

use crate::pod::Pod;

/// Address of the world's end of the pod's interface.
const WORLD: &str = "10.80.0.1";
/// Payload of a full frame with TCP timestamps, and that frame's length.
const PAYLOAD: u64 = 1448;
const FRAME: u64 = 1514;

/// What was measured.
pub struct Bulk {
    /// When each part arrived, from the start on, and how many bytes of payload it had, by flow.
    arrivals: Vec<Vec<(Duration, u64)>>,
    /// Round-trip times in ms, in order of length.
    pub pings: Vec<f64>,
    /// TCP segments sent again.
    pub retransmits: u64,
}

impl Bulk {
    /// Sends for some time over so many connections.
    pub fn run(pod: &Pod, flows: usize, time: Duration) -> Result<Self> {
        let netns = |name: &str| Netns::open(&PathBuf::from("/run/netns").join(name));
        let inside = netns(pod.ns().name())?;
        let outside = netns(&pod.ns().name().replace("shaped", "world"))?;
        let listener = outside.run(|| TcpListener::bind((WORLD, 0)))??;
        let port = listener.local_addr()?.port();
        let before = retransmits(pod)?;
        let mut pairs = Vec::new();
        for _ in 0..flows {
            let sender = inside.run(|| TcpStream::connect((WORLD, port)))??;
            sender.set_write_timeout(Some(Duration::from_millis(100)))?;
            pairs.push((sender, listener.accept()?.0));
        }
        let stop = &AtomicBool::new(false);
        let start = Instant::now();
        let (arrivals, pings) = thread::scope(|scope| -> Result<_> {
            let mut receivers = Vec::new();
            for (sender, receiver) in pairs {
                receivers.push(scope.spawn(move || receive(receiver, start, stop)));
                scope.spawn(move || send(sender, stop));
            }
            let pings = ping(pod, time);
            thread::sleep((start + time).saturating_duration_since(Instant::now()));
            stop.store(true, Ordering::Relaxed);
            let arrivals = receivers.into_iter().map(|receiver| receiver.join().unwrap_or_default());
            Ok((arrivals.collect(), pings?))
        })?;
        Ok(Self { arrivals, pings, retransmits: retransmits(pod)? - before })
    }

    /// Bits per second on the wire in a stretch of time.
    pub fn rate(&self, from: Duration, to: Duration) -> f64 {
        let bytes: u64 = self.arrivals.iter().map(|flow| payload(flow, from, to)).sum();
        (bytes * FRAME / PAYLOAD) as f64 * 8.0 / (to - from).as_secs_f64()
    }

    /// Jain's index of the flows' shares: 1 if all got the same.
    pub fn jain(&self) -> f64 {
        let share = |flow: &Vec<(Duration, u64)>| payload(flow, Duration::ZERO, Duration::MAX) as f64;
        let shares: Vec<f64> = self.arrivals.iter().map(share).collect();
        let (sum, squares) =
            shares.iter().fold((0.0, 0.0), |(sum, squares), share| (sum + share, squares + share * share));
        if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) }
    }
}

/// Pings the world ten times a second; the round-trip times in ms, in order of length. The kernel's own
/// times, so that the waiting of programs for a processor does not count.
pub fn ping(pod: &Pod, time: Duration) -> Result<Vec<f64>> {
    let count = (time.as_millis() / 100).to_string();
    let mut command = pod.ns().command("ping".as_ref());
    command.args(["-n", "-i", "0.1", "-c", &count, "-W", "2", "-s", "16", WORLD]);
    let output = command.output().context("ping (package iputils-ping)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let time = |line: &str| line.split_once("time=")?.1.split(' ').next()?.parse().ok();
    let mut times: Vec<f64> = text.lines().filter_map(time).collect();
    if times.is_empty() {
        bail!("no ping came back: {text}");
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The value that so many in a hundred are not above (nearest rank), of a sorted sample.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn payload(flow: &[(Duration, u64)], from: Duration, to: Duration) -> u64 {
    flow.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, bytes)| bytes).sum()
}

fn send(mut sender: TcpStream, stop: &AtomicBool) {
    let block = vec![0u8; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        match sender.write(&block) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            _ => {}
        }
    }
}

/// Closing a socket with unread data resets the connection: what is left in it is not sent any more.
fn receive(mut receiver: TcpStream, start: Instant, stop: &AtomicBool) -> Vec<(Duration, u64)> {
    let mut arrived = Vec::new();
    let mut block = vec![0u8; 256 * 1024];
    let _ = receiver.set_read_timeout(Some(Duration::from_millis(100)));
    while !stop.load(Ordering::Relaxed) {
        match receiver.read(&mut block) {
            Ok(0) => break,
            Ok(bytes) => arrived.push((start.elapsed(), bytes as u64)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    arrived
}

/// `RetransSegs` of the pod's TCP.
fn retransmits(pod: &Pod) -> Result<u64> {
    let output = pod.ns().command("cat".as_ref()).arg("/proc/net/snmp").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' '));
    let (Some(mut names), Some(mut values)) = (tcp.next(), tcp.next()) else { bail!("no TCP in {text}") };
    let index = names.position(|name| name == "RetransSegs").context("no RetransSegs")?;
    Ok(values.nth(index).context("no RetransSegs")?.parse()?)
}
