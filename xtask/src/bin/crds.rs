//! Writes `manifests/crds/*.yaml` from the API types, or, with `--check`, says where they differ.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

fn main() -> Result<ExitCode> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask/ lies nowhere")?.join("manifests/crds");
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    fs::create_dir_all(&folder)?;

    let mut drifted = false;
    for (name, wanted) in l7egg_crds::manifests() {
        let path = folder.join(name);
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present == wanted {
            continue;
        }
        if check {
            drifted = true;
            eprintln!(
                "{} is not what the API types say; run: cargo xtask crds\n{}",
                path.display(),
                first_difference(&present, &wanted)
            );
        } else {
            fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
    }
    Ok(if drifted { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn first_difference(present: &str, wanted: &str) -> String {
    let same = present.lines().zip(wanted.lines()).take_while(|(left, right)| left == right).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(end of file)").to_owned();
    format!("  line {}:\n  - {}\n  + {}", same + 1, line(present), line(wanted))
}
