//! Child processes: what they do in one line, a time limit, and an orderly end on ctrl-C.
//!
//! Every child leads a process group of its own, so that ending it ends what it started.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::workspace;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a step that prints nothing says that it is still at work.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Turns SIGINT, SIGTERM and SIGHUP into the end of the running steps, which then return an error, so that
/// what their callers hold (a cluster, for example) is torn down on the way out.
pub fn end_steps_on_signals() -> Result<()> {
    let stop = || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("xtask: stopping");
    };
    ctrlc::set_handler(stop).context("cannot handle signals")
}

/// One child process and what it is for.
pub struct Step {
    what: String,
    command: Command,
    limit: Duration,
    shielded: bool,
}

/// Starts the description of a step. `what` is shown to people: "building the workspace".
pub fn step(what: impl Into<String>, command: Command) -> Step {
    Step { what: what.into(), command, limit: Duration::from_secs(3600), shielded: false }
}

/// A [`Command`] with arguments, in the workspace's top folder, and without what cargo tells xtask about xtask:
/// build scripts of other crates (ring's) would run again whenever these variables change.
pub fn command<S: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<Path>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(args).current_dir(workspace::root());
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|about| name.to_string_lossy().starts_with(about)) {
            command.env_remove(name);
        }
    }
    command
}

impl Step {
    /// Ends the step after this time with an error.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Lets the step run to its end even after ctrl-C: for tearing things down.
    pub fn shielded(mut self) -> Self {
        self.shielded = true;
        self
    }

    /// Runs it with its output on the terminal.
    pub fn run(mut self) -> Result<()> {
        eprintln!("xtask: {}", self.what);
        let child = self.spawn()?;
        let status = self.wait(child, None)?;
        self.check(status)
    }

    /// Runs it and returns its standard output.
    pub fn capture(mut self) -> Result<String> {
        self.command.stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let mut pipe = child.stdout.take().context("no pipe")?;
        let reader = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        });
        let status = self.wait(child, None)?;
        let text = reader.join().expect("the reader does not panic").with_context(|| self.what.clone())?;
        self.check(status)?;
        Ok(text)
    }

    /// Runs it with its output in a file of [`workspace::logs`], of which the end is shown if it fails.
    /// Says every ten seconds that it is still at work, and in the end how long it took if that was noticeable.
    pub fn quietly(mut self, log: &str) -> Result<()> {
        let path = workspace::logs().join(format!("{log}.log"));
        fs::create_dir_all(workspace::logs())?;
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        self.command.stdout(file.try_clone()?).stderr(file);
        eprintln!("xtask: {} (log: {})", self.what, path.display());
        let started = Instant::now();
        let child = self.spawn()?;
        let status = self.wait(child, Some(HEARTBEAT))?;
        if !status.success() {
            eprintln!("{}", last_lines(&fs::read_to_string(&path).unwrap_or_default(), 25));
        }
        self.check(status)?;
        if started.elapsed() > Duration::from_secs(2) {
            eprintln!("xtask: {}: done in {} s", self.what, started.elapsed().as_secs());
        }
        Ok(())
    }

    /// Runs it and hands over its standard output line by line. Reports how it ended instead of failing.
    pub fn lines(mut self, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
        self.command.stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let pipe = child.stdout.take().context("no pipe")?;
        thread::scope(|scope| {
            let waiter = scope.spawn(move || self.wait(child, None));
            for line in BufReader::new(pipe).split(b'\n') {
                each(&String::from_utf8_lossy(&line?));
            }
            waiter.join().expect("the waiter does not panic")
        })
    }

    fn spawn(&mut self) -> Result<Child> {
        self.stop_if_interrupted()?;
        self.command.stdin(Stdio::null()).process_group(0);
        let child = self.command.spawn().with_context(|| {
            format!("{}: cannot start {}", self.what, self.command.get_program().to_string_lossy())
        })?;
        Ok(child)
    }

    fn wait(&self, mut child: Child, heartbeat: Option<Duration>) -> Result<ExitStatus> {
        let started = Instant::now();
        let mut next_beat = heartbeat;
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(status) = child.try_wait()? {
                self.stop_if_interrupted()?;
                return Ok(status);
            }
            if let Err(interrupted) = self.stop_if_interrupted() {
                end_group(&mut child)?;
                return Err(interrupted);
            }
            if started.elapsed() > self.limit {
                end_group(&mut child)?;
                bail!("{}: ended after its time limit of {} s", self.what, self.limit.as_secs());
            }
            if let Some(beat) = next_beat.filter(|beat| started.elapsed() > *beat) {
                eprintln!("xtask: {}: {} s", self.what, beat.as_secs());
                next_beat = Some(beat + HEARTBEAT);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn stop_if_interrupted(&self) -> Result<()> {
        if !self.shielded && INTERRUPTED.load(Ordering::SeqCst) {
            bail!("{}: interrupted", self.what);
        }
        Ok(())
    }

    fn check(&self, status: ExitStatus) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let program = self.command.get_program().to_string_lossy();
        let arguments: Vec<_> = self.command.get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!("{}: {} ({program} {})", self.what, describe(status), arguments.join(" "))
    }
}

/// Becomes the command, with the terminal and the signals that are ours. Returns only if it cannot be started.
pub fn replace_by(mut command: Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// How a child ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn end_group(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(child.id().cast_signed());
    // An error says that it has ended by itself in the meantime.
    let _ = killpg(group, Signal::SIGTERM);
    let asked = Instant::now();
    while child.try_wait()?.is_none() && asked.elapsed() < GRACE {
        thread::sleep(Duration::from_millis(50));
    }
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
