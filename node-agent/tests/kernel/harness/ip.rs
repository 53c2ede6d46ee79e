//! `ip`, several commands to a process: in an emulated machine starting it takes longer than what it does.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs commands on this machine, as a file of them has them, one to a line.
pub fn host(lines: &[&str]) {
    run(Command::new("ip"), lines).unwrap_or_else(|error| panic!("{error}"));
}

/// Runs them in a network namespace.
pub fn inside(ns: &str, lines: &[&str]) {
    let mut command = Command::new("ip");
    command.args(["-n", ns]);
    run(command, lines).unwrap_or_else(|error| panic!("{error}"));
}

/// Removes network namespaces; one that cannot be removed stays, and this says so.
pub fn remove_netns(names: &[String]) {
    let lines: Vec<String> = names.iter().map(|name| format!("netns del {name}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    if let Err(error) = run(Command::new("ip"), &lines) {
        eprintln!("{error}");
    }
}

fn run(mut command: Command, lines: &[&str]) -> Result<(), String> {
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |what: String| format!("{lines:?}: {what}; these tests need root and iproute2");
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let written = child.stdin.take().map(|mut input| input.write_all(lines.join("\n").as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() && matches!(written, Some(Ok(()))) {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
