//! Reads the kernel's events: counted, and told at level debug.

use std::{
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd,
    sync::Arc,
};

use l7egg_ebpf_common::abi::Event;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::watch;

use crate::{
    datapath::EventSource,
    metrics::{Metrics, kind},
    reconcile::Outcome,
};

/// Reads for as long as the process lives; for a thread of its own.
pub fn run(mut source: Box<dyn EventSource>, metrics: &Metrics, outcome: &watch::Receiver<Arc<Outcome>>) {
    loop {
        match poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "events of the kernel cannot be read: denials are neither counted by kind nor logged");
                return;
            }
        }
        while let Some(event) = source.next() {
            metrics.event(&event);
            if tracing::enabled!(tracing::Level::DEBUG) {
                tell(&event, &outcome.borrow());
            }
        }
    }
}

fn tell(event: &Event, outcome: &Outcome) {
    let pod = outcome.state.pods.iter().find(|pod| pod.subject == Some(event.subject));
    tracing::debug!(
        pod = pod.map_or("", |pod| pod.name.as_str()),
        remote = %address(event),
        port = event.remote_port,
        protocol = event.protocol,
        "{}",
        kind(event)
    );
}

fn address(event: &Event) -> IpAddr {
    Ipv6Addr::from(event.remote).to_canonical()
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::BorrowedFd, unix::net::UnixDatagram},
        thread,
        time::{Duration, Instant},
    };

    use l7egg_ebpf_common::abi::{EventKind, mapped};

    use super::*;

    /// Each datagram is an event.
    struct Datagrams(UnixDatagram);

    impl AsFd for Datagrams {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl EventSource for Datagrams {
        fn next(&mut self) -> Option<Event> {
            self.0.recv(&mut [0]).ok()?;
            Some(Event { kind: EventKind::Denied as u32, ..Event::default() })
        }
    }

    #[test]
    fn every_event_is_counted() {
        let (kernel, agent) = UnixDatagram::pair().unwrap();
        agent.set_nonblocking(true).unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let (_sender, outcome) = watch::channel(Arc::default());
        // The thread ends with the test process, as it does with the agent.
        thread::spawn(move || run(Box::new(Datagrams(agent)), &metrics, &outcome));
        let counted = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text.contains("l7egg_datapath_events_total{kind=\"denied\"} 3")
        };
        for _ in 0..3 {
            kernel.send(&[1]).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        let start = Instant::now();
        while !counted() {
            assert!(start.elapsed() < Duration::from_secs(5));
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn addresses_as_people_write_them() {
        let event = Event { remote: mapped([192, 0, 2, 1]), ..Event::default() };
        assert_eq!(address(&event).to_string(), "192.0.2.1");
    }
}
