//! `vestibule schema`: the configuration's JSON Schema.

use super::failure::Failure;
use super::print::print;
use crate::config;

/// Print the configuration's JSON Schema, for editors.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<(), Failure> {
    print(&config::schema())
}
