//! The demo's device records, brought into its store.

use std::time::Duration;

use super::home::Home;
use crate::cli::failure::Failure;
use crate::config;
use crate::posture::import::{Format, Import};
use crate::posture::store::{Access, Store};
use crate::posture::values::{self, By, Terms};

/// As `vestibule devices import` does it.
pub fn import(home: &Home) -> Result<(), Failure> {
    let configuration = config::load(&home.configuration())?.configuration;
    let file = home.records();
    let name = file.display().to_string();
    let bytes = std::fs::read(&file).map_err(|error| Failure(format!("{name} cannot be read: {error}")))?;
    let now = values::now();
    let terms = Terms { now, sources: Some(&configuration.policy.sources), folder: home.path() };
    let import = Import::read(&name, &bytes, Format::Json, &terms)?;
    let mut store = Store::open(&configuration.store.path, Access::Create, Duration::from_secs(5))?;
    import.write(&mut store, &By::new("demo")?, now)?;
    Ok(())
}
