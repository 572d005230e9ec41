//! `vestibule schema`: the configuration's JSON Schema.

use std::io::Write;

use super::failure::Failure;
use crate::config;

/// Print the configuration's JSON Schema, for editors.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<(), Failure> {
    std::io::stdout().lock().write_all(config::schema().as_bytes())?;
    Ok(())
}
