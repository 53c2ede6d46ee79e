//! systemd itself, as it boots a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::{is_emulated, unique};

/// Two at once take an emulated machine minutes.
static ONE: Mutex<()> = Mutex::new(());

/// Boots it with what a scenario beside `systemd.sh` prepares; what that says. Nothing, with the reason printed, on a machine that is
/// running already, which systemd would boot again.
pub fn boot(scenario: &str, arguments: &[&Path]) -> Option<String> {
    if !is_emulated() {
        println!(
            "skipped: this boots systemd, which needs a machine of its own: it runs in the virtual machines"
        );
        return None;
    }
    if !Path::new("/lib/systemd/systemd").exists() {
        println!("skipped: there is no systemd on this machine");
        return None;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let result = PathBuf::from(format!("/var/tmp/l7egg-boot-{}", unique()));
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel");
    let mut command = Command::new("sh");
    command.arg(scripts.join("systemd.sh")).arg(scripts.join(scenario)).arg(&result).args(arguments);
    let ran = command.output().expect("sh");
    let said = fs::read_to_string(&result).unwrap_or_default();
    let _ = fs::remove_file(&result);
    println!("{said}{}", String::from_utf8_lossy(&ran.stderr));
    Some(said)
}
