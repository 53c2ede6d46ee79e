//! Packages that bring a server along, which is to be there and not to run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{command, step};

/// Packages and their services.
const SERVERS: [(&str, &str); 3] = [("bind9", "named"), ("knot", "knot"), ("unbound", "unbound")];
/// Who says whether a package may start its service:
/// <https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt>
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, packages that are being installed start nothing.
#[derive(Debug)]
pub struct NoStarts {
    file: Option<PathBuf>,
}

impl NoStarts {
    /// For all packages, unless this machine has a policy of its own.
    pub fn new() -> Result<Self> {
        Self::at(Path::new(POLICY))
    }

    fn at(file: &Path) -> Result<Self> {
        if file.exists() {
            return Ok(Self { file: None });
        }
        let script = "#!/bin/sh\n# While `cargo xtask setup` installs packages. It is no longer needed if that has ended.\nexit 101\n";
        fs::write(file, script)
            .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { file: Some(file.to_path_buf()) })
    }
}

impl Drop for NoStarts {
    fn drop(&mut self) {
        if let Some(file) = &self.file
            && let Err(error) = fs::remove_file(file)
        {
            eprintln!("xtask: remove {} by hand, or no package starts its service: {error}", file.display());
        }
    }
}

/// Whether one of the packages brings a server along.
pub fn any(packages: &[&str]) -> bool {
    SERVERS.iter().any(|(package, _)| packages.contains(package))
}

/// Keeps the servers among packages that were just installed from running, also after the next boot.
pub fn disable(packages: &[&str]) -> Result<()> {
    for (_, service) in SERVERS.iter().filter(|(package, _)| packages.contains(package)) {
        // A policy of the machine's own may have started it.
        let script =
            "update-rc.d \"$1\" disable && if [ -d /run/systemd/system ]; then systemctl stop \"$1\"; fi";
        let disable = command("sh", ["-c", script, "sh", service]);
        step(format!("{service} is not to run by itself"), disable).limit(60).quietly("services")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_lives_as_long_as_it_is_needed_and_never_replaces_another() {
        let folder = std::env::temp_dir().join(format!("l7egg-services-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("policy-rc.d");
        let policy = NoStarts::at(&file).unwrap();
        assert_eq!(std::process::Command::new(&file).status().unwrap().code(), Some(101));
        drop(policy);
        assert!(!file.exists());
        fs::write(&file, "somebody's own").unwrap();
        drop(NoStarts::at(&file).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's own");
        fs::remove_dir_all(&folder).unwrap();
    }
}
