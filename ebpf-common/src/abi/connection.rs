//! Connections and flows.

use super::Address;

/// Which side opened a flow or connection.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The pod did, and its policy allowed it.
    Egress = 1,
    /// The other side did.
    Ingress = 2,
    /// Unknown: what leaves is judged. Of a socket that was told to connect, before it has sent anything, and of a
    /// connection that was accepted from the pod itself.
    Unknown = 3,
}

/// Key of `FLOWS`: a UDP or SCTP flow of a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The pod.
    pub subject: u32,
    /// The pod's port.
    pub local_port: u16,
    /// The other side's port.
    pub remote_port: u16,
    /// The other side.
    pub remote: Address,
    /// IP protocol.
    pub protocol: u8,
    /// Zero; but see `ended.rs` for connections that were ended.
    pub reserved: [u8; 3],
}

/// Value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// When its last packet passed, `bpf_ktime_get_boot_ns`.
    pub seen_ns: u64,
    /// Hash of the name that it was allowed by, or 0.
    pub name: u64,
    /// Policy id that allowed it, [`DOUBTED`] or [`OF_NO_POLICY`].
    pub policy: u32,
    /// A [`Direction`].
    pub direction: u32,
}

/// In the place of a policy's id: that the pod opened it is a guess, by its ports. It is forgotten after [`FLOW_IDLE_NS`], whatever
/// comes in meanwhile.
pub const DOUBTED: u32 = u32::MAX;
/// In the place of a policy's id: the pod opened it, before its first policy or under another version's.
pub const OF_NO_POLICY: u32 = 0;

/// Value of the socket storage `CONNECTIONS`: the verdict on a TCP connection. And value of the map
/// `INHERITED`, by socket cookie: connections from before the programs were attached, as far as their packets
/// cannot say what they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Hash of the name that it was allowed by, or 0.
    pub name: u64,
    /// The other side. A socket that was disconnected and connected again has another one.
    pub remote: Address,
    /// The other side's port.
    pub remote_port: u16,
    /// The pod's port.
    pub local_port: u16,
    /// Policy id that allowed it.
    pub policy: u32,
    /// A [`Direction`].
    pub direction: u32,
    /// The pod.
    pub subject: u32,
    /// The generation (map `GENERATION`, which counts changes of any pod's state) in which that was so: as long as it
    /// lasts nothing has to be asked again. 0 where every packet is to be looked at.
    pub generation: u64,
    /// The pod's address, once the backstop has seen that it is one of the pod's own; zeroes before.
    pub own: Address,
}

/// Value of the socket storage `ASKED`: what the program that uses the socket last asked for, see
/// [`super::SOCKET_BALANCER`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: u16,
    /// An [`AskedBy`].
    pub by: u16,
    /// [`DISTRUSTED`], [`ANSWERS_DISTRUSTED`] or both.
    pub distrusted: u16,
    /// 1 if it has asked by connect(2).
    pub connected: u16,
}

/// Of a socket that may send elsewhere than it asks for: what it asks for is not believed any more.
pub const DISTRUSTED: u16 = 1;
/// Of a socket that talks to others than resolvers, too: what arrives is not believed to be a resolver's.
pub const ANSWERS_DISTRUSTED: u16 = 2;

/// How a program asks for a destination.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// connect(2).
    Connect = 1,
    /// sendmsg(2) with an address.
    Send = 2,
}

/// How long a UDP or SCTP flow without packets is remembered, in ns (180 s, as Linux conntrack's
/// `nf_conntrack_udp_timeout_stream` was when it was chosen).
pub const FLOW_IDLE_NS: u64 = 180_000_000_000;
