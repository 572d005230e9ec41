//! Reads a scrape: the Prometheus text format as far as this program writes it.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    /// The label's value, empty when there is no such label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All samples of a scrape; `Err` holds the first line that is none.
pub fn read(text: &str) -> Result<Vec<Sample>, String> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| sample(line).ok_or_else(|| line.to_owned())).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_values() {
        let text = "# HELP a b\n# TYPE a counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n},\"} 3\nb 1.5e3\nc{} +Inf\n";
        let samples = read(text).unwrap();
        assert_eq!(samples.len(), 3);
        assert_eq!((samples[0].name.as_str(), samples[0].label("x"), samples[0].label("y")), ("a_total", "1", "q\"\\\n},"));
        assert_eq!((samples[0].label("z"), samples[0].value, samples[1].value), ("", 3.0, 1500.0));
        assert!(samples[2].value.is_infinite());
    }

    #[test]
    fn nonsense_is_named() {
        for line in ["a", "a{x=\"1} 2", "a{x} 2", "a b", "a{x=\"1\"}"] {
            assert_eq!(read(line), Err(line.to_owned()));
        }
    }
}
