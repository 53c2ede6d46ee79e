//! A way to the API server for who is in a network that leads nowhere.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use kube::Config;

use crate::harness::{Pod, run};

/// Has the API server be found in the network of the pod's node where it is found here: what comes to its address there is
/// carried over. Until this program ends.
pub fn to_api_server(config: &Config, pod: &Pod) -> anyhow::Result<()> {
    let url = &config.cluster_url;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address: IpAddr = host.parse().map_err(|_| anyhow::anyhow!("{url} has no address but a name"))?;
    let server = SocketAddr::from((address, url.port_u16().unwrap_or(443)));
    if !address.is_loopback() {
        run("ip", &["-n", &format!("{}n", pod.uid()), "addr", "add", host, "dev", "lo"]);
    }
    let listener = pod.node_netns().run(|| TcpListener::bind(server))??;
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || carry(near, server));
        }
    });
    Ok(())
}

fn carry(near: TcpStream, server: SocketAddr) -> io::Result<()> {
    let far = TcpStream::connect(server)?;
    let (from, to) = (near.try_clone()?, far.try_clone()?);
    let back = thread::spawn(move || one_way(&to, &from));
    one_way(&near, &far);
    let _ = back.join();
    Ok(())
}

/// Until either side has enough: then neither hears of the other any more, as an agent that was killed says nothing further.
fn one_way(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
