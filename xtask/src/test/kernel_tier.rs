//! The kernel tier: the node agent's kernel tests on this machine's kernel and in VMs on Debian's.

use std::num::NonZero;
use std::thread;

use anyhow::Result;

use super::binaries::{self, TestBinary};
use super::report::{Report, Row};
use super::runner::{self, Show};
use super::vm_jobs::{self, Job};
use crate::process::{command, step};
use crate::vm;

/// The oldest kernel that the product promises: all tests run on it.
const WHOLE: &str = "6.1";
/// One in between. Where this machine's is newer, and so runs all tests with tcx, it runs what the verifier, systemd or `fq` decides.
const BRIEF: &str = "6.12";
/// Those tests, by parts of their names.
const BRIEF_TESTS: [&str; 3] = ["load::", "systemd", "limits::"];
/// Tried and reported; they do not decide the result.
const TRIED: [&str; 3] = ["5.10", "6.18", "7.x"];
/// Seconds for the tests on this machine: four times what they take on two usual processors.
const HERE: u64 = 1500;
/// Tests that measure rates, by a part of their names.
const MEASURES: &str = "shaping";

/// Runs the tier: on this machine, and whole on these kernels, or, where none are named, on those that a change must pass.
pub fn run(report: &mut Report, kernels: Option<&[String]>, all: bool, filter: &[String]) {
    let binaries = match binaries::build("node-agent", "kernel") {
        Ok(binaries) => binaries,
        Err(error) => return report.add(Row::unable("kernel", &error)),
    };
    report.add(here(&binaries, filter));
    let jobs: Result<Vec<_>> = match kernels {
        Some(kernels) => {
            let named = kernels.iter().filter(|kernel| !kernel.is_empty());
            named.map(|kernel| whole(kernel, &binaries, filter)).collect()
        }
        None if filter.is_empty() && is_newer(&release(), BRIEF) => {
            whole(WHOLE, &binaries, filter).and_then(|whole| Ok(vec![whole, brief(BRIEF)?]))
        }
        None => [WHOLE, BRIEF].iter().map(|kernel| whole(kernel, &binaries, filter)).collect(),
    };
    match jobs {
        Ok(jobs) => {
            let jobs: Vec<_> = jobs.into_iter().flatten().collect();
            vm_jobs::run(&jobs, &binaries, processors()).into_iter().for_each(|row| report.add(row));
        }
        Err(error) => report.add(Row::unable("kernel in VMs", &error)),
    }
    for kernel in TRIED.iter().filter(|_| all) {
        match whole(kernel, &binaries, filter) {
            Ok(jobs) => vm_jobs::run(&jobs, &binaries, processors())
                .into_iter()
                .for_each(|row| report.add(Row { required: false, ..row })),
            Err(error) => {
                report.add(Row { required: false, ..Row::unable(&format!("kernel {kernel}"), &error) })
            }
        }
    }
}

/// An emulated machine keeps one processor busy, and 2 GiB.
fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(8)
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether a kernel's release (`6.18.44-1`) is of a later series than this (`6.12`).
fn is_newer(release: &str, series: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-']).take(2).map_while(|number| number.parse().ok()).collect()
    };
    numbers(release) > numbers(series)
}

/// All tests on a kernel, divided among as many VMs as there are processors; who asks for some tests gets these, in one. What measures
/// runs by itself, one test after the other, since a test beside it takes a processor that it needs; above all where there is but an
/// emulated one.
fn whole(kernel: &str, binaries: &[TestBinary], filter: &[String]) -> Result<Vec<Job>> {
    vm::fetch(kernel)?;
    let tier = format!("kernel {kernel}");
    if !filter.is_empty() {
        return Ok(vec![Job::new(kernel, tier, filter.to_vec())]);
    }
    let mut parts = vec![vec!["--exact".to_owned()]; processors()];
    let names = names(binaries)?;
    let others = names.into_iter().filter(|name| !name.contains(MEASURES));
    for (number, name) in others.enumerate() {
        let part = number % parts.len();
        parts[part].push(name);
    }
    let part = |(number, names)| Job::new(kernel, format!("{tier} part {}", number + 1), names);
    let mut jobs: Vec<_> = parts.into_iter().enumerate().map(part).collect();
    jobs.push(measuring(kernel));
    Ok(jobs)
}

fn brief(kernel: &str) -> Result<Vec<Job>> {
    vm::fetch(kernel)?;
    let tests = BRIEF_TESTS.map(str::to_owned).to_vec();
    Ok(vec![Job::new(kernel, format!("kernel {kernel} in brief"), tests), measuring(kernel)])
}

fn measuring(kernel: &str) -> Job {
    Job::new(
        kernel,
        format!("kernel {kernel} {MEASURES}"),
        vec![MEASURES.to_owned(), "--test-threads=1".to_owned()],
    )
}

/// The names of all tests.
fn names(binaries: &[TestBinary]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for binary in binaries {
        let list = command(&binary.program, ["--list", "--format", "terse"]);
        let listed = step("listing the kernel tests", list).limit(60).capture()?;
        names.extend(listed.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())));
    }
    Ok(names)
}

/// Here too what measures runs by itself.
fn here(binaries: &[TestBinary], filter: &[String]) -> Row {
    let runs: Vec<Vec<String>> = if filter.is_empty() {
        [&["--skip", MEASURES][..], &[MEASURES, "--test-threads=1"]]
            .map(|run| run.iter().map(|&argument| argument.to_owned()).collect())
            .to_vec()
    } else {
        vec![filter.to_vec()]
    };
    let tests = binaries.iter().flat_map(|binary| {
        runs.iter().map(move |arguments| {
            let mut test = command(&binary.program, ["--show-output"]);
            binary.prepare(&mut test);
            test.args(arguments);
            test
        })
    });
    runner::run(&format!("kernel {} (here)", release()), tests.collect(), HERE, Show::Everything)
}

#[cfg(test)]
mod tests {
    use super::is_newer;

    #[test]
    fn series_are_compared_by_number() {
        assert!(is_newer("6.18.44-fc-v669", "6.12") && is_newer("7.0.1", "6.12"));
        assert!(!is_newer("6.12.117+deb12-amd64", "6.12") && !is_newer("6.1.0-56-amd64", "6.12"));
        assert!(!is_newer("", "6.12"));
    }
}
