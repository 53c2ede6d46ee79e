//! A server in the world's network namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::harness::Pod;
use crate::programs::Programs;

/// A running server; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program with its settings in a file, whose name becomes its last argument.
    pub fn start(
        programs: &Programs,
        pod: &Pod,
        folder: &Path,
        program: &str,
        arguments: &[&str],
        settings: &str,
    ) -> Self {
        let (file, log) = (folder.join(format!("{program}.conf")), folder.join(format!("{program}.log")));
        fs::write(&file, settings).expect("settings");
        let output = File::create(&log).expect("a log");
        let child = pod
            .in_world(&programs.server(program))
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the log"))
            .stderr(output)
            .spawn()
            .expect("a server");
        Self { child, log }
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
