//! The benches: see `l7egg_bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use l7egg_bench::report::Report;
use l7egg_bench::{dns, leftovers, packet, shaping, subjects, traffic};

/// Measures what l7egg costs. Needs root; `cargo xtask bench` builds and installs all that it needs.
#[derive(Parser)]
struct Arguments {
    /// Which one
    bench: Bench,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Fail, with exit status 2, if a target is missed
    #[arg(long)]
    check: bool,
    /// Of shaping, only the rows with this in their name, such as _10_4
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Bench {
    Dns,
    Packet,
    Shaping,
    Subjects,
    Traffic,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    leftovers::remove();
    let report: Report = match arguments.bench {
        Bench::Dns => dns::run()?,
        Bench::Packet => packet::run()?,
        Bench::Shaping => shaping::run(arguments.only.as_deref())?,
        Bench::Subjects => subjects::run()?,
        Bench::Traffic => traffic::run()?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    let missed = arguments.check && !report.is_met();
    Ok(if missed { ExitCode::from(2) } else { ExitCode::SUCCESS })
}
