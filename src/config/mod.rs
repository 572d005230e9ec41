//! YAML to a positioned tree to the typed configuration; every diagnostic; the JSON Schema; the reference.
//!
//! One table, `shapes.rs`, says which keys there are. `walk.rs` checks a tree against it, `schema.rs` and `reference.rs` print it, `obj.rs`
//! reads defaults from it. What no table can say - names that must exist, things that exclude each other - is in the steps of `typing.rs`.

mod apps;
mod certificates;
mod condition;
mod diff;
mod effective;
mod grants;
mod lint;
mod load;
mod names;
mod obj;
mod pem;
mod policy_tests;
mod reference;
mod report;
mod rules;
mod schema;
mod serving;
mod shape;
mod shapes;
mod signals;
pub mod signatures;
mod text;
mod typed;
mod typing;
mod units;
mod upstream;
mod walk;
mod yaml;

use std::path::{Path, PathBuf};

pub use diff::{MOST_LINES, Texts};
pub use effective::effective;
pub use load::{PemError, files, load};
pub use pem::{PemFiles, end_of};
pub use reference::reference;
pub use report::{Diagnostic, Level, Report, Stage};
pub use schema::schema;
pub use typed::{
    Admin, AskCertificate, Assertion, At, Balance, Baseline, Cache, Census, CertificateFiles, Configuration, DecisionLog, Ejection, Expect,
    FingerprintHeaders, Fingerprints, Forwarded, Hash, Health, HostHeader, Limits, Listener, LogTarget, Memory, PolicyTest, Protocol,
    ProxyProtocol, Route, Server, Store, Timeouts, Tls, Upstream, UpstreamTls,
};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub configuration: Configuration,
    pub warnings: Report,
    /// What it was read from.
    pub texts: Texts,
    /// Where the policy's exceptions stand, in their order, with nothing said of them: whoever knows the time may have to.
    pub exceptions: Vec<Diagnostic>,
    /// Where the folder of keys for assertions is named, or else the first app that asks for assertions; `None`: no app does.
    pub keys: Option<Diagnostic>,
}

/// Reads files' bytes, the main file first, then owners' files. Pure: what `policy_dir` names is what was given, certificates and keys are
/// not looked at, nor a table of known signatures, `workers: auto` is one, and relative paths stay relative to the main file's folder as it was given.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn parse(files: &[(PathBuf, Vec<u8>)]) -> Result<Loaded, Report> {
    let folder = files.first().and_then(|(main, _)| main.parent()).unwrap_or_else(|| Path::new(""));
    let mut parsed = typing::Parsed::new(files, folder, 1);
    parsed.look_up_stacks(&signatures::builtin_alone());
    parsed.finish()
}
