//! What the proxy wrote down: the decision log, and whether the metrics agree with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cli::scrape::Sample;

/// One line of the decision log, as far as the demo shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub request_id: String,
    pub status: u16,
    pub decision: Decision,
}

/// What a decision is counted under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    pub app: String,
    pub class: String,
    pub tier: String,
    pub effect: String,
    pub reason: String,
}

/// Every whole line that the log holds by now.
pub fn read(log: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| Some(line.get(key)?.as_str()?.to_owned());
    Some(Entry {
        request_id: text("request_id")?,
        status: line.get("status")?.as_u64()?.try_into().ok()?,
        decision: Decision {
            app: text("app")?,
            class: text("class")?,
            tier: text("tier")?,
            effect: text("effect")?,
            reason: line.get("reasons")?.as_array()?.first()?.as_str()?.to_owned(),
        },
    })
}

/// One row of `vestibule_decisions_total` beside the visits that were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub decision: Decision,
    pub counted: f64,
    pub visited: u32,
}

impl Row {
    pub fn agrees(&self) -> bool {
        (self.counted - f64::from(self.visited)).abs() < 0.5
    }
}

/// Decisions as counted, beside those that the visits met; a row for each that either side knows.
pub fn compare(samples: &[Sample], met: &[Entry]) -> Vec<Row> {
    let mut rows: BTreeMap<Decision, (f64, u32)> = BTreeMap::new();
    for sample in decisions(samples) {
        let label = |name: &str| sample.label(name).to_owned();
        let decision =
            Decision { app: label("app"), class: label("class"), tier: label("tier"), effect: label("effect"), reason: label("reason") };
        rows.entry(decision).or_default().0 += sample.value;
    }
    for entry in met {
        rows.entry(entry.decision.clone()).or_default().1 += 1;
    }
    rows.into_iter().map(|(decision, (counted, visited))| Row { decision, counted, visited }).collect()
}

/// All decisions counted so far.
pub fn total(samples: &[Sample]) -> f64 {
    decisions(samples).map(|sample| sample.value).sum()
}

fn decisions(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    // A family may hold rows that nothing moved yet.
    samples.iter().filter(|sample| sample.name == "vestibule_decisions_total" && sample.value > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::scrape;

    const LINE: &str = r#"{"request_id":"r1","app":"wiki","status":200,"effect":"forward","class":"corporate","tier":"trusted","reasons":["rule.matched"]}"#;

    #[test]
    fn a_cut_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(read(&log), []);
        fs::write(&log, format!("{LINE}\n{}", &LINE[..40])).unwrap();
        let entries = read(&log);
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].request_id.as_str(), entries[0].decision.reason.as_str()), ("r1", "rule.matched"));
    }

    #[test]
    fn counts_agree_only_when_equal_on_every_row() {
        let labels = r#"app="wiki",effect="forward",class="corporate",tier="trusted",reason="rule.matched",mode="enforce""#;
        let samples = |owner: &str, n: u32| scrape::read(&format!("vestibule_decisions_total{{{labels},owner=\"{owner}\"}} {n}")).unwrap();
        let met = entry(LINE).unwrap();
        assert!(compare(&samples("a", 1), std::slice::from_ref(&met)).iter().all(Row::agrees));
        assert!(!compare(&samples("a", 2), std::slice::from_ref(&met)).iter().all(Row::agrees));
        assert!(!compare(&[], std::slice::from_ref(&met)).iter().all(Row::agrees));
        assert!(!compare(&samples("a", 1), &[]).iter().all(Row::agrees));
        let both = [samples("a", 1), samples("b", 1)].concat();
        assert!(compare(&both, &[met.clone(), met]).iter().all(Row::agrees));
        assert!((total(&both) - 2.0).abs() < f64::EPSILON);
    }
}
