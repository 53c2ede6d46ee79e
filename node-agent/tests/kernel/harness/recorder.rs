//! Who listens in the world: every frame that arrives there.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use l7egg_node_agent::netns::Netns;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;

/// What is on its way arrives within.
const IN_FLIGHT: Duration = Duration::from_millis(30);

/// A frame, and when it came to the kernel; it may be read much later.
struct Arrived {
    at: Duration,
    frame: Vec<u8>,
}

/// Records until it is dropped.
pub struct Recorder {
    frames: Arc<Mutex<Vec<Arrived>>>,
    /// What arrived before is forgotten.
    since: Mutex<Duration>,
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
        Self { frames, since: Mutex::default(), stop, thread: Some(thread) }
    }

    /// Forgets what has arrived, also what has not been read yet.
    pub fn clear(&self) {
        *self.since.lock().expect("no panic while it is held") = now();
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
        let since = *self.since.lock().expect("no panic while it is held");
        let frames = self.frames.lock().expect("no panic while it is held");
        frames.iter().filter(|arrived| arrived.at >= since).map(|arrived| arrived.frame.clone()).collect()
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
        let socket = OwnedFd::from_raw_fd(fd);
        setsockopt(&socket, ReceiveTimestampns, &true).expect("times of frames");
        socket
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<Arrived> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let (fd, mut parts) = (socket.as_raw_fd(), [IoSliceMut::new(buffer)]);
    let got = recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut control), MsgFlags::empty()).ok()?;
    let (bytes, from) = (got.bytes, got.address?);
    let at = got.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    // What the world itself sends, or says to itself, has not arrived from the pod.
    let is_ours = from.pkttype() == libc::PACKET_OUTGOING || from.ifindex() == 1;
    let at = at.expect("the kernel's time of a frame");
    (bytes > 0 && !is_ours).then(|| Arrived { at, frame: buffer[..bytes].to_vec() })
}

/// By the clock that the kernel tells of frames by.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}
