//! Embeds the kernel programs, which `cargo xtask build` puts beside cargo's own output.

use std::path::PathBuf;

fn main() {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // <target dir>/<profile>/build/<package>/out
    let target_dir = out_dir.ancestors().nth(4).expect("OUT_DIR is below the target directory");
    for (name, variable) in [("l7egg-ebpf", "L7EGG_EBPF_OBJECT"), ("l7egg-shape", "L7EGG_SHAPE_OBJECT")] {
        let object = target_dir.join("ebpf").join(name).with_extension("o");
        println!("cargo::rerun-if-changed={}", object.display());
        if !object.exists() {
            println!(
                "cargo::error={} is missing: run `cargo xtask build --ebpf-only` first",
                object.display()
            );
            return;
        }
        println!("cargo::rustc-env={variable}={}", object.display());
    }
}
