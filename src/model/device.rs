//! The device record: what the store knows of a device.

use jiff::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    Corporate,
    Personal,
}

impl Ownership {
    pub const ALL: [Self; 2] = [Self::Corporate, Self::Personal];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Corporate => "corporate",
            Self::Personal => "personal",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == word)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceState {
    Pending,
    Approved,
    Suspended,
    Lost,
    Retired,
}

impl DeviceState {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Suspended, Self::Lost, Self::Retired];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Suspended => "suspended",
            Self::Lost => "lost",
            Self::Retired => "retired",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// Who set a device's state, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    pub by: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    SpkiSha256,
    San,
    Serial,
    Browser,
}

impl KeyKind {
    pub const ALL: [Self; 4] = [Self::SpkiSha256, Self::San, Self::Serial, Self::Browser];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpkiSha256 => "spki_sha256",
            Self::San => "san",
            Self::Serial => "serial",
            Self::Browser => "browser",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == word)
    }
}

/// What identifies a device. No key belongs to two devices. `spki_sha256` values are 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub kind: KeyKind,
    pub value: String,
    pub added: Timestamp,
}

/// A posture fact's state. A missing or expired fact is `Unknown`, which is never the same as `Fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FactState {
    Ok,
    Fail,
    Unknown,
}

impl FactState {
    pub const ALL: [Self; 3] = [Self::Ok, Self::Fail, Self::Unknown];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

pub const WELL_KNOWN_FACTS: [&str; 10] = [
    "mdm_enrolled",
    "mdm_compliant",
    "disk_encrypted",
    "screen_lock",
    "os_supported",
    "patched",
    "firewall_on",
    "edr_healthy",
    "secure_boot",
    "not_jailbroken",
];

/// What one source said of one fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// `true` is ok, `false` is fail: a source never states "unknown".
    pub ok: bool,
    pub value: Option<String>,
    pub source: String,
    pub observed_at: Timestamp,
    /// The source's own expiry. The policy also ends a fact at `observed_at` plus the source's ttl, whichever is earlier.
    pub expires_at: Option<Timestamp>,
}

/// A posture fact with what each source said of it, one observation a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub name: String,
    pub observations: Vec<Observation>,
}

/// A device record. `None` is a field that the record does not state: comparing with it is undecided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    pub name: Option<String>,
    pub user: Option<String>,
    pub team: Option<String>,
    pub tags: Vec<String>,
    pub ownership: Option<Ownership>,
    pub onnet: Option<bool>,
    pub state: DeviceState,
    pub state_changed: StateChange,
    pub os: Option<String>,
    pub os_version: Option<String>,
    pub model: Option<String>,
    pub keys: Vec<Key>,
    /// Sorted by name.
    pub posture: Vec<Fact>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Grows with every change of any device; order of `seq` is order of commit.
    pub seq: u64,
}

impl Device {
    /// A record that states nothing but its state.
    pub fn blank(id: &str, state: DeviceState, by: &str, at: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            name: None,
            user: None,
            team: None,
            tags: Vec::new(),
            ownership: None,
            onnet: None,
            state,
            state_changed: StateChange { by: by.to_owned(), at },
            os: None,
            os_version: None,
            model: None,
            keys: Vec::new(),
            posture: Vec::new(),
            created_at: at,
            updated_at: at,
            seq: 0,
        }
    }

    pub fn fact(&self, name: &str) -> Option<&Fact> {
        self.posture.iter().find(|f| f.name == name)
    }
}
