//! Who plays: the devices, the apps, and who visits what with which result.

use http::Method;

use crate::model::Effect;

pub struct Device {
    /// Id in the store, name of its certificate and of its curl configuration.
    pub id: &'static str,
    pub title: &'static str,
    /// For people.
    pub story: &'static str,
    /// `None`: IT has never seen it. It has no record and no certificate.
    pub record: Option<Record>,
}

pub struct Record {
    pub name: &'static str,
    pub user: &'static str,
    pub team: &'static str,
    pub ownership: &'static str,
    pub onnet: bool,
    pub source: &'static str,
    /// Facts and whether they are ok.
    pub facts: &'static [(&'static str, bool)],
}

pub struct App {
    pub name: &'static str,
    pub title: &'static str,
    pub owner: &'static str,
    pub about: &'static str,
}

impl App {
    pub fn host(&self) -> String {
        format!("{}.localhost", self.name)
    }
}

pub static DEVICES: [Device; 4] = [LAPTOP, NO_DISK, PHONE, STRANGER];

const LAPTOP: Device = Device {
    id: "laptop",
    title: "Ada's laptop",
    story: "corporate, managed, every check passes",
    record: Some(Record {
        name: "Ada's laptop",
        user: "ada",
        team: "engineering",
        ownership: "corporate",
        onnet: true,
        source: "mdm",
        facts: &[
            ("disk_encrypted", true),
            ("firewall_on", true),
            ("mdm_compliant", true),
            ("mdm_enrolled", true),
            ("os_supported", true),
            ("patched", true),
            ("screen_lock", true),
        ],
    }),
};

const NO_DISK: Device = Device {
    id: "nodisk",
    title: "Ben's laptop",
    story: "corporate, managed, its disk is not encrypted",
    record: Some(Record {
        name: "Ben's laptop",
        user: "ben",
        team: "engineering",
        ownership: "corporate",
        onnet: true,
        source: "mdm",
        facts: &[
            ("disk_encrypted", false),
            ("firewall_on", true),
            ("mdm_compliant", true),
            ("mdm_enrolled", true),
            ("os_supported", true),
            ("patched", true),
            ("screen_lock", true),
        ],
    }),
};

const PHONE: Device = Device {
    id: "phone",
    title: "Cleo's phone",
    story: "personal, approved for work",
    record: Some(Record {
        name: "Cleo's phone",
        user: "cleo",
        team: "sales",
        ownership: "personal",
        onnet: false,
        source: "manual",
        facts: &[("os_supported", true), ("screen_lock", true)],
    }),
};

const STRANGER: Device =
    Device { id: "stranger", title: "A stranger", story: "no record, no certificate: IT has never seen it", record: None };

pub static APPS: [App; 3] = [
    App { name: "wiki", title: "Team wiki", owner: "knowledge", about: "What everybody may read, and colleagues may write." },
    App { name: "payroll", title: "Payroll", owner: "finance", about: "Salaries. Only for devices that earned full trust." },
    App { name: "git", title: "Git host", owner: "engineering", about: "Source code. Trusted devices push, other laptops read." },
];

/// One visit and what the demo's policy is meant to make of it.
pub struct Visit {
    pub device: &'static Device,
    pub app: &'static App,
    pub method: Method,
    pub effect: Effect,
    pub status: u16,
}

pub fn visits() -> Vec<Visit> {
    use Effect::{Block, Forward, Restrict};
    let [laptop, no_disk, phone, stranger] = &DEVICES;
    let [wiki, payroll, git] = &APPS;
    [
        (laptop, Method::GET, wiki, Forward, 200),
        (laptop, Method::POST, wiki, Forward, 200),
        (laptop, Method::GET, payroll, Forward, 200),
        (laptop, Method::POST, git, Forward, 200),
        (no_disk, Method::POST, wiki, Forward, 200),
        (no_disk, Method::GET, payroll, Block, 403),
        (no_disk, Method::GET, git, Restrict, 200),
        (no_disk, Method::POST, git, Restrict, 403),
        (phone, Method::GET, wiki, Restrict, 200),
        (phone, Method::POST, wiki, Restrict, 403),
        (phone, Method::GET, payroll, Block, 403),
        (phone, Method::GET, git, Block, 403),
        (stranger, Method::GET, wiki, Block, 403),
        (stranger, Method::GET, payroll, Block, 403),
        (stranger, Method::GET, git, Block, 403),
    ]
    .into_iter()
    .map(|(device, method, app, effect, status)| Visit { device, app, method, effect, status })
    .collect()
}
