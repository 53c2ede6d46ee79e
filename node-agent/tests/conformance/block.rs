//! What belongs to one cell alone: a zone and addresses, so that no cell lives on what another one has learned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One cell's names end in `c<number>.test`; it has 255 addresses of each family in the test world's networks.
#[derive(Clone, Copy, Debug)]
pub struct Block(u16);

impl Block {
    /// The block of the cell with this number. There are 448.
    pub fn new(number: usize) -> Self {
        Self(u16::try_from(number).ok().filter(|number| *number < 448).expect("a block for each cell"))
    }

    /// Fills in a text that may have several lines: `{zone}` is the zone, `{4:1}` the first IPv4 address, `{6:1}`
    /// the first IPv6 address. A line with `{4:1..60}` becomes sixty lines.
    pub fn fill(&self, text: &str) -> String {
        self.lines(text).join("\n")
    }

    /// The lines of a filled text.
    pub fn lines(&self, text: &str) -> Vec<String> {
        text.lines().flat_map(|line| self.line(line)).collect()
    }

    /// The addresses that a text consists of, such as `{4:1} {6:1..9}`.
    pub fn addresses(&self, text: &str) -> Vec<IpAddr> {
        let lines = text.split_whitespace().flat_map(|word| self.line(word));
        lines.map(|address| address.parse().expect("an address of a block")).collect()
    }

    fn line(&self, line: &str) -> Vec<String> {
        let mut lines = vec![line.replace("{zone}", &format!("c{}.test", self.0))];
        for family in ["4", "6"] {
            let (open, close) = (format!("{{{family}:"), '}');
            while let Some((before, rest)) = lines[0].split_once(&open) {
                let (range, after) = rest.split_once(close).expect("the end of {4:1}");
                let (first, last) = range.split_once("..").unwrap_or((range, range));
                let numbers = number(first)..=number(last);
                let fill = |number| {
                    let address = self.address(family, number);
                    format!("{before}{address}{after}")
                };
                lines = numbers.map(fill).collect();
                if lines.len() > 1 {
                    return lines;
                }
            }
        }
        lines
    }

    fn address(&self, family: &str, number: u8) -> IpAddr {
        if family == "4" {
            let first = u32::from(Ipv4Addr::new(198, 18, 64, 0)) + u32::from(self.0) * 256;
            Ipv4Addr::from(first + u32::from(number)).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0x1000 + self.0, 0, 0, 0, u16::from(number)).into()
        }
    }
}

fn number(text: &str) -> u8 {
    text.parse().expect("a number of an address, 1 to 255")
}
