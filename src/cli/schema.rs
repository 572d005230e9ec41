//! `vestibule schema`: the configuration's JSON Schema.

use std::io::{ErrorKind, Write};

use super::failure::Failure;
use crate::config;

/// Print the configuration's JSON Schema, for editors.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(config::schema().as_bytes()) {
        // A reader that has seen enough is no failure: the schema is longer than what a pipe holds.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
