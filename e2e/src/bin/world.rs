//! The test world: see `l7egg_e2e::world`.

use std::io::Read;

use clap::{Parser, Subcommand};
use hickory_proto::rr::RecordType;
use l7egg_e2e::world;

/// Plays everything outside the cluster: DNS, TCP and UDP servers on 198.18.0.0/15 and 2001:db8:18::/48.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  world serve
  world ctl set api.shop.test A 30 198.18.0.80 198.18.0.81
  world ctl set www.shop.test CNAME 30 api.shop.test.
  echo 'api.shop.test. 30 IN AAAA 2001:db8:18::80' | world ctl load
  world ctl clear api.shop.test
  dig @198.18.0.53 n1234.ttl5.fresh.test"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM. Needs CAP_NET_ADMIN, CAP_NET_BIND_SERVICE and iproute2.
    Serve,
    /// Change the names of the world on this host.
    #[command(subcommand)]
    Ctl(Control),
}

#[derive(Subcommand)]
enum Control {
    /// Give a name these records of one type, and no others of it.
    Set {
        /// The name, such as api.shop.test.
        name: String,
        /// A, AAAA, CNAME, TXT …
        #[arg(value_name = "TYPE")]
        type_: RecordType,
        /// Seconds.
        ttl: u32,
        /// As in a zone file.
        #[arg(required = true)]
        data: Vec<String>,
    },
    /// Set every record of a zone file.
    Load {
        /// The text of the zone file; standard input if it is left out.
        zone: Option<String>,
    },
    /// Make a name not exist.
    Clear {
        /// The name.
        name: String,
    },
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Arguments::parse().command {
        Command::Serve => tokio::runtime::Runtime::new()?.block_on(world::run()),
        Command::Ctl(control) => world::send(&message(control)?),
    }
}

fn message(control: Control) -> anyhow::Result<hickory_proto::op::Message> {
    match control {
        Control::Set { name, type_, ttl, data } => {
            world::rrset_message(&name, type_, ttl, &data.iter().map(String::as_str).collect::<Vec<_>>())
        }
        Control::Clear { name } => world::rrset_message(&name, RecordType::ANY, 0, &[]),
        Control::Load { zone: Some(zone) } => world::load_message(&zone),
        Control::Load { zone: None } => {
            let mut zone = String::new();
            std::io::stdin().read_to_string(&mut zone)?;
            world::load_message(&zone)
        }
    }
}
