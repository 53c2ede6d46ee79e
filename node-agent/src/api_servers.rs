//! Where the API server is, for the node's guard: by the client's own configuration, and by the endpoints of the Service
//! `kubernetes` in `default`.

use std::{net::SocketAddr, sync::mpsc};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Endpoints;
use kube::{
    Client,
    api::Api,
    runtime::{WatchStreamExt, watcher},
};
use l7egg_daemon::{pauses::Pauses, revisions::Revisions};

use crate::{causes::causes, client::watched, guard::ApiServers, reconcile::Input};

const SERVICE: &str = "kubernetes";

/// Tells where the API server is, and whenever that changes. `known` are addresses that it has in any case.
pub async fn watch(client: Client, revisions: Revisions, known: ApiServers, inputs: mpsc::Sender<Input>) {
    let api: Api<Endpoints> = Api::namespaced(client, "default");
    let config = watched().fields(&format!("metadata.name={SERVICE}"));
    let events = revisions.watcher(api, config).backoff(Pauses::default());
    pin_mut!(events);
    let (mut told, mut warned) = (false, false);
    while let Some(event) = events.next().await {
        if let Err(error) = &event
            && is_refused(error)
            && !(told || warned)
        {
            warned = true;
            tracing::warn!(
                error = causes(error),
                "endpoints of the Service kubernetes cannot be read: for a ClusterEgg with a nodeSelector give the API server's addresses as --api-server"
            );
        }
        let Some(servers) = said(&event, &known, told) else { continue };
        told = true;
        if inputs.send(Input::ApiServers(servers)).is_err() {
            return;
        }
    }
}

/// Where the API server is, as an event says, if it says so. Never nowhere: a node would be cut off with a guard that guards
/// nothing, and without any it waits.
fn said(
    event: &Result<watcher::Event<Endpoints>, watcher::Error>,
    known: &ApiServers,
    told: bool,
) -> Option<ApiServers> {
    let servers: ApiServers = match event {
        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
            let found = servers(object);
            // The last API server takes itself off the list when it ends, to be back at the same place: who is cut off from that
            // meanwhile never hears of it.
            if found.is_empty() && told {
                return None;
            }
            known.iter().copied().chain(found).collect()
        }
        // There are none.
        Ok(watcher::Event::InitDone) if !told => known.clone(),
        // One that does not answer now may do so later: until then what is in force for the node stays.
        Err(error) if !told && is_refused(error) => known.clone(),
        _ => return None,
    };
    Some(servers).filter(|servers| !servers.is_empty())
}

/// Whether the API server will not say it, however often it is asked.
fn is_refused(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error)
    | watcher::Error::WatchStartFailed(error)
    | watcher::Error::WatchFailed(error)) = error
    else {
        return matches!(error, watcher::Error::WatchError(status) if matches!(status.code, 401 | 403 | 404));
    };
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
}

/// The addresses that a client is told to use; a name stands for those that it has now.
pub async fn of_config(config: &kube::Config) -> ApiServers {
    let url = &config.cluster_url;
    let Some(host) = url.host() else { return ApiServers::new() };
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the API server's name has no address now: a ClusterEgg with a nodeSelector goes by the endpoints of the Service kubernetes");
            ApiServers::new()
        }
    }
}

/// Each address with each of its TCP ports.
fn servers(endpoints: &Endpoints) -> ApiServers {
    let subsets = endpoints.subsets.iter().flatten();
    let each = subsets.flat_map(|subset| {
        let ports: Vec<u16> = subset
            .ports
            .iter()
            .flatten()
            .filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP")
            .filter_map(|port| u16::try_from(port.port).ok())
            .collect();
        let addresses = subset.addresses.iter().flatten().chain(subset.not_ready_addresses.iter().flatten());
        addresses
            .filter_map(|address| address.ip.parse().ok())
            .flat_map(move |ip| ports.clone().into_iter().map(move |port| SocketAddr::new(ip, port)))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_address_with_every_port() {
        let endpoints = json!({
            "metadata": {"name": "kubernetes"},
            "subsets": [{
                "addresses": [{"ip": "192.168.77.1"}, {"ip": "fd00:77::1"}],
                "notReadyAddresses": [{"ip": "192.168.77.3"}],
                "ports": [{"port": 6443, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            }],
        });
        let found = servers(&serde_json::from_value(endpoints).unwrap());
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["192.168.77.1:6443", "192.168.77.3:6443", "[fd00:77::1]:6443"]);
        assert!(servers(&Endpoints::default()).is_empty());
    }

    #[test]
    fn a_guard_that_guards_nothing_is_never_told() {
        let refusal = |code| {
            let status = kube::core::Status::failure("no", "No").with_code(code);
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
        };
        let known = ApiServers::from(["10.96.0.1:443".parse().unwrap()]);
        let none = Endpoints::default();
        for code in [401, 403, 404] {
            assert_eq!(said(&refusal(code), &ApiServers::new(), false), None);
            assert_eq!(said(&refusal(code), &known, false), Some(known.clone()));
            assert_eq!(said(&refusal(code), &known, true), None);
        }
        assert_eq!(said(&refusal(500), &known, false), None, "it may answer later");
        for event in [watcher::Event::InitDone, watcher::Event::Apply(none)] {
            let event = Ok(event);
            assert_eq!(said(&event, &ApiServers::new(), false), None);
            assert_eq!(said(&event, &known, false), Some(known.clone()));
            assert_eq!(said(&event, &known, true), None, "an API server that ends is soon back");
        }
    }
}
