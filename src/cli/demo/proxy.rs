//! The proxy inside the demo's process.

use std::net::SocketAddr;
use std::path::Path;

use crate::cli::failure::Failure;
use crate::site;

pub struct Proxy {
    running: site::Running,
    edge: SocketAddr,
}

impl Proxy {
    pub fn start(configuration: &Path) -> Result<Self, Failure> {
        let running = site::start(configuration)?;
        let edge = running.edge_addr("edge").ok_or_else(|| Failure("the demo's configuration has no listener `edge`".to_owned()))?;
        Ok(Self { running, edge })
    }

    pub fn edge(&self) -> SocketAddr {
        self.edge
    }

    pub fn admin(&self) -> SocketAddr {
        self.running.admin_addr()
    }

    pub fn stop(self) {
        self.running.stop();
    }
}
