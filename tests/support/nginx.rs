//! nginx, as an app or in front.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use super::{Lab, eventually, program};

/// nginx with this `server` block's inside. Ended when dropped.
pub struct Nginx {
    child: Child,
    pub port: u16,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// In the foreground and as one process, so that ending it ends all of it.
    pub fn start(lab: &Lab, server: &str) -> Self {
        // Its port may be taken by then.
        (0..5).find_map(|_| Self::try_start(lab, server)).expect("nginx starts")
    }

    fn try_start(lab: &Lab, server: &str) -> Option<Self> {
        let (dir, port) = (lab.dir().display(), free_port());
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {dir}/nginx-temp;")).join(" ");
        let config = lab.write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid {dir}/nginx.pid; error_log stderr; events {{}}
                http {{ access_log off; {temp} default_type text/plain; server {{ listen 127.0.0.1:{port}; {server} }} }}"
            ),
        );
        let child = program("nginx").arg("-c").arg(config).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut nginx = Self { child, port };
        eventually("nginx listens or ends", || {
            let ended = nginx.child.try_wait().unwrap().is_some();
            (ended || TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(!ended)
        })
        .then_some(nginx)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Free a moment ago; another program may take it.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
