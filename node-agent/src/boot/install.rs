//! The unit that closes the gate when a node boots, and the program for it, which must not depend on what the node has.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Name of the unit.
pub const UNIT: &str = "l7egg-gate.service";
/// The program on the node; its libraries are beside it.
pub const BINARY: &str = "/opt/l7egg/l7egg-node-agent";
const UNITS: &str = "etc/systemd/system";
const WANTED_BY: &str = "etc/systemd/system/multi-user.target.wants";

/// Writes the unit, enabled, and this program below the root of a node or of an image for nodes. What is there is replaced, whole, so
/// that a node that boots meanwhile finds the one or the other.
///
/// # Errors
/// A file that could not be written.
pub fn install(root: &Path) -> anyhow::Result<()> {
    let directory = directory(root);
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let (program, libraries) = mapped()?;
    for library in &libraries {
        let name = library.file_name().unwrap_or_default();
        replace(&directory.join(name), 0o755, |new| fs::copy(library, new).map(drop))?;
    }
    replace(&root.join(&BINARY[1..]), 0o755, |new| fs::copy(&program, new).map(drop))?;
    let units = root.join(UNITS);
    fs::create_dir_all(root.join(WANTED_BY)).with_context(|| format!("making {}", units.display()))?;
    replace(&units.join(UNIT), 0o644, |new| fs::write(new, unit(&libraries)))?;
    let link = root.join(WANTED_BY).join(UNIT);
    match symlink(format!("/{UNITS}/{UNIT}"), &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("making {}", link.display()))
        }
        _ => Ok(()),
    }
}

/// Takes away what [`install`] wrote.
///
/// # Errors
/// A file that could not be removed.
pub fn remove(root: &Path) -> anyhow::Result<()> {
    for file in [root.join(WANTED_BY).join(UNIT), root.join(UNITS).join(UNIT)] {
        gone(fs::remove_file(&file)).with_context(|| format!("removing {}", file.display()))?;
    }
    let directory = directory(root);
    gone(fs::remove_dir_all(&directory)).with_context(|| format!("removing {}", directory.display()))
}

fn directory(root: &Path) -> PathBuf {
    root.join(BINARY[1..].trim_end_matches("/l7egg-node-agent"))
}

/// This program, and the libraries that it has mapped, its loader among them.
fn mapped() -> anyhow::Result<(PathBuf, BTreeSet<PathBuf>)> {
    let program = fs::canonicalize("/proc/self/exe").context("finding this program")?;
    let maps = fs::read_to_string("/proc/self/maps").context("finding this program's libraries")?;
    let executable = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|it| it.contains('x')));
    let files = executable.filter_map(|line| line.find('/').map(|path| PathBuf::from(&line[path..])));
    Ok((program.clone(), files.filter(|file| *file != program).collect()))
}

/// The unit. The loader is called by name: the node's own may be older than the libraries.
fn unit(libraries: &BTreeSet<PathBuf>) -> String {
    let names = libraries.iter().filter_map(|library| library.file_name()?.to_str());
    let loader = names.into_iter().find(|name| name.starts_with("ld-"));
    let directory = directory(Path::new("/"));
    let program = match loader {
        Some(loader) => format!("{0}/{loader} --library-path {0} {BINARY}", directory.display()),
        None => BINARY.to_owned(),
    };
    format!(
        "# Installed by l7egg-node-agent gate install; l7egg-node-agent gate remove takes it away.
[Unit]
Description=l7egg: nothing leaves new pods until the agent has decided about them
After=sys-fs-bpf.mount
Before=kubelet.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service k0scontroller.service k0sworker.service

[Service]
# Ready, and the kubelet starts, when the programs are loaded. It ends when there is a cgroup for the gate to stand at.
Type=notify
ExecStart={program} gate
TimeoutStartSec=60

[Install]
WantedBy=multi-user.target
"
    )
}

/// Writes a file beside the other, and puts it in its place in one step.
fn replace(file: &Path, mode: u32, write: impl Fn(&Path) -> io::Result<()>) -> anyhow::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    write(&new)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("writing {}", file.display()))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_installed_runs_by_itself_and_goes_again() {
        let root = tempfile::tempdir().unwrap();
        for _time in 0..2 {
            install(root.path()).unwrap();
        }
        let unit = fs::read_to_string(root.path().join("etc/systemd/system/l7egg-gate.service")).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let start = start.replace("/opt/", &format!("{}/opt/", root.path().display()));
        let mut words = start.split(' ');
        // The program is this test: of its own arguments it knows this one.
        let mut command = Command::new(words.next().unwrap());
        let ran = command.args(words.filter(|word| *word != "gate")).arg("--list").output().unwrap();
        assert!(String::from_utf8_lossy(&ran.stdout).contains("runs_by_itself"), "{start}: {ran:?}");
        let link = fs::read_link(root.path().join(WANTED_BY).join(UNIT)).unwrap();
        assert_eq!(link, Path::new("/etc/systemd/system/l7egg-gate.service"));

        for _time in 0..2 {
            remove(root.path()).unwrap();
        }
        assert!(!root.path().join("opt/l7egg").exists());
        assert!(fs::read_dir(root.path().join(WANTED_BY)).unwrap().next().is_none());
    }

    #[test]
    fn systemd_takes_the_unit() {
        let root = tempfile::tempdir().unwrap();
        install(root.path()).unwrap();
        let unit = root.path().join(UNITS).join(UNIT);
        // It looks for the program as well.
        let text = fs::read_to_string(&unit).unwrap();
        fs::write(&unit, text.replace("/opt/", &format!("{}/opt/", root.path().display()))).unwrap();
        match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() {
            Ok(said) => {
                let said = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(!said.contains("l7egg"), "{said}");
            }
            Err(error) => println!("skipped: systemd-analyze: {error}"),
        }
    }
}
