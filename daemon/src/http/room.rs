//! Room for so many connections. Where it is full, the oldest of whoever has most gives way: who asks now and then, as a kubelet and
//! Prometheus do, gets an answer however many connections others have.

use std::{collections::HashMap, net::IpAddr};

use tokio::task::{AbortHandle, JoinSet};

/// The connections that are open, each a task. Dropped, it closes them.
pub(super) struct Room {
    most: usize,
    tasks: JoinSet<()>,
    /// In the order in which they came.
    guests: Vec<(Option<IpAddr>, AbortHandle)>,
}

impl Room {
    pub(super) fn of(most: usize) -> Self {
        Room { most, tasks: JoinSet::new(), guests: Vec::with_capacity(most) }
    }

    pub(super) fn let_in(
        &mut self,
        host: Option<IpAddr>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.guests.retain(|(_, task)| !task.is_finished());
        if self.guests.len() >= self.most {
            let (_, task) = self.guests.remove(self.gives_way());
            task.abort();
        }
        self.guests.push((host, self.tasks.spawn(connection)));
    }

    fn gives_way(&self) -> usize {
        let mut of_hosts = HashMap::<_, usize>::new();
        self.guests.iter().for_each(|(host, _)| *of_hosts.entry(*host).or_default() += 1);
        let most = of_hosts.values().max();
        self.guests.iter().position(|(host, _)| of_hosts.get(host) == most).unwrap_or(0)
    }
}
