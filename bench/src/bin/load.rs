//! Servers and clients of the benches: see `l7egg_bench::load`.

use clap::{Parser, Subcommand};
use l7egg_bench::load::{Client, run, serve};

/// The traffic that `bench` measures; it starts these programs itself.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The world: DNS, and TCP servers
    Serve,
    /// A client, told by its standard input what to do
    Client(Client),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve => serve(),
        Command::Client(client) => run(&client),
    }
}
