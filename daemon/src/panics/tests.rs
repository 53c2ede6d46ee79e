//! In processes of their own: what a panic ends is the process.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, exit},
    time::Duration,
};

use super::*;

const WHAT: &str = "L7EGG_PANICS_IN";

/// What becomes of a process with a panic in this, and what it writes.
fn panic_in(what: &str) -> (ExitStatus, String) {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "panics::tests::child", "--nocapture", "--test-threads=1"])
        .env(WHAT, what)
        .output()
        .unwrap();
    (child.status, String::from_utf8_lossy(&child.stderr).into_owned())
}

/// Nothing by itself; the process that [`panic_in`] starts.
#[test]
fn child() {
    let Ok(what) = env::var(WHAT) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    end_the_process("and is started anew");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut patience = Duration::from_secs(60);
    match what.as_str() {
        "thread" => _ = thread::Builder::new().name("cgroups".into()).spawn(|| panic!("at the disco")),
        "task" => _ = runtime.spawn(async { panic!("at the disco") }),
        _ => {
            patience = Duration::from_millis(500);
            assert_eq!(message(&*caught(|| panic!("number {}", 7)).unwrap_err()), "number 7");
            assert_eq!(caught(|| 7).unwrap(), 7);
        }
    }
    runtime.block_on(async { tokio::time::sleep(patience).await });
    exit(0);
}

#[test]
fn in_a_thread_or_task_that_nobody_waits_for_it_is_told_and_ends_the_whole() {
    for what in ["thread", "task"] {
        let (status, told) = panic_in(what);
        assert_eq!(status.signal(), Some(nix::libc::SIGABRT), "{what}: {told}");
        assert!(told.contains("ERROR") && told.contains("at the disco"), "{told}");
        assert!(
            told.contains("panics/tests.rs:") && told.contains("the program ends, and is started anew"),
            "{told}"
        );
    }
    assert!(panic_in("thread").1.contains("cgroups"));
}

#[test]
fn one_that_is_caught_ends_nothing() {
    let (status, told) = panic_in("what is caught");
    assert!(status.success(), "{told}");
}
