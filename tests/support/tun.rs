//! A network of one host and whoever a test wants to be: a TUN device in a network namespace of its own.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use super::packets::{ACK, FIN, PSH, Packet, SYN, System};

/// Set inside the namespace.
const INSIDE: &str = "VESTIBULE_TEST_NAMESPACE";

/// Runs `work` with a network and mounts of its own, where this test's process may do as it likes: the test runs itself again in there. Needs root or
/// sudo, and fails without.
#[track_caller]
pub fn inside(test: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    // SAFETY: it only reads.
    #[allow(unsafe_code)]
    let root = unsafe { libc::geteuid() } == 0;
    let mut command = if root { Command::new("unshare") } else { Command::new("sudo") };
    if !root {
        command.args(["-n", "unshare"]);
    }
    command.args(["--net", "--mount", "env"]).arg(format!("{INSIDE}=1")).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).output().expect("`unshare` of util-linux runs");
    assert!(
        output.status.success(),
        "in a network namespace (it takes root, or sudo without a password):\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The host's side is `10.9.0.1` and `fd09::1`; everybody else in `10.9.0.0/16` and `fd09::/64` is the test.
pub struct Tun(File);

pub const HOST4: &str = "10.9.0.1";
pub const HOST6: &str = "fd09::1";

impl Tun {
    pub fn new() -> Self {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
        // struct ifreq: a name, then flags.
        let mut request = [0_u8; 40];
        request[..4].copy_from_slice(b"tun9");
        const TUN_NO_PI: u16 = 0x1001;
        request[16..18].copy_from_slice(&TUN_NO_PI.to_ne_bytes());
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        // SAFETY: the kernel reads and writes one ifreq, which lives here and is that long.
        #[allow(unsafe_code)]
        let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, request.as_mut_ptr()) };
        assert_eq!(done, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        for args in [
            "link set lo up",
            &format!("addr add {HOST4}/16 dev tun9"),
            &format!("-6 addr add {HOST6}/64 dev tun9 nodad"),
            "link set tun9 up",
        ] {
            let output = super::program("ip").args(args.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Self(file)
    }

    /// Somebody of this system connects.
    pub fn connect(&mut self, from: SocketAddr, to: SocketAddr, system: System) -> Peer<'_> {
        let mut peer = Peer { tun: self, from, to, system, sequence: 0x1234_5678, acknowledges: 0, received: Vec::new(), ended: false };
        let syn = Packet::syn(from, to, peer.sequence, system);
        peer.tun.0.write_all(&syn.bytes()).unwrap();
        peer.sequence = peer.sequence.wrapping_add(1);
        peer.wait(|peer| peer.acknowledges != 0);
        peer
    }

    /// The next TCP segment; anything else (IPv6 looks for neighbours) is passed over. `None` at the deadline.
    fn segment(&mut self, end: Instant) -> Option<Vec<u8>> {
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: one pollfd, which lives here.
            #[allow(unsafe_code)]
            let ready = unsafe { libc::poll(&raw mut poll, 1, millis) };
            if ready <= 0 {
                continue;
            }
            let mut packet = vec![0; 70_000];
            let length = self.0.read(&mut packet).unwrap();
            packet.truncate(length);
            match packet[0] >> 4 {
                4 if packet[9] == 6 => return Some(packet),
                6 if packet[6] == 6 => return Some(packet),
                _ => {}
            }
        }
    }
}

/// A TCP peer made of crafted segments. The device loses nothing, so nothing is sent twice.
pub struct Peer<'a> {
    tun: &'a mut Tun,
    from: SocketAddr,
    to: SocketAddr,
    system: System,
    sequence: u32,
    acknowledges: u32,
    received: Vec<u8>,
    ended: bool,
}

impl Peer<'_> {
    pub fn send(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(1000) {
            let segment = self.packet(ACK | PSH).with(part);
            self.tun.0.write_all(&segment.bytes()).unwrap();
            self.sequence = self.sequence.wrapping_add(u32::try_from(part.len()).unwrap());
        }
    }

    /// Everything until the host closes.
    pub fn read_all(&mut self) -> Vec<u8> {
        self.wait(|peer| peer.ended);
        std::mem::take(&mut self.received)
    }

    fn packet(&self, flags: u8) -> Packet {
        let system = System { options: &[], ..self.system };
        let (acknowledges, sequence) = (self.acknowledges, self.sequence);
        Packet { acknowledges, flags, system, ..Packet::new(self.from, self.to, sequence) }
    }

    #[track_caller]
    fn wait(&mut self, until: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !until(self) {
            let segment = self.tun.segment(end).expect("the host answers in time");
            let ip = match self.from.ip() {
                IpAddr::V4(_) => 20,
                IpAddr::V6(_) => 40,
            };
            let tcp = &segment[ip..];
            if tcp[2..4] != self.from.port().to_be_bytes() || tcp[..2] != self.to.port().to_be_bytes() {
                continue;
            }
            assert_eq!(tcp[13] & 0x04, 0, "the host reset the connection");
            let (sequence, flags) = (u32::from_be_bytes(tcp[4..8].try_into().unwrap()), tcp[13]);
            let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
            if flags & SYN != 0 {
                self.acknowledges = sequence.wrapping_add(1);
            } else if sequence == self.acknowledges {
                self.received.extend(payload);
                self.acknowledges = self.acknowledges.wrapping_add(u32::try_from(payload.len()).unwrap());
                if flags & FIN != 0 {
                    self.acknowledges = self.acknowledges.wrapping_add(1);
                    self.ended = true;
                }
            }
            if flags & (SYN | FIN) != 0 || !payload.is_empty() {
                let ack = self.packet(ACK).bytes();
                self.tun.0.write_all(&ack).unwrap();
            }
        }
    }
}
