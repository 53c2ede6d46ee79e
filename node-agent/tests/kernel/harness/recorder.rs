//! Who listens in the world: every frame that arrives there.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use l7egg_node_agent::netns::Netns;

/// What is on its way arrives within.
const IN_FLIGHT: Duration = Duration::from_millis(30);

/// Records until it is dropped.
pub struct Recorder {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Listens on every interface of a network namespace.
    pub fn new(netns: &Netns) -> Self {
        // It stays there when the thread that makes it does not.
        let socket = netns.run(packet_socket).expect("to work in the world's namespace");
        let frames = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (frames, stop) = (frames.clone(), stop.clone());
            move || {
                let mut buffer = vec![0; 70_000];
                while !stop.load(Ordering::Relaxed) {
                    if let Some(frame) = receive(&socket, &mut buffer) {
                        frames.lock().expect("no panic while it is held").push(frame);
                    }
                }
            }
        });
        Self { frames, stop, thread: Some(thread) }
    }

    /// Forgets what has arrived.
    pub fn clear(&self) {
        self.frames.lock().expect("no panic while it is held").clear();
    }

    /// Waits until nothing has arrived for as long as what is on its way takes; for a second at most, as an attacker may never be quiet.
    pub fn wait_for_quiet(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        let count = || self.frames.lock().expect("no panic while it is held").len();
        let (mut seen, mut since) = (count(), Instant::now());
        while since.elapsed() < IN_FLIGHT && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            if count() != seen {
                (seen, since) = (count(), Instant::now());
            }
        }
    }

    /// What has arrived since.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.lock().expect("no panic while it is held").clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet socket that hears everything.
fn packet_socket() -> OwnedFd {
    let every = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: makes a descriptor that nobody else owns.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, every) };
    assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
    let (timeout, room) = (libc::timeval { tv_sec: 0, tv_usec: 20_000 }, 64i32 << 20);
    // SAFETY: the options' values are as long as said.
    unsafe {
        let of = |name, value: *const libc::c_void, len| {
            libc::setsockopt(fd, libc::SOL_SOCKET, name, value, len as libc::socklen_t)
        };
        assert_eq!(of(libc::SO_RCVTIMEO, (&raw const timeout).cast(), size_of_val(&timeout)), 0);
        assert_eq!(of(libc::SO_RCVBUFFORCE, (&raw const room).cast(), size_of_val(&room)), 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Vec<u8>> {
    // SAFETY: plain data.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of_val(&from) as libc::socklen_t;
    // SAFETY: buffer and address are as long as said.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut len,
        )
    };
    // What the world itself sends, or says to itself, has not arrived from the pod.
    let is_ours = from.sll_pkttype == libc::PACKET_OUTGOING || from.sll_ifindex == 1;
    (received > 0 && !is_ours).then(|| buffer[..received as usize].to_vec())
}
