//! What a bench has found: a table for people, JSON for programs.

use std::fmt;

use serde::{Serialize, Serializer};

/// The figures of one bench.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub bench: &'static str,
    /// Release of the kernel.
    pub kernel: String,
    /// Processors.
    pub cpus: usize,
    /// Load average of the last minute when it began: above 0.5, others were at work.
    pub load: f64,
    /// The figures of each variant, in the order in which they are shown.
    #[serde(serialize_with = "as_map")]
    pub variants: Vec<Variant>,
    /// What was to be reached.
    pub targets: Vec<Target>,
    /// How it was measured.
    pub method: &'static str,
}

/// The figures of one variant.
#[derive(Debug)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Figures by name; all variants have the same.
    pub figures: Vec<(&'static str, f64)>,
}

/// Something to be reached.
#[derive(Debug, Serialize)]
pub struct Target {
    /// What, with the bound.
    pub what: String,
    /// What was found.
    pub found: String,
    /// Whether it is within the bound.
    pub met: bool,
}

impl Report {
    /// Begins a report.
    pub fn new(bench: &'static str, method: &'static str) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok());
        Self {
            bench,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.unwrap_or(0.0),
            variants: Vec::new(),
            targets: Vec::new(),
            method,
        }
    }

    /// Adds the figures of a variant.
    pub fn variant(&mut self, name: impl Into<String>, figures: Vec<(&'static str, f64)>) {
        self.variants.push(Variant { name: name.into(), figures });
    }

    /// Adds something to be reached.
    pub fn target(&mut self, what: impl Into<String>, found: impl Into<String>, met: bool) {
        self.targets.push(Target { what: what.into(), found: found.into(), met });
    }

    /// Whether all of it was reached.
    pub fn is_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (Linux {}, {} CPUs, load {})", self.bench, self.kernel, self.cpus, self.load)?;
        let names: Vec<&str> = self
            .variants
            .iter()
            .flat_map(|v| v.figures.iter().map(|(name, _)| *name))
            .fold(Vec::new(), |mut names, name| {
                if !names.contains(&name) {
                    names.push(name);
                }
                names
            });
        write!(f, "{:<24}", "")?;
        for name in &names {
            write!(f, " {name:>22}")?;
        }
        writeln!(f)?;
        for variant in &self.variants {
            write!(f, "{:<24}", variant.name)?;
            for name in &names {
                match variant.figures.iter().find(|(known, _)| known == name) {
                    Some((_, value)) if value.fract() == 0.0 => write!(f, " {value:>22}")?,
                    Some((_, value)) if value.abs() < 2.0 => write!(f, " {value:>22.3}")?,
                    Some((_, value)) => write!(f, " {value:>22.1}")?,
                    None => write!(f, " {:>22}", "")?,
                }
            }
            writeln!(f)?;
        }
        for Target { what, found, met } in &self.targets {
            writeln!(f, "{}  {what}: {found}", if *met { "target met   " } else { "target missed" })?;
        }
        write!(f, "{}", self.method)
    }
}

fn as_map<S: Serializer>(variants: &[Variant], serializer: S) -> Result<S::Ok, S::Error> {
    struct Figures<'a>(&'a [(&'static str, f64)]);
    impl Serialize for Figures<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().copied())
        }
    }
    serializer.collect_map(variants.iter().map(|variant| (&variant.name, Figures(&variant.figures))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_table() {
        let mut report = Report::new("dns", "by hand");
        report.variant("unfiltered", vec![("p50_us", 81.25), ("failures", 0.0)]);
        report.target("within 3 %", "1 %", true);
        report.target("thrice", "2.5 times", false);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["variants"]["unfiltered"]["p50_us"], 81.25);
        assert_eq!(json["targets"][1]["met"], false);
        assert!(!report.is_met());
        let table = report.to_string();
        assert!(table.contains("target missed  thrice: 2.5 times"), "{table}");
    }
}
