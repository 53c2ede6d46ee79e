//! What is logged, and how it looks.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

/// Lines of libraries, which are left out unless they are asked for by name. The client logs every failed request as an error, and what
/// watches with it every refused list as a warning: whoever made the request knows better how bad that is.
const QUIET: [(&str, &str); 2] = [("kube_client", "off"), ("kube_runtime", "error")];

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the log, the same for every program.
#[derive(Args, Clone, Copy, Debug)]
pub struct LogSettings {
    /// Text for people, or JSON for programs that collect logs. What is logged: RUST_LOG, such as `debug`.
    #[arg(long, global = true, value_enum, default_value_t, env = "L7EGG_LOG_FORMAT")]
    pub log_format: LogFormat,
}

impl LogSettings {
    /// Logs to standard error from now on.
    ///
    /// # Panics
    /// If something logs already.
    pub fn start(self) {
        let filter = EnvFilter::new(filter(std::env::var("RUST_LOG").ok().as_deref()));
        let ansi = std::io::stderr().is_terminal();
        let builder =
            fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).with_target(false);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

/// What the user asks for, or what is worth it where that is nothing.
fn filter(asked: Option<&str>) -> String {
    let asked = asked.filter(|asked| !asked.trim().is_empty()).unwrap_or("info");
    if asked.trim() == "off" {
        return asked.to_owned();
    }
    let quiet = QUIET.iter().filter(|(library, _)| !asked.contains(library));
    let quiet = quiet.map(|(library, level)| format!("{library}={level}"));
    std::iter::once(asked.to_owned()).chain(quiet).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_own_lines_only_if_asked_for() {
        for nothing in [None, Some(""), Some(" ")] {
            assert_eq!(filter(nothing), "info,kube_client=off,kube_runtime=error");
        }
        assert_eq!(filter(Some("debug")), "debug,kube_client=off,kube_runtime=error");
        assert_eq!(filter(Some("info,kube_client=debug")), "info,kube_client=debug,kube_runtime=error");
        assert_eq!(filter(Some("off")), "off");
        let both = "info,kube_client=debug,kube_runtime=debug";
        assert_eq!(filter(Some(both)), both);
    }
}
