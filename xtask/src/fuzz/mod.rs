//! `cargo xtask fuzz`: random inputs for everything that reads what others wrote, with libFuzzer.
//!
//! The targets are in `fuzz/fuzz_targets`, what they begin with in `fuzz/corpus`. They are compiled without
//! AddressSanitizer, which needs another compiler than the stable one: what they run has no unsafe code. Overflows
//! and broken assertions end them.

mod outcome;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::{command, step};
use crate::setup::{self, Part, cargo_fuzz};
use crate::workspace::{self, absolute};
use outcome::Outcome;
pub use outcome::table;

/// Seconds that one input may take, and MiB of memory for all.
const INPUT_SECONDS: u32 = 10;
const MEMORY_MIB: u32 = 2048;

/// What to fuzz.
#[derive(Args)]
#[command(after_help = "\
Builds the targets with cargo-fuzz and runs as many at a time as there are processors. Inputs that reach new code
are kept in target/fuzz/corpus for the next run; one that fails is written to fuzz/artifacts, and fails the command.

Examples:
  cargo xtask fuzz
  cargo xtask fuzz answer automaton --seconds 3600
  cargo xtask fuzz answer --input fuzz/artifacts/answer/crash-…")]
pub struct FuzzArgs {
    /// Targets; without any, all
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run one target on this input only
    #[arg(long, value_parser = absolute)]
    input: Option<PathBuf>,
}

/// Runs `cargo xtask fuzz`. An error if an input failed.
pub fn run(args: &FuzzArgs) -> Result<()> {
    let known = targets()?;
    for target in &args.targets {
        if !known.contains(target) {
            bail!("there is no fuzz target {target}; there are {}", known.join(", "));
        }
    }
    if let Some(input) = &args.input {
        let [target] = args.targets.as_slice() else { bail!("--input is for one target: name it") };
        build()?;
        let mut command = target_command(target)?;
        command.arg(input);
        return step(format!("{target} on {}", input.display()), command).limit(60).run();
    }
    build()?;
    let outcomes = run_all(if args.targets.is_empty() { &known } else { &args.targets }, args.seconds);
    print!("{}", table(&outcomes));
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.failure.is_some()).collect();
    match failed.len() {
        0 => Ok(()),
        count => bail!("{count} of {} targets failed", outcomes.len()),
    }
}

/// The targets' names.
pub fn targets() -> Result<Vec<String>> {
    let folder = workspace::root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds all targets.
pub fn build() -> Result<()> {
    setup::ensure(&[Part::Fuzz])?;
    let mut cargo =
        command(cargo_fuzz::ensure()?, ["fuzz", "build", "--fuzz-dir", "fuzz", "--sanitizer", "none"]);
    cargo.args(["--target", &triple()]).arg("--target-dir").arg(directory());
    step("building the fuzz targets", cargo).limit(3600).run()
}

/// Runs targets, as many at a time as there are processors, for so many seconds each; by name.
pub fn run_all(targets: &[String], seconds: u32) -> BTreeMap<String, Outcome> {
    let waiting = Mutex::new(targets.iter());
    let outcomes = Mutex::new(BTreeMap::new());
    let next = || waiting.lock().ok().and_then(|mut waiting| waiting.next());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let outcome = run_one(target, seconds);
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.insert(target.clone(), outcome);
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

fn run_one(target: &str, seconds: u32) -> Outcome {
    let started = Instant::now();
    let log = format!("fuzz-{target}");
    let ran = target_command(target).and_then(|mut command| {
        let artifacts = workspace::root().join("fuzz/artifacts").join(target);
        let found = directory().join("corpus").join(target);
        fs::create_dir_all(&artifacts)?;
        fs::create_dir_all(&found)?;
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            // The first is written to, the second only read.
            .arg(found)
            .arg(workspace::root().join("fuzz/corpus").join(target));
        step(format!("fuzzing {target} for {seconds} s"), command)
            .limit(u64::from(seconds) + 120)
            .quietly(&log)
    });
    let text = fs::read(workspace::logs().join(format!("{log}.log"))).unwrap_or_default();
    Outcome::new(&String::from_utf8_lossy(&text), ran.err(), started.elapsed())
}

fn target_command(target: &str) -> Result<Command> {
    let program = directory().join(triple()).join("release").join(target);
    if !Path::new(&program).is_file() {
        bail!("{} is missing, though it was built", program.display());
    }
    Ok(command(program, [] as [&str; 0]))
}

fn directory() -> PathBuf {
    workspace::target().join("fuzz")
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
