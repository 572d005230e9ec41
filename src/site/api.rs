//! What the admin listener tells of the policy, as JSON.

use std::sync::atomic::Ordering::Relaxed;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Error, How, Reloaded, Site};
use crate::config::Level;

/// `GET /api/v1/policy`.
pub fn policy(site: &Site) -> String {
    let rules = site.rules.load();
    let draft = rules.policy.draft();
    let count = draft.guardrails.len() + draft.layers.len() + draft.apps.iter().map(|app| app.rules.len()).sum::<usize>();
    let since = Timestamp::from_second(site.since.load(Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH);
    line(&json!({"revision": rules.policy.revision(), "since": since.to_string(), "apps": draft.apps.len(), "rules": count}))
}

/// `GET /api/v1/servers`.
pub fn servers(site: &Site) -> String {
    line(&site.rules.load().servers.told())
}

/// `POST /api/v1/reload`: `Err` is what the configuration in its files is not taken for.
pub fn reload(site: &Site) -> Result<String, String> {
    match site.reload(How::Api) {
        Ok(Reloaded { revision, previous, changed }) => Ok(line(&json!({"revision": revision, "previous": previous, "changed": changed}))),
        Err(error) => {
            let revision = site.rules.load().policy.revision().to_owned();
            Err(line(&json!({"error": "the old policy stays in force", "revision": revision, "errors": errors(&error)})))
        }
    }
}

fn errors(error: &Error) -> Vec<Value> {
    let Error::Configuration(report) = error else {
        return vec![json!({"message": error.to_string()})];
    };
    let errors = report.diagnostics().iter().filter(|diagnostic| diagnostic.level == Level::Error);
    let told = errors.map(|diagnostic| {
        let (file, line, column) = diagnostic.position();
        json!({"file": file.display().to_string(), "line": line, "column": column, "key": diagnostic.key, "message": diagnostic.message})
    });
    told.collect()
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
