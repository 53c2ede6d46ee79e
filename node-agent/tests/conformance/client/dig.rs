//! dig (BIND) and kdig (Knot DNS), which ask for any record and let one choose how.

use std::net::IpAddr;

use super::{Answer, Edns, Kind, Question};
use crate::cell::{Shortfall, not_applicable};
use crate::environment::Environment;

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Of bind9-dnsutils.
    Dig,
    /// Of knot-dnsutils.
    Kdig,
}

/// Asks, and connects to what it finds.
pub fn ask(
    environment: &Environment,
    tool: Tool,
    over_tcp: bool,
    question: &Question,
) -> Result<Answer, Shortfall> {
    if question.tcp && !over_tcp {
        return not_applicable("a column for UDP");
    }
    if question.edns != Edns::Default && over_tcp {
        return not_applicable("a column for TCP, where answers have any length");
    }
    if question.second_resolver {
        return not_applicable("asks one resolver");
    }
    let kind = match question.kind {
        Kind::A => "A",
        Kind::Aaaa => "AAAA",
        Kind::Https => "HTTPS",
        Kind::Svcb => "SVCB",
        Kind::Both => return not_applicable("asks one question after the other"),
    };
    let mut arguments = vec![format!("@{}", environment.server(question.over_ipv6))];
    let mut option = |option: &str| arguments.push(option.to_owned());
    ["+timeout=3", "+noauthority", "+noadditional"].into_iter().for_each(&mut option);
    option(if tool == Tool::Dig { "+tries=1" } else { "+retry=0" });
    if over_tcp {
        option("+tcp");
    }
    match question.edns {
        Edns::Default => {}
        Edns::Usual => option("+bufsize=1232"),
        Edns::Large => ["+bufsize=4096", "+ignore"].iter().for_each(|each| option(each)),
    }
    match (&question.search, tool) {
        (None, _) => {}
        (Some(_), Tool::Kdig) => return not_applicable("kdig has no search list"),
        (Some(search), Tool::Dig) => {
            environment.pod().set_resolv_conf(&format!("search {search}\noptions ndots:2\n"));
            option("+search");
        }
    }
    match (question.idna, tool) {
        (true, Tool::Dig) => option("+idnin"),
        (false, Tool::Kdig) => option("+noidn"),
        _ => {}
    }
    if question.names.len() > 1 {
        option("+keepopen");
    }
    for name in &question.names {
        arguments.extend([name.clone(), kind.to_owned()]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = environment.run(environment.programs.tool(tool), &arguments);
    Ok(match read(&output) {
        Read::Addresses(addresses) => Answer::Addresses(environment.connect(&addresses)),
        Read::Nothing => Answer::Nothing,
        Read::Failed => Answer::Failed(output),
    })
}

enum Read {
    Addresses(Vec<IpAddr>),
    Nothing,
    Failed,
}

/// Both print records as a zone file has them, and the rest as comments.
fn read(output: &str) -> Read {
    let mut addresses = Vec::new();
    for line in output.lines().filter(|line| !line.starts_with(';')) {
        let mut fields = line.split_whitespace().skip(3);
        match fields.next() {
            Some("A" | "AAAA") => {
                addresses.extend(fields.next().and_then(|data| data.parse::<IpAddr>().ok()));
            }
            Some("HTTPS" | "SVCB") => addresses.extend(fields.flat_map(hints)),
            _ => {}
        }
    }
    let statuses: Vec<_> =
        output.lines().filter_map(|line| line.split_once("status: ")?.1.split([',', ';']).next()).collect();
    match (addresses.is_empty(), statuses.as_slice()) {
        (_, []) => Read::Failed,
        (_, statuses) if statuses.iter().any(|status| !["NOERROR", "NXDOMAIN"].contains(status)) => {
            Read::Failed
        }
        (true, _) => Read::Nothing,
        (false, _) => Read::Addresses(addresses),
    }
}

fn hints(parameter: &str) -> Vec<IpAddr> {
    let hints = parameter.strip_prefix("ipv4hint=").or_else(|| parameter.strip_prefix("ipv6hint="));
    let addresses = hints.unwrap_or_default().trim_matches('"').split(',');
    addresses.filter_map(|address| address.parse().ok()).collect()
}
