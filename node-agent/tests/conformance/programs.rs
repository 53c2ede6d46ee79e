//! The programs that take part: those of Debian's packages, and `lookup`, which is built here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::{Library, Tool};

/// Where they all are.
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Looks for them, and builds `lookup` for every library. An error says what is missing.
    pub fn find() -> Result<Self, String> {
        let programs = [
            ("unbound", "unbound"),
            ("dnsmasq", "dnsmasq-base"),
            ("knotd", "knot"),
            ("named", "bind9"),
            ("dig", "bind9-dnsutils"),
            ("kdig", "knot-dnsutils"),
            ("gcc", "gcc"),
            ("musl-gcc", "musl-tools"),
            ("go", "golang-go"),
        ];
        for (program, package) in programs {
            find(program).ok_or_else(|| format!("{program} is missing (Debian's package {package})"))?;
        }
        let programs = Self { folder: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("conformance") };
        std::fs::create_dir_all(&programs.folder).expect("target/tmp");
        for server in ["unbound", "dnsmasq", "knotd", "named"] {
            programs.copy(server);
        }
        Library::ALL.into_iter().for_each(|library| programs.build(library));
        Ok(programs)
    }

    /// The program that resolves with a library.
    pub fn lookup(&self, library: Library) -> PathBuf {
        self.folder.join(format!("lookup-{library:?}").to_lowercase())
    }

    /// dig or kdig.
    pub fn tool(&self, tool: Tool) -> PathBuf {
        self.installed(if tool == Tool::Dig { "dig" } else { "kdig" })
    }

    /// A server, as a copy: AppArmor's profiles go by path, and allow the installed program its own folders only.
    pub fn server(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A program of a package.
    pub fn installed(&self, name: &str) -> PathBuf {
        find(name).unwrap_or_else(|| panic!("{name} has gone"))
    }

    /// Before any thread starts a program: one that is still open for writing somewhere cannot be started.
    fn copy(&self, server: &str) {
        // Not over one that may still run.
        let _ = std::fs::remove_file(self.server(server));
        std::fs::copy(self.installed(server), self.server(server)).expect("a copy of the server");
    }

    fn build(&self, library: Library) {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/client");
        let mut compiler = match library {
            Library::Glibc => c("gcc"),
            Library::Musl => c("musl-gcc"),
            Library::Go => {
                let mut go = Command::new("go");
                go.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOFLAGS", "");
                go.env("GOCACHE", self.folder.join("go-cache")).arg("build");
                go
            }
        };
        let source = if library == Library::Go { "lookup.go" } else { "lookup.c" };
        compiler.arg("-o").arg(self.lookup(library)).arg(sources.join(source));
        let output = compiler.output().expect("a compiler");
        assert!(output.status.success(), "{compiler:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn c(compiler: &str) -> Command {
    let mut command = Command::new(compiler);
    command.args(["-O1", "-Wall", "-Wextra", "-Werror"]);
    command
}

/// Servers are where only root looks.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
