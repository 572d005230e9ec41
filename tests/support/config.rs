//! A configuration to start from.

use std::fmt::Write;

use super::Origin;

/// Top-level keys with their YAML, in order. Every port is 0; certificates are those of the lab.
#[derive(Clone, Debug)]
pub struct Config {
    keys: Vec<(String, String)>,
}

impl Config {
    /// TLS as `edge`, plain HTTP as `plain`, and one app `wiki` at `wiki.localhost` for `origin`: corporate and healthy is forwarded, known
    /// reads, the rest is blocked.
    pub fn new(origin: &Origin) -> Self {
        let server = origin.url();
        Self { keys: Vec::new() }
            .set("version", "1")
            .set("workers", "2")
            .set(
                "listeners",
                r#"
  - name: edge
    bind: ["127.0.0.1:0"]
    tls:
      certificates: [{cert: certs/edge.pem, key: certs/edge.key}]
      client_ca: [certs/device-ca.pem]
      client_crl: [certs/device-crl.pem]
  - name: plain
    bind: ["127.0.0.1:0"]"#,
            )
            .set("admin", r#"{bind: "127.0.0.1:0"}"#)
            .set("store", r#"{url: "sqlite://vestibule.db", cache: {negative_ttl: 1s}}"#)
            .set("decision_log", "{path: decisions.jsonl}")
            .set("owners", r##"{security: {contact: "security@corp.example"}, knowledge: {contact: "#wiki-help"}}"##)
            .set("posture", "{sources: {mdm: {ttl: 24h}, manual: {ttl: 30d}}}")
            .set(
                "classes",
                "
  - {name: corporate, when: {device.ownership: corporate}}
  - {name: personal_onnet, when: {device.ownership: personal, device.onnet: true}}
  - {name: personal_offnet, when: {device.ownership: personal}}",
            )
            .set(
                "tiers",
                "
  - {name: none}
  - {name: known, require: {device.state: approved}}
  - {name: healthy, require: {posture.os_supported: ok, posture.screen_lock: ok}}
  - {name: trusted, require: {device.key: certificate, posture.mdm_compliant: ok, posture.disk_encrypted: ok}}",
            )
            .set("restrictions", "{read-only: {methods: [GET, HEAD, OPTIONS]}, private: {no_store: true}}")
            .set(
                "apps",
                &format!(
                    r#"
  - name: wiki
    title: Team wiki
    owner: knowledge
    hosts: [wiki.localhost]
    upstream: {{servers: ["{server}"]}}
    rules:
      - {{name: managed, when: {{class: corporate, tier: ">= healthy"}}, then: forward}}
      - {{name: byod-read, when: {{tier: ">= known"}}, then: restrict, with: [read-only, private]}}
      - {{name: rest, then: block}}"#
                ),
            )
    }

    /// Replaces or adds a top-level key. A block value begins with a line break and is indented.
    #[must_use]
    pub fn set(mut self, key: &str, yaml: &str) -> Self {
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => yaml.clone_into(old),
            None => self.keys.push((key.to_owned(), yaml.to_owned())),
        }
        self
    }

    /// A top-level key's YAML.
    #[track_caller]
    pub fn get(&self, key: &str) -> String {
        self.keys.iter().find(|(k, _)| k == key).unwrap_or_else(|| panic!("the configuration has no `{key}`")).1.clone()
    }

    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(k, _)| k != key);
        self
    }

    /// Replaces a piece of text anywhere; it must be there.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.keys.iter().any(|(_, yaml)| yaml.contains(from)), "the configuration has no `{from}`");
        for (_, yaml) in &mut self.keys {
            *yaml = yaml.replace(from, to);
        }
        self
    }

    pub fn yaml(&self) -> String {
        self.keys.iter().fold(String::new(), |mut text, (key, yaml)| {
            let _ = writeln!(text, "{key}: {yaml}");
            text
        })
    }
}
