//! Rules: which destinations, on which ports.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

/// One rule: destinations and the ports it is about. Ports belong to their own rule only.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
pub struct EgressRule {
    /// Allow (default) or Deny. A denied destination stays denied whatever other rules say.
    #[serde(default)]
    #[schemars(transform = without_default)]
    pub action: Action,
    /// The destinations. For everything write `[{cidr: 0.0.0.0/0}, {cidr: "::/0"}]`.
    #[schemars(length(min = 1, max = 1000))]
    pub to: Vec<Destination>,
    /// The ports. Not written: every port of every protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<Port>,
}

/// What a rule does with the traffic it matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// The traffic passes.
    #[default]
    Allow,
    /// The traffic is denied, whatever other rules allow.
    Deny,
}

/// One destination: names, or one CIDR.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("has(self.cidr) || has(self.except) || has(self.domainNames) || has(self.domainRegex) || has(self.domainSuffixes)")
    .message("a destination needs names or a cidr: write domainNames or cidr"))]
#[x_kube(validation = Rule::new("!has(self.cidr) || !(has(self.domainNames) || has(self.domainRegex) || has(self.domainSuffixes))")
    .message("a destination is either a cidr (with except) or names: write them as two entries of to"))]
#[x_kube(validation = Rule::new("!has(self.except) || has(self.cidr)")
    .message("except belongs to a cidr: write cidr beside it"))]
#[x_kube(validation = Rule::new("!has(self.cidr) || self.cidr.matches('^[0-9A-Fa-f.:]+/[0-9]{1,3}$')")
    .message("a cidr is address/length, such as 10.0.0.0/8 or 2001:db8::/32; /32 or /128 for one address"))]
pub struct Destination {
    /// DNS names: `api.example.com`, `*.example.com` (one label), `**.example.com` (one or more labels),
    /// `api-*.example.com` (any characters of that label).
    /// They open the addresses that the pod itself learned by asking its own DNS servers for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 256)))]
    pub domain_names: Vec<String>,
    /// Regular expressions over the whole name, in lower case and without the final dot; anchored at both ends:
    /// `(de|en)\.wikipedia\.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 1024)))]
    pub domain_regex: Vec<String>,
    /// Partial names: `ome.com` matches `home.com`, `www.rome.com` and `ome.com` itself; `.ome.com` only names with
    /// whole labels in front.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 256)))]
    pub domain_suffixes: Vec<String>,
    /// An IPv4 or IPv6 network, such as `10.0.0.0/8` or `2001:db8::/32`. A single host is `/32` or `/128`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 43))]
    pub cidr: Option<String>,
    /// Parts of `cidr` that are not meant. They are not denied either: another entry can mean them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 43)))]
    pub except: Vec<String>,
}

/// A port or a range of ports of one protocol.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
#[x_kube(validation = Rule::new("!has(self.endPort) || has(self.port)")
    .message("endPort is the end of a range: write port, its start, too"))]
#[x_kube(validation = Rule::new("!has(self.endPort) || !has(self.port) || self.endPort >= self.port")
    .message("the range is upside down: endPort is below port"))]
#[x_kube(validation = Rule::new("!has(self.protocol) || self.protocol != 'ICMP' || !(has(self.port) || has(self.endPort))")
    .message("ICMP has no ports: write {protocol: ICMP} alone"))]
pub struct Port {
    /// TCP (default), UDP, SCTP or ICMP (which is ICMPv6 as well).
    #[serde(default)]
    #[schemars(transform = without_default)]
    pub protocol: Protocol,
    /// The port, or the first of a range. Not written: every port of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The last port of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub end_port: Option<i32>,
}

/// An API server writes defaults of the schema into objects. In the items of a list, tools that compare an object with its file (Argo CD)
/// take them for changes of somebody else's.
fn without_default(schema: &mut Schema) {
    schema.remove("default");
}

/// Transport protocols that a rule can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP for IPv4 and ICMPv6 for IPv6.
    Icmp,
}
