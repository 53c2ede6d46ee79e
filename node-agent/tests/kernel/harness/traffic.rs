//! Bulk TCP from a pod to the world, with a ping beside it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Pod;

const WORLD: &str = "10.77.0.1";
/// Payload of a full frame with TCP timestamps, and that frame's length.
pub const PAYLOAD: u64 = 1448;
pub const FRAME: u64 = 1514;
const PING_EVERY: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// When it began.
    pub start: Instant,
    /// When each part arrived, from the start on, and how many bytes of payload it had, by flow.
    arrivals: Vec<Vec<(Duration, u64)>>,
    /// Round-trip times of the pings in milliseconds, in order of length.
    pub pings: Vec<f64>,
    /// TCP segments sent again.
    pub retransmits: u64,
}

impl Traffic {
    /// Bits per second on the wire in a stretch of time.
    pub fn rate(&self, from: Duration, to: Duration) -> f64 {
        let bytes: u64 = (0..self.arrivals.len()).map(|flow| self.payload(flow, from, to)).sum();
        (bytes * FRAME / PAYLOAD) as f64 * 8.0 / (to - from).as_secs_f64()
    }

    /// Jain's index of the flows' shares: 1 if all got the same.
    pub fn jain(&self, until: Duration) -> f64 {
        let shares: Vec<f64> =
            (0..self.arrivals.len()).map(|flow| self.payload(flow, Duration::ZERO, until) as f64).collect();
        let sum: f64 = shares.iter().sum();
        let squares: f64 = shares.iter().map(|share| share * share).sum();
        if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) }
    }

    /// A percentile of the pings, in milliseconds.
    pub fn ping(&self, percent: usize) -> f64 {
        let last = self.pings.len().saturating_sub(1);
        self.pings.get(last * percent / 100).copied().unwrap_or(f64::NAN)
    }

    fn payload(&self, flow: usize, from: Duration, to: Duration) -> u64 {
        let within = self.arrivals[flow].iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, bytes)| bytes).sum()
    }
}

/// Sends for some time over so many connections.
pub fn bulk(pod: &Pod, flows: usize, time: Duration) -> Traffic {
    let listener =
        pod.world_netns().run(|| TcpListener::bind((WORLD, 0))).expect("the world").expect("a listener");
    let port = listener.local_addr().expect("its address").port();
    let before = retransmits(pod);
    let stop = AtomicBool::new(false);
    let arrivals = Mutex::new(Vec::new());
    let netns = pod.netns();
    let (arrivals_now, stop_now) = (&arrivals, &stop);
    let (start, pings) = thread::scope(|scope| {
        let senders: Vec<TcpStream> = (0..flows)
            .map(|_| {
                let sender = netns.run(|| TcpStream::connect((WORLD, port)));
                sender.expect("the pod").expect("a connection")
            })
            .collect();
        let receivers: Vec<TcpStream> =
            (0..flows).map(|_| listener.accept().expect("a connection").0).collect();
        let start = Instant::now();
        for receiver in receivers {
            scope.spawn(move || {
                let arrived = receive(receiver, start);
                arrivals_now.lock().expect("no panic").push(arrived);
            });
        }
        for sender in senders {
            scope.spawn(move || send(sender, stop_now));
        }
        let pings = ping(pod, time);
        thread::sleep((start + time).saturating_duration_since(Instant::now()));
        stop.store(true, Ordering::Relaxed);
        (start, pings)
    });
    Traffic {
        start,
        arrivals: arrivals.into_inner().expect("no panic"),
        pings,
        retransmits: retransmits(pod) - before,
    }
}

/// Pings the world for some time; the round-trip times in milliseconds, in order of length.
pub fn ping(pod: &Pod, time: Duration) -> Vec<f64> {
    let count = (time.as_millis() / PING_EVERY.as_millis()).to_string();
    let interval = PING_EVERY.as_secs_f64().to_string();
    // Ten bytes of payload suffice; what has not come back two seconds after the last is lost.
    let arguments = ["-n", "-i", &interval, "-c", &count, "-W", "2", "-s", "16", WORLD];
    let output = pod.command("ping".as_ref(), &arguments).output().expect("ping (package iputils-ping)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut times: Vec<f64> =
        text.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next()?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Until told to stop; what is in the socket then is of no interest.
pub fn send(mut sender: TcpStream, stop: &AtomicBool) {
    sender.set_write_timeout(Some(Duration::from_millis(100))).expect("a socket");
    let block = vec![0u8; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        match sender.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    let _ = nix::sys::socket::setsockopt(
        &sender,
        nix::sys::socket::sockopt::Linger,
        &libc::linger { l_onoff: 1, l_linger: 0 },
    );
}

/// When each part arrived, and its bytes of payload, until the sender ends.
pub fn receive(mut receiver: TcpStream, start: Instant) -> Vec<(Duration, u64)> {
    let mut arrived = Vec::new();
    let mut block = vec![0u8; 256 * 1024];
    loop {
        match receiver.read(&mut block) {
            Ok(0) | Err(_) => return arrived,
            Ok(bytes) => arrived.push((start.elapsed(), bytes as u64)),
        }
    }
}

/// `RetransSegs` of the pod's TCP.
fn retransmits(pod: &Pod) -> u64 {
    let netns = format!("{}p", pod.uid());
    let output = Command::new("ip")
        .args(["netns", "exec", &netns, "cat", "/proc/net/snmp"])
        .stderr(Stdio::inherit())
        .output()
        .expect("ip netns exec");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' '));
    let (Some(mut names), Some(mut values)) = (tcp.next(), tcp.next()) else { return 0 };
    let index = names.position(|name| name == "RetransSegs");
    index.and_then(|index| values.nth(index)?.parse().ok()).unwrap_or(0)
}
