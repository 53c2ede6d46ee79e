//! Reads the kernel's events: counted, recorded, and told at level debug.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use l7egg_ebpf_common::abi::Event;
use l7egg_policy::ReadSpecs;
use tokio::sync::watch;

use crate::{
    datapath::EventSource,
    explain::Explainer,
    flow_log::{FlowLog, Record},
    metrics::{Metrics, kind},
    reconcile::Outcome,
};

/// How often the ring buffer is read: it has room for 13,000 events, so for 130,000 a second. The programs wake nobody,
/// because that would cost a packet several microseconds.
pub const PERIOD: Duration = Duration::from_millis(100);

/// Reads for as long as the process lives; for a thread of its own.
pub fn run(
    mut source: Box<dyn EventSource>,
    metrics: &Metrics,
    flow_log: &FlowLog,
    mut outcome: watch::Receiver<Arc<Outcome>>,
) {
    loop {
        while let Some(event) = source.next() {
            metrics.event(&event);
            let pod = outcome.borrow().pods.get(&event.subject).map(Arc::clone);
            let names = || source.names(event.subject, event.remote);
            match Record::new(event, pod.as_ref().map(|pod| pod.whose()), names) {
                Some(record) => {
                    if tracing::enabled!(tracing::Level::DEBUG) {
                        tell_refusal(&record, pod.as_deref());
                    }
                    flow_log.add(record);
                }
                None => tell(&event, pod.as_deref()),
            }
        }
        if outcome.has_changed().unwrap_or(false) {
            let now = Arc::clone(&outcome.borrow_and_update());
            flow_log.name(&now.pods);
        }
        thread::sleep(PERIOD);
    }
}

/// Whether what is learned is to be told. Every address that every pod learns is an event then.
#[must_use]
pub fn tells_learned() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

fn tell(event: &Event, pod: Option<&Explainer>) {
    tracing::debug!(
        pod = pod.map_or("", |pod| pod.pod.as_str()),
        remote = %address(event),
        port = event.remote_port,
        protocol = event.protocol,
        "{}",
        kind(event)
    );
}

fn tell_refusal(record: &Record, pod: Option<&Explainer>) {
    let why = pod.map(|pod| record.judgement(pod, &ReadSpecs::default()).why.to_string());
    let names: Vec<String> = record.names.iter().map(|learned| learned.name.to_string()).collect();
    tracing::debug!(
        pod = pod.map_or("", |pod| pod.pod.as_str()),
        remote = %record.address(),
        port = record.event.remote_port,
        protocol = record.event.protocol,
        names = names.join(", "),
        process = record.event.process,
        comm = record.comm().unwrap_or_default(),
        why = why.unwrap_or_default(),
        "{}",
        kind(&record.event)
    );
}

fn address(event: &Event) -> IpAddr {
    IpAddr::from(event.remote)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixDatagram, time::Instant};

    use l7egg_ebpf_common::abi::{Address, EventKind};

    use super::*;
    use crate::flow_log::Learned;

    /// Each datagram is an event.
    struct Datagrams(UnixDatagram);

    impl EventSource for Datagrams {
        fn next(&mut self) -> Option<Event> {
            self.0.recv(&mut [0]).ok()?;
            Some(Event { kind: EventKind::Denied as u32, ..Event::default() })
        }

        fn names(&self, _subject: u32, _address: Address) -> Vec<Learned> {
            Vec::new()
        }
    }

    #[test]
    fn every_event_is_counted_and_recorded() {
        let (kernel, agent) = UnixDatagram::pair().unwrap();
        agent.set_nonblocking(true).unwrap();
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let (_sender, outcome) = watch::channel(Arc::default());
        // The thread ends with the test process, as it does with the agent.
        let flow_log = Arc::new(FlowLog::default());
        let log = Arc::clone(&flow_log);
        thread::spawn(move || run(Box::new(Datagrams(agent)), &metrics, &log, outcome));
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
        // It is counted first.
        let is_recorded =
            || flow_log.since(0, None, &Default::default()).first().is_some_and(|flow| flow.count == 3);
        while !(counted() && is_recorded()) {
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn addresses_as_people_write_them() {
        let event = Event { remote: Address::mapped([192, 0, 2, 1]), ..Event::default() };
        assert_eq!(address(&event).to_string(), "192.0.2.1");
    }
}
