//! Sockets that listen, what is asked of them below tokio, and the kernel's copy of each connection's SYN. The first of the two places with `unsafe`.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// `TCP_SAVE_SYN` and `TCP_SAVED_SYN` of linux/tcp.h; since Linux 4.3, for any user.
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;
pub const BACKLOG: i32 = 4096;

/// One socket for each worker, all on one address, so that the kernel spreads connections over them.
///
/// # Errors
/// When the address is taken, by anybody: sharing it with another program (or another Vestibule) would split the traffic.
pub fn listen(addr: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let probe = bound(addr, false)?;
    drop(probe);
    let first = bound(addr, true)?;
    // Port 0 becomes a port here; the others join it.
    let addr = first.local_addr()?.as_socket().unwrap_or(addr);
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(bound(addr, true)?);
    }
    sockets.into_iter().map(open).collect()
}

/// Further sockets on an address whose sockets were inherited. Empty where its owner did not mean it to be shared, or was another user.
pub fn join(addr: SocketAddr, more: usize) -> Vec<TcpListener> {
    (0..more).map_while(|_| bound(addr, true).and_then(open).ok()).collect()
}

/// Takes a descriptor that another process opened and passed on.
///
/// # Errors
/// When it is not a listening TCP socket.
pub fn inherit(descriptor: RawFd) -> io::Result<TcpListener> {
    let socket = Socket::from(owned(descriptor)?);
    let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    match (socket.is_listener(), socket.local_addr().map(|addr| addr.as_socket())) {
        (Ok(true), Ok(Some(_))) => {}
        (Ok(true), _) => return wrong("a socket that listens on no IP address"),
        (Ok(false), _) => return wrong("a socket that does not listen (`Accept=yes` in the unit?)"),
        (Err(_), _) => return wrong("no socket"),
    }
    socket.set_cloexec(true)?;
    open(socket)
}

/// Takes a descriptor that was passed on. From here on it is closed when it is dropped.
#[allow(unsafe_code)]
pub fn owned(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD reads a flag of the descriptor, if there is such a descriptor, and touches no memory.
    if descriptor < 3 || unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an open descriptor"));
    }
    // SAFETY: it is open, and it was passed to this process for it to own: the caller asks for each once, at the start, by the list that came with
    // them, before anything else here has taken descriptors over.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn open(socket: Socket) -> io::Result<TcpListener> {
    // Linux hands it on to every connection that the socket accepts.
    socket.set_tcp_nodelay(true)?;
    // Where the kernel cannot save SYNs the fact is unavailable, no more.
    let _ = save_syn(&socket);
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bound(addr: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    if !share {
        // Without this, a socket that only shares addresses may be bound beside one that listens.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// How many descriptors this process may have open, after raising that to what the system permits: service managers start programs with 1,024.
#[allow(unsafe_code)]
pub fn descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, which lives here.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 1024;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the kernel reads one `rlimit`, which lives here.
    if limit.rlim_cur < limit.rlim_max && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
        return raised.rlim_cur;
    }
    limit.rlim_cur
}

#[allow(unsafe_code)]
fn save_syn(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    #[allow(clippy::cast_possible_truncation)] // the size of an int
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads `size` bytes of `on`, which lives here.
    let done = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, TCP_SAVE_SYN, (&raw const on).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Acknowledges what was received now, not with the next answer (`TCP_QUICKACK`). A socket that cannot is none the worse.
#[allow(unsafe_code)]
pub fn acknowledge(socket: &impl AsFd) {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads `length` bytes of `on`, which are there.
    unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, (&raw const on).cast(), length);
    }
}

/// A socket that is closed when it is dropped, and not before.
pub trait Owned: AsRawFd {}

impl Owned for TcpListener {}
impl Owned for TcpStream {}

/// Has this thread's runtime told of what `interest` names. The socket must not block.
#[allow(unsafe_code)]
pub fn watch<S: Owned>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    // SAFETY: the socket goes into the watch, has one descriptor all its life, and closes it only when it is dropped: after the watch.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// A listening socket, as `Edge::accept` takes it.
///
/// # Errors
/// When the kernel has no room to watch it.
pub fn listening(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    watch(socket, Interest::READABLE)
}

/// The next connection that waits, which does not block.
pub fn accept(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| peer.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), peer))
}

/// Reads what is there, as far as there is room for it.
#[allow(unsafe_code)]
pub fn receive(socket: &impl AsFd, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing but what was received is written there, and nothing is made uninitialised.
    let count = SockRef::from(socket).recv(unsafe { buf.unfilled_mut() })?;
    // SAFETY: the kernel has written so many bytes at its beginning.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Ok(count)
}

/// Writes what the kernel need not send before more follows or the stream ends (`MSG_MORE`).
pub fn write_more(socket: &impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    SockRef::from(socket).send_vectored_with_flags(bufs, libc::MSG_MORE | libc::MSG_NOSIGNAL)
}

/// Has the socket's end be a reset, which nobody takes for the end of what was sent.
pub fn reset(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// The IP and TCP headers of the SYN that opened this connection. It can be read once; under SYN cookies there is none.
#[allow(unsafe_code)]
pub fn saved_syn(socket: &impl AsFd) -> Option<Vec<u8>> {
    // An IPv6 header with extension headers, and the longest TCP header.
    let mut bytes = vec![0u8; 512];
    let mut length = libc::socklen_t::try_from(bytes.len()).ok()?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, the kernel writes at most `length` bytes into `bytes`, which is that
    // long, and says in `length` how many.
    let done = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), libc::IPPROTO_TCP, TCP_SAVED_SYN, bytes.as_mut_ptr().cast(), &raw mut length)
    };
    let length = usize::try_from(length).ok()?;
    if done != 0 || length == 0 || length > bytes.len() {
        return None;
    }
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn an_accepted_connection_has_its_syn_once() {
        let sockets = listen(loopback(), 1).unwrap();
        sockets[0].set_nonblocking(false).unwrap();
        let client = TcpStream::connect(sockets[0].local_addr().unwrap()).unwrap();
        let (accepted, _) = sockets[0].accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "or each small write waits for the peer's acknowledgement");
        let syn = saved_syn(&accepted).unwrap();
        let port = client.local_addr().unwrap().port().to_be_bytes();
        assert_eq!((syn[0] >> 4, syn[9]), (4, 6), "IPv4 that carries TCP");
        assert_eq!(syn[20..22], port);
        assert_eq!(syn[33] & 0x3f, 0x02, "SYN and no other flag");
        assert_eq!(saved_syn(&accepted), None);
    }

    #[test]
    fn workers_share_a_port_that_nobody_else_gets() {
        let sockets = listen(loopback(), 3).unwrap();
        let addr = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == addr));
        assert_eq!(listen(addr, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
