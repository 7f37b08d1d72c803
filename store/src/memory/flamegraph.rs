//! A profile as a flame graph: one SVG, without scripts. The wider a box, the more was measured at that function and in what it called;
//! callers are below. Pointing at a box shows its name and share.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{profile::Profile, symbols::Symbols};

const WIDTH: f64 = 1600.0;
const ROW: f64 = 18.0;
/// Room for the title, and under the boxes.
const MARGIN: f64 = 40.0;
/// Narrower boxes are left out; pixels.
const NARROWEST: f64 = 0.3;
/// Width of a letter; pixels.
const LETTER: f64 = 6.6;
/// Deepest row: what is called from there on is counted where it was called.
const DEPTH_MAX: usize = 96;

/// A function, by its callers.
#[derive(Default)]
struct Node {
    value: u64,
    called: BTreeMap<String, Node>,
}

impl Node {
    fn depth(&self) -> usize {
        1 + self.called.values().map(Self::depth).max().unwrap_or(0)
    }
}

impl Profile {
    /// The second of its kinds as a flame graph.
    pub fn to_flamegraph(&self, title: &str) -> String {
        let mut symbols = Symbols::default();
        let mut root = Node::default();
        for sample in &self.samples {
            let value = sample.values[1];
            root.value += value;
            let mut node = &mut root;
            let stack = symbols.outside_allocator(&sample.stack);
            for address in stack.iter().rev().take(DEPTH_MAX) {
                node = node.called.entry(symbols.at(*address).to_owned()).or_default();
                node.value += value;
            }
        }
        self.draw(title, &root)
    }

    fn draw(&self, title: &str, root: &Node) -> String {
        let height = MARGIN * 2.0 + root.depth() as f64 * ROW;
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"monospace\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fcfcf7\"/>\n\
             <text x=\"{}\" y=\"24\" font-size=\"16\" text-anchor=\"middle\">{}: {} in all</text>\n",
            WIDTH / 2.0,
            escaped(title),
            self.shown(root.value),
        );
        if root.value > 0 {
            let scale = WIDTH / root.value as f64;
            self.boxes(&mut svg, "all", root, (0.0, height - MARGIN), scale, root.value);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn boxes(&self, svg: &mut String, name: &str, node: &Node, (x, y): (f64, f64), scale: f64, all: u64) {
        let width = node.value as f64 * scale;
        if width < NARROWEST {
            return;
        }
        let share = node.value as f64 * 100.0 / all as f64;
        let letters = ((width - 4.0) / LETTER).max(0.0) as usize;
        let label: String = if name.chars().count() <= letters {
            name.to_owned()
        } else if letters > 4 {
            name.chars().take(letters - 2).chain("..".chars()).collect()
        } else {
            String::new()
        };
        let _ = writeln!(
            svg,
            "<g><title>{} ({}, {share:.2} %)</title><rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\" rx=\"1\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escaped(name),
            self.shown(node.value),
            y - ROW,
            (width - 0.5).max(NARROWEST),
            ROW - 1.0,
            colour(name),
            x + 2.0,
            y - 5.0,
            escaped(&label),
        );
        let mut left = x;
        for (name, called) in &node.called {
            self.boxes(svg, name, called, (left, y - ROW), scale, all);
            left += called.value as f64 * scale;
        }
    }

    fn shown(&self, value: u64) -> String {
        match self.kinds[1].1 {
            "bytes" => format!("{:.1} KiB", value as f64 / 1024.0),
            "nanoseconds" => format!("{:.0} ms", value as f64 / 1e6),
            unit => format!("{value} {unit}"),
        }
    }
}

/// Of RocksDB blue, of ourselves orange, of anybody else yellow; neighbours differ a little.
fn colour(name: &str) -> String {
    let [red, green, blue]: [u32; 3] = match name {
        name if name.contains("sluice") => [236, 130, 76],
        name if name.contains("rocksdb") => [96, 160, 222],
        _ => [232, 204, 104],
    };
    let shade = name.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte))) % 20;
    format!("#{:02x}{:02x}{:02x}", red + shade, green + shade, blue + shade)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::profile::Sample;

    fn profile(samples: Vec<Sample>) -> Profile {
        Profile {
            kinds: [("inuse_objects", "count"), ("inuse_space", "bytes")],
            period: ("space", "bytes", 1),
            duration_ns: 0,
            samples,
        }
    }

    #[test]
    fn boxes_are_as_wide_as_their_share() {
        let samples = [(vec![0x1, 0x3], 3 << 10), (vec![0x2, 0x3], 1 << 10)];
        let svg = profile(samples.map(|(stack, bytes)| Sample { stack, values: [1, bytes] }).to_vec()).to_flamegraph("a <heap>");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a &lt;heap&gt;: 4.0 KiB in all"));
        for expected in ["<title>0x3 (4.0 KiB, 100.00 %)", "<title>0x1 (3.0 KiB, 75.00 %)", "<title>0x2 (1.0 KiB, 25.00 %)"] {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
        assert!(svg.contains("width=\"1199.5\"") && svg.contains("width=\"399.5\""), "{svg}");
    }

    #[test]
    fn nothing_measured_is_drawn_as_nothing() {
        let svg = profile(Vec::new()).to_flamegraph("heap");
        assert!(svg.contains("0.0 KiB in all") && !svg.contains("<g>"), "{svg}");
    }
}
