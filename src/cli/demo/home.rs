//! The demo's folder: certificates, policy, device records and curl configurations.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::cast::{APPS, DEVICES, Device, Record};
use crate::cli::failure::Failure;
use crate::cli::lab_ca::{Issued, LabCa, Validity};

pub const POLICY: &str = include_str!("vestibule.yaml");

/// Removed when dropped, unless the user chose it.
pub struct Home {
    path: PathBuf,
    keep: bool,
}

impl Home {
    /// `chosen` must be absent or empty: the demo overwrites nothing.
    pub fn open(chosen: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = chosen else {
            // Short, since it stands in commands that people copy. Creating it fails when the name is taken.
            let path = std::env::temp_dir().join(format!("vestibule-{:06x}", fastrand::u32(..1 << 24)));
            fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| cannot("make", &path, &e))?;
            return Ok(Self { path, keep: false });
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| cannot("make", path, &e))?;
        if fs::read_dir(path).map_err(|e| cannot("read", path, &e))?.next().is_some() {
            let text = format!("{} is not empty; choose a new or an empty folder, so that the demo overwrites nothing", path.display());
            return Err(Failure(text));
        }
        let path = path.canonicalize().map_err(|e| cannot("read", path, &e))?;
        Ok(Self { path, keep: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn configuration(&self) -> PathBuf {
        self.path.join("vestibule.yaml")
    }

    pub fn records(&self) -> PathBuf {
        self.path.join("devices.json")
    }

    pub fn decision_log(&self) -> PathBuf {
        self.path.join("data/decisions.jsonl")
    }

    /// `curl -K` with it is a visit of that device.
    pub fn curl(&self, device: &Device) -> PathBuf {
        self.path.join(device.id)
    }

    /// Writes everything that the demo needs before the proxy starts.
    pub fn furnish(&self, edge: SocketAddr, admin: SocketAddr, apps: &[SocketAddr]) -> Result<Furnished, Failure> {
        let hosts: Vec<String> = APPS.iter().map(|app| app.host()).chain(["localhost".to_owned(), "127.0.0.1".to_owned()]).collect();
        let ca = LabCa::create(&self.path.join("certs"), &hosts, false)?;
        let mut certificates = Vec::new();
        let mut records = Vec::new();
        for device in &DEVICES {
            let certificate = match &device.record {
                Some(_) => Some(ca.issue(device.id, Validity::days(30), false)?),
                None => None,
            };
            if let (Some(record), Some(issued)) = (&device.record, &certificate) {
                records.push(json_record(device.id, record, &issued.spki_sha256));
            }
            self.write(device.id, &curl_configuration(device, &ca.edge_ca(), certificate.as_ref()))?;
            certificates.push(certificate);
        }
        self.write("devices.json", &format!("{:#}\n", Value::Array(records)))?;
        let data = self.path.join("data");
        fs::create_dir(&data).map_err(|e| cannot("make", &data, &e))?;
        self.write("vestibule.yaml", &self.policy(edge, admin, apps))?;
        Ok(Furnished { edge_ca: ca.edge_ca(), certificates })
    }

    fn policy(&self, edge: SocketAddr, admin: SocketAddr, apps: &[SocketAddr]) -> String {
        let mut text = POLICY
            .replace("{vestibule}", &program())
            .replace("{dir}", &self.path.display().to_string())
            .replace("{edge}", &edge.to_string())
            .replace("{admin}", &admin.to_string());
        for (app, address) in APPS.iter().zip(apps) {
            text = text.replace(&format!("{{{}}}", app.name), &address.to_string());
        }
        text
    }

    fn write(&self, name: &str, content: &str) -> Result<(), Failure> {
        let path = self.path.join(name);
        fs::write(&path, content).map_err(|e| cannot("write", &path, &e))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What the demo's own clients need. The certificates stand in the order of the devices.
pub struct Furnished {
    pub edge_ca: PathBuf,
    pub certificates: Vec<Option<Issued>>,
}

/// As the user called this program.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "vestibule".to_owned())
}

fn json_record(id: &str, record: &Record, spki_sha256: &str) -> Value {
    let observed_at = Timestamp::now().to_string();
    let posture: Map<String, Value> = record
        .facts
        .iter()
        .map(|(fact, ok)| {
            let state = if *ok { "ok" } else { "fail" };
            ((*fact).to_owned(), json!({"state": state, "source": record.source, "observed_at": observed_at}))
        })
        .collect();
    json!({
        "id": id,
        "name": record.name,
        "user": record.user,
        "team": record.team,
        "ownership": record.ownership,
        "onnet": record.onnet,
        "state": "approved",
        // The truth: whoever plays this device runs on this machine.
        "os": std::env::consts::OS,
        "keys": [{"kind": "spki_sha256", "value": spki_sha256}],
        "posture": posture,
    })
}

fn curl_configuration(device: &Device, edge_ca: &Path, certificate: Option<&Issued>) -> String {
    let mut text = format!("# {}: {}\nsilent\nshow-error\ncacert = {}\n", device.title, device.story, quoted(edge_ca));
    if let Some(issued) = certificate {
        text.push_str(&format!("cert = {}\nkey = {}\n", quoted(&issued.cert), quoted(&issued.key)));
    }
    text
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled() {
        let parent = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&parent.path().join("demo"))).unwrap();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        home.furnish(address, address, &[address; 3]).unwrap();
        let text = fs::read_to_string(home.configuration()).unwrap();
        let left: Vec<&str> = ["{vestibule}", "{dir}", "{edge}", "{admin}", "{wiki}", "{payroll}", "{git}"]
            .into_iter()
            .filter(|name| text.contains(name))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let records: Value = serde_json::from_str(&fs::read_to_string(home.records()).unwrap()).unwrap();
        assert_eq!(records.as_array().unwrap().len(), 3);
        assert_eq!(records[1]["posture"]["disk_encrypted"]["state"], "fail");
    }

    #[test]
    fn a_folder_with_content_is_left_alone_and_a_chosen_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let chosen = parent.path().join("demo");
        drop(Home::open(Some(&chosen)).unwrap());
        assert!(chosen.is_dir());
        fs::write(chosen.join("mine"), "").unwrap();
        assert!(Home::open(Some(&chosen)).err().unwrap().0.contains("not empty"));
    }

    #[test]
    fn a_temporary_folder_goes() {
        let home = Home::open(None).unwrap();
        let path = home.path().to_owned();
        assert!(path.is_dir());
        drop(home);
        assert!(!path.exists());
    }
}
