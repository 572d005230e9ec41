use super::*;

const PATIENCE: Patience = Patience { idle: Duration::from_secs(60), head: Duration::from_secs(10) };

fn after(leash: &Leash, seconds: u64) {
    leash.now.set(leash.now.get() + Duration::from_secs(seconds));
}

fn leash() -> Rc<Leash> {
    Rc::new(Leash::new(Arc::from("edge"), Rc::new(Cell::new(Instant::now()))))
}

#[test]
fn a_head_that_trickles_is_cut_however_often_bytes_come() {
    let leash = leash();
    leash.bytes_came();
    after(&leash, 6);
    leash.bytes_came();
    assert_eq!(leash.look(&PATIENCE), None);
    after(&leash, 4);
    assert_eq!(leash.look(&PATIENCE), Some(Cut::SlowHead));
    assert_eq!(leash.order(), Order::Cut);
}

#[test]
fn a_connection_without_a_request_is_asked_to_end_and_then_made_to() {
    let leash = leash();
    after(&leash, 60);
    assert_eq!(leash.look(&PATIENCE), None);
    assert_eq!(leash.order(), Order::Drain);
    after(&leash, 10);
    assert_eq!(leash.look(&PATIENCE), None);
    assert_eq!(leash.order(), Order::Cut);
}

#[test]
fn a_long_answer_is_not_idleness_but_a_peer_that_takes_nothing_is_cut() {
    let leash = leash();
    let busy = leash.busy();
    after(&leash, 3600);
    assert_eq!(leash.look(&PATIENCE), None);
    assert_eq!(noted(&leash, Poll::<()>::Pending), Poll::Pending);
    after(&leash, 60);
    assert_eq!(leash.look(&PATIENCE), Some(Cut::SlowRead));
    drop(busy);
}

#[tokio::test]
async fn vectored_writes_pass_through_every_wrapper_whole() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut io = Watched::http1(crate::edge::opening::Replayed::new(Vec::new(), stream), leash());
    assert!(io.is_write_vectored());
    let parts = [io::IoSlice::new(b"head "), io::IoSlice::new(b"body")];
    let written = std::future::poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &parts)).await.unwrap();
    assert_eq!(written, 9, "one write took both");
}

/// Bytes as they come, and how often it was told that none did.
struct Feed(Vec<&'static [u8]>, std::sync::atomic::AtomicU32);

impl Feed {
    fn told(&self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl AsyncRead for Feed {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(bytes) = self.0.pop() else { return Poll::Pending };
        buf.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_client_is_acknowledged_at_once_unless_its_request_is_here() {
    let read = |io: &mut Watched<Feed>| {
        let mut bytes = [0; 100];
        Pin::new(io).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut bytes)).is_ready()
    };
    for (come, asks, told) in [(&[][..], false, 1), (&[&b"GET"[..]][..], false, 1), (&[&b"GET / HTTP/1.1\r\n\r\n"[..]][..], true, 0)] {
        let leash = leash();
        let mut io = Watched::http1(Feed(come.to_vec(), 0.into()), Rc::clone(&leash)).waiting(Some(Feed::told));
        for _ in come {
            assert!(read(&mut io));
        }
        if asks {
            leash.asked_whole();
        }
        assert!(!read(&mut io) && !read(&mut io));
        assert_eq!(io.inner.1.into_inner(), told, "{come:?}");
    }
}

#[test]
fn a_window_that_stays_shut_is_cut_and_an_app_that_is_slow_is_not() {
    let leash = leash();
    leash.multiplexed.set(true);
    let (mut shut, mut slow) = (leash.busy(), leash.busy());
    slow.asked(true);
    slow.asked(false);
    after(&leash, 3600);
    assert_eq!(leash.look(&PATIENCE), None);
    shut.asked(true);
    after(&leash, 59);
    assert_eq!(leash.look(&PATIENCE), None);
    after(&leash, 1);
    assert_eq!(leash.look(&PATIENCE), Some(Cut::SlowRead));
    drop((shut, slow));
    assert_eq!(leash.offers.borrow().all().count(), 0);
}

/// Whoever opens another stream now and then moves, and reads nothing all the same.
#[test]
fn a_peer_that_takes_nothing_is_cut_whichever_of_its_answers_moved_last() {
    let leash = leash();
    leash.multiplexed.set(true);
    let (mut stands, mut moves) = (leash.busy(), leash.busy());
    stands.asked(true);
    assert_eq!(noted(&leash, Poll::<()>::Pending), Poll::Pending);
    after(&leash, 59);
    moves.asked(true);
    assert_eq!(leash.look(&PATIENCE), None);
    after(&leash, 1);
    assert_eq!(leash.look(&PATIENCE), Some(Cut::SlowRead));
}

#[test]
fn an_answer_that_moves_hides_no_other_that_stands() {
    let leash = leash();
    leash.multiplexed.set(true);
    let (mut shut, mut moves) = (leash.busy(), leash.busy());
    shut.asked(true);
    for _ in 0..59 {
        moves.asked(true);
        after(&leash, 1);
        assert_eq!((leash.look(&PATIENCE), leash.order()), (None, Order::Go));
    }
    after(&leash, 1);
    moves.asked(true);
    assert_eq!((leash.look(&PATIENCE), leash.order()), (None, Order::Drain), "the others may end");
    for _ in 0..59 {
        moves.asked(true);
        after(&leash, 1);
        assert_eq!(leash.look(&PATIENCE), None);
    }
    moves.asked(true);
    after(&leash, 1);
    assert_eq!(leash.look(&PATIENCE), Some(Cut::SlowRead));
    // Places are used again.
    drop((shut, moves));
    let mut one = leash.busy();
    one.asked(true);
    assert_eq!(leash.offers.borrow().since.len(), 2);
}

#[test]
fn an_order_is_heard_once_and_never_taken_back() {
    struct Heard(std::sync::atomic::AtomicU32);
    impl std::task::Wake for Heard {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let heard = std::sync::Arc::new(Heard(0.into()));
    let leash = leash();
    leash.heed(&Waker::from(std::sync::Arc::clone(&heard)));
    for order in [Order::Drain, Order::Drain, Order::Cut, Order::Drain, Order::Cut] {
        leash.tell(order);
    }
    assert_eq!((leash.order(), heard.0.load(std::sync::atomic::Ordering::Relaxed)), (Order::Cut, 2));
}

#[test]
fn what_has_only_just_come_may_ask_once_before_it_winds_down() {
    let (silent, asks) = (leash(), leash());
    for leash in [&silent, &asks] {
        leash.tell(Order::Drain);
        assert!(!leash.winds_down());
    }
    drop(asks.busy());
    assert!(asks.winds_down());
    after(&silent, 1);
    assert_eq!(silent.look(&PATIENCE), None);
    assert!(silent.winds_down(), "it is not waited for longer");
}

#[test]
fn the_connections_of_one_listener_can_be_told() {
    let all = Leashes::new();
    let (edge, other) = (all.add(&Arc::from("edge")), all.add(&Arc::from("other")));
    all.tell_those(Order::Drain, |leash| leash.listener() == "edge");
    assert_eq!((edge.leash.order(), other.leash.order()), (Order::Drain, Order::Go));
}

#[test]
fn idleness_begins_when_the_last_of_several_requests_ends() {
    let leash = leash();
    let (first, second) = (leash.busy(), leash.busy());
    drop(first);
    after(&leash, 3600);
    drop(second);
    assert_eq!(leash.look(&PATIENCE), None);
    assert_eq!(leash.order(), Order::Go);
}
