//! Which server a request goes to, without sockets; time is given.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use super::*;
use crate::forward::balance::{Rank, stable_hash};
use crate::forward::fitness::{Turn, millis};
use crate::forward::servers::Place;
use crate::forward::{Ends, upstreams};

/// Servers that nobody connects to.
struct Choice {
    servers: Arc<Servers>,
    upstreams: Upstreams,
}

fn address(nth: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(nth).unwrap()], 80))
}

fn routes(balance: Balance, servers: impl IntoIterator<Item = usize>) -> Vec<Route> {
    let mut routes = Setup::of(&[]).routes;
    let upstream = &mut routes[0].upstream;
    upstream.servers = servers.into_iter().map(|nth| server(address(nth))).collect();
    (upstream.balance, upstream.slow_start) = (balance, Duration::from_secs(100));
    upstream.ejection = Ejection { failures: 1, time: Duration::from_secs(10) };
    routes
}

/// For servers that are not told whose a connection is.
fn nobody() -> Ends {
    unreachable!("nobody is told")
}

impl Choice {
    fn of(balance: Balance, servers: impl IntoIterator<Item = usize>) -> Self {
        let servers = Servers::new(&routes(balance, servers), Arc::default());
        Self { upstreams: Upstreams::new(&servers, &limits(), Writer(0)), servers }
    }

    fn app(&self) -> &upstreams::App {
        self.upstreams.app(AppId(0)).unwrap()
    }

    fn place(&self, nth: usize) -> &Place {
        let all = &self.app().targets;
        &all.iter().find(|target| target.place.reach.address == Some(address(nth))).unwrap().place
    }

    fn fail(&self, nth: usize, now: Instant) {
        self.servers.groups[0].failed("", self.place(nth), now);
    }

    /// The last octet of the chosen server's address.
    fn pick(&self, key: u64, now: Instant) -> Option<usize> {
        let (_, target, _) = self.app().pick(|| key, nobody, &[], now)?;
        let SocketAddr::V4(address) = target.place.reach.address? else { return None };
        Some(usize::from(address.ip().octets()[3]))
    }

    /// How many of `n` requests each server takes, by its number.
    fn shares(&self, n: u64, now: Instant) -> [u64; 16] {
        let mut shares = [0; 16];
        for at in 0..n {
            shares[self.pick(stable_hash(&at.to_be_bytes()), now).unwrap()] += 1;
        }
        shares
    }
}

/// Within five standard deviations of what chance makes of it: wrong once in a million runs.
#[track_caller]
fn about(count: u64, of: u64, share: f64) {
    let (n, count) = (of as f64, count as f64);
    let deviation = (n * share * (1.0 - share)).sqrt();
    assert!((count - n * share).abs() <= 5.0 * deviation, "{count} of {n}, expected {}", n * share);
}

#[test]
fn round_robin_shares_what_an_ejected_server_would_take_among_all_others() {
    let choice = Choice::of(Balance::RoundRobin, 1..=4);
    let now = Instant::now();
    assert_eq!(choice.shares(400, now)[1..=4], [100; 4]);
    choice.fail(2, now);
    assert_eq!(choice.shares(300, now)[1..=4], [100, 0, 100, 100]);
    choice.place(3).fitness.down();
    assert_eq!(choice.shares(300, now)[1..=4], [150, 0, 0, 150]);
    let back = now + Duration::from_secs(10) + Duration::from_secs(100);
    assert_eq!(choice.shares(300, back)[1..=4], [100, 100, 0, 100], "after its time, and the time that its share grows");
}

#[test]
fn of_two_at_random_the_less_busy_one_takes_it() {
    let choice = Choice::of(Balance::LeastRequests, 1..=2);
    let now = Instant::now();
    let busy = choice.app().targets[0].running();
    assert_eq!(choice.shares(100, now)[1..=2], [0, 100]);
    drop(busy);
    about(choice.shares(10_000, now)[1], 10_000, 0.5);

    // A thousand that never end: with one at random the busiest would have about 115.
    let choice = Choice::of(Balance::LeastRequests, 1..=10);
    let mut running = Vec::new();
    for _ in 0..1000 {
        let (_, target, _) = choice.app().pick(|| 0, nobody, &[], now).unwrap();
        running.push(target.running());
    }
    let most = choice.app().targets.iter().map(|target| target.running.read()).max().unwrap();
    assert!((100..=105).contains(&most), "{most}");
}

#[test]
fn a_device_stays_with_its_server_and_only_those_of_one_that_leaves_move() {
    let now = Instant::now();
    let five = Choice::of(Balance::Hash, 1..=5);
    let shares = five.shares(10_000, now);
    (1..=5).for_each(|nth| about(shares[nth], 10_000, 0.2));
    // Another proxy, another order, one server less.
    let four = Choice::of(Balance::Hash, [5, 4, 2, 1]);
    let mut moved = [0; 16];
    for key in (0..10_000_u64).map(|at| stable_hash(&at.to_be_bytes())) {
        let (before, after) = (five.pick(key, now).unwrap(), four.pick(key, now).unwrap());
        assert!(before == 3 || before == after);
        moved[after] += u64::from(before == 3);
    }
    [1, 2, 4, 5].iter().for_each(|nth| about(moved[*nth], shares[3], 0.25));
    // One that is out is as good as gone, and all come back to it.
    five.place(3).fitness.down();
    for key in (0..1000_u64).map(|at| stable_hash(&at.to_be_bytes())) {
        assert_eq!(five.pick(key, now), four.pick(key, now));
    }
}

#[test]
fn the_share_of_a_server_that_is_back_grows() {
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    for (balance, half, whole) in [
        // Half the weight of the other.
        (Balance::RoundRobin, 1.0 / 3.0, 0.5),
        // Half of its keys, half of its draws.
        (Balance::Hash, 0.25, 0.5),
        (Balance::LeastRequests, 0.25, 0.5),
    ] {
        let choice = Choice::of(balance, 1..=2);
        choice.place(1).fitness.down();
        choice.place(1).fitness.well(millis(now));
        assert_eq!(choice.shares(1000, now)[1], 0);
        about(choice.shares(10_000, later(50))[1], 10_000, half);
        about(choice.shares(10_000, later(100))[1], 10_000, whole);
    }
    // A key that came back stays.
    let choice = Choice::of(Balance::Hash, 1..=2);
    choice.place(1).fitness.down();
    choice.place(1).fitness.well(millis(now));
    for key in (0..1000_u64).map(|at| stable_hash(&at.to_be_bytes())) {
        let times = (0..=100).step_by(10).map(|seconds| choice.pick(key, later(seconds)).unwrap() == 1);
        assert!(times.is_sorted(), "once there, always there");
    }
}

#[test]
fn the_last_server_is_never_ejected_and_one_that_is_down_never_asked() {
    let now = Instant::now();
    for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Hash] {
        let choice = Choice::of(balance, 1..=3);
        (1..=3).for_each(|nth| choice.fail(nth, now));
        assert_eq!(choice.shares(30, now)[1..=3], [0, 0, 30], "{balance:?}");
        // What is left goes down: better an ejected one than none.
        choice.place(3).fitness.down();
        let shares = choice.shares(1000, now);
        assert_eq!((shares[1] + shares[2], shares[3]), (1000, 0), "{balance:?}");
        choice.place(1).fitness.down();
        choice.place(2).fitness.down();
        assert_eq!(choice.pick(0, now), None, "{balance:?}");
        let only = Choice::of(balance, [7]);
        only.fail(7, now);
        assert_eq!(only.pick(0, now), Some(7));
        only.place(7).fitness.down();
        assert_eq!(only.pick(0, now), None, "{balance:?}");
    }
}

#[test]
fn who_ejects_keeps_others_from_it_from_the_look_at_them_on() {
    let choice = Choice::of(Balance::RoundRobin, 1..=2);
    let (group, now) = (&choice.servers.groups[0], Instant::now());
    let ejected = |nth: usize| matches!(choice.place(nth).fitness.turn(|| millis(now), 0), Turn::Ejected(_));
    let (_, place) = group.places().next().unwrap();
    std::thread::scope(|scope| {
        let kept = group.entries[1].named.kept();
        // Waits in the middle of its look.
        scope.spawn(|| group.failed("", &place, now));
        let free = || group.ejecting.try_lock().is_ok();
        let end = now + Duration::from_secs(20);
        while free() {
            assert!(Instant::now() < end, "another could eject meanwhile");
            std::thread::yield_now();
        }
        assert!((0..1000).all(|_| !free()), "another could eject meanwhile");
        drop(kept);
    });
    assert!(ejected(1));
}

/// Waits without sleeping, so that both go on within nanoseconds of each other.
fn meet(arrived: &AtomicUsize) {
    let all = (arrived.fetch_add(1, SeqCst) / 2 + 1) * 2;
    for looks in 0.. {
        if arrived.load(SeqCst) >= all {
            return;
        }
        if looks % 10_000 == 9_999 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn two_that_fail_at_once_do_not_eject_each_other() {
    const ROUNDS: u32 = 500;
    let choice = Choice::of(Balance::RoundRobin, 1..=2);
    let (group, began) = (&choice.servers.groups[0], Instant::now());
    let places: Vec<_> = group.places().map(|(_, place)| place).collect();
    // New threads now and then: two that the system keeps on one processor never meet.
    for batch in 0..4 {
        let arrived = AtomicUsize::new(0);
        let out = |round: u32, nth: usize| {
            // An hour after the last, when both are back for long.
            let now = began + Duration::from_secs(3600) * (batch * ROUNDS + round);
            meet(&arrived);
            group.failed("", &places[nth], now);
            meet(&arrived);
            let out = places.iter().filter(|place| matches!(place.fitness.turn(|| millis(now), 0), Turn::Ejected(_))).count();
            meet(&arrived);
            out
        };
        let wrong = |nth: usize| (0..ROUNDS).map(|round| out(round, nth)).filter(|out| *out != 1).count();
        let wrong = std::thread::scope(|scope| [0, 1].map(|nth| scope.spawn(move || wrong(nth))).map(|thread| thread.join().unwrap()));
        assert_eq!(wrong, [0, 0], "of {ROUNDS} rounds");
    }
}

#[test]
fn a_request_is_not_tried_twice_on_one_server() {
    let now = Instant::now();
    for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Hash] {
        let choice = Choice::of(balance, 1..=4);
        choice.place(4).fitness.down();
        choice.fail(2, now);
        choice.place(1).fitness.rest(millis(now));
        let mut tried = Vec::new();
        while let Some((at, _, rank)) = choice.app().pick(|| 9, nobody, &tried, now) {
            assert_eq!(rank, [Rank::Free, Rank::Resting, Rank::Ejected][tried.len()]);
            tried.push(at);
        }
        assert_eq!(tried, [2, 0, 1], "{balance:?}: the fit one, the one that rests, the ejected one, and never the one that is down");
    }
}

#[test]
fn the_addresses_of_a_name_are_servers_of_their_own_and_the_last_answer_holds() {
    let mut routes = routes(Balance::RoundRobin, []);
    let named = Server { url: "http://app.example:80".into(), tls: false, at: At::Tcp { host: "app.example".into(), port: 80 } };
    routes[0].upstream.servers.push(named);
    let servers = Servers::new(&routes, Arc::default());
    let entry = Arc::clone(&servers.groups[0].entries[0].named);
    let addresses = || entry.places().iter().map(|place| place.reach.address).collect::<Vec<_>>();
    assert_eq!(addresses(), [None], "until there is an answer, who connects looks it up");
    let first = Upstreams::new(&servers, &limits(), Writer(0));
    assert!(!first.is_behind(&servers));

    assert!(entry.take(Ok(vec![address(2), address(1), address(2)])));
    assert_eq!(addresses(), [Some(address(1)), Some(address(2))]);
    assert!(first.is_behind(&servers));
    let second = first.next(&servers, &limits(), Writer(0));
    assert!(!second.is_behind(&servers));
    assert_eq!(second.app(AppId(0)).unwrap().targets.len(), 2);

    entry.places()[1].fitness.down();
    assert!(!entry.take(Ok(vec![address(1), address(2)])), "the same in another order");
    assert!(!entry.take(Err("no such name".into())) && !entry.take(Ok(Vec::new())));
    assert_eq!(addresses().len(), 2, "what was known stays");
    assert_eq!((entry.look_ups(), entry.looked().unwrap().error), ((2, 2), Some("no address".into())));
    assert!(!second.is_behind(&servers));

    assert!(entry.take(Ok(vec![address(2), address(3)])));
    assert_eq!(addresses(), [Some(address(2)), Some(address(3))]);
    assert_eq!(entry.places()[0].fitness.turn(|| 0, 0), Turn::Down, "what is known of it is kept");
    // A reload keeps all of it, for servers that stay.
    let next = servers.next(&routes, Arc::default());
    assert!(Arc::ptr_eq(&entry, &next.groups[0].entries[0].named));

    let many = (0..1000_u32).map(|nth| SocketAddr::from((std::net::Ipv4Addr::from(nth), 80))).collect();
    entry.take(Ok(many));
    assert_eq!(entry.places().len(), 64);
}

/// An app that answers once `go` is told, and counts the requests that wait for that.
async fn held_back() -> (App, Rc<tokio::sync::Notify>, Rc<Cell<usize>>) {
    let (go, here) = (Rc::new(tokio::sync::Notify::new()), Rc::new(Cell::new(0)));
    let (told, count) = (Rc::clone(&go), Rc::clone(&here));
    let app = App::start(move |_, mut peer| {
        let (told, count) = (Rc::clone(&told), Rc::clone(&count));
        async move {
            while !peer.head().await.is_empty() {
                count.set(count.get() + 1);
                told.notified().await;
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (app, go, here)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn asking(front: &Front) -> tokio::task::JoinHandle<String> {
    let front = front.clone();
    spawn_local(async move { front.get().await })
}

#[test]
fn a_request_goes_where_there_is_room_and_waits_for_whichever_has_it_first() {
    worker(async {
        let (one, go_one, first) = held_back().await;
        let (two, go_two, second) = held_back().await;
        let mut way = Setup::of(&[&one, &two]);
        way.limits.upstream_connections = 1;
        let front = way.start().await;
        let _stays = asking(&front);
        until(|| first.get() + second.get() == 1).await;
        // The servers begin at random.
        let (stuck, moves, go) = if first.get() == 1 { (first, second, go_two) } else { (second, first, go_one) };
        let ends = asking(&front);
        until(|| moves.get() == 1).await;
        // Whosever turn it is: only the other server becomes free.
        for served in 2..5 {
            let waits = asking(&front);
            until(|| front.upstreams.borrow().app(AppId(0)).unwrap().waiting() == 1).await;
            go.notify_one();
            until(|| moves.get() == served).await;
            assert_eq!(stuck.get(), 1);
            drop(waits);
        }
        go.notify_one();
        assert!(ends.await.unwrap().ends_with("ok"));
    });
}

#[test]
fn no_more_wait_than_permitted() {
    worker(async {
        let (one, go, here) = held_back().await;
        let mut way = Setup::of(&[&one]);
        (way.limits.upstream_connections, way.limits.upstream_waiting) = (1, 2);
        let front = way.start().await;
        let first = asking(&front);
        until(|| here.get() == 1).await;
        let waiting = [asking(&front), asking(&front)];
        until(|| front.upstreams.borrow().app(AppId(0)).unwrap().waiting() == 2).await;
        assert!(front.get().await.starts_with("HTTP/1.1 502"));
        assert!(matches!(&front.failures.borrow()[0], Failure::Unreachable(why) if why.kind() == std::io::ErrorKind::QuotaExceeded));
        assert_eq!(front.servers.up().next().unwrap().2, Some(true), "a full server is not down");
        go.notify_one();
        assert!(first.await.unwrap().ends_with("ok"));
        for ask in waiting {
            go.notify_one();
            assert!(ask.await.unwrap().ends_with("ok"));
        }
        assert_eq!(front.upstreams.borrow().app(AppId(0)).unwrap().waiting(), 0);
    });
}

#[test]
fn a_server_that_is_gone_finishes_what_runs_and_loses_its_idle_connections_at_once() {
    worker(async {
        let (app, go, here) = held_back().await;
        let (other, _) = App::recording().await;
        let way = Setup::of(&[&app]);
        let (routes, limits) = (way.routes.clone(), way.limits.clone());
        let front = way.start().await;
        let (idle, running) = (asking(&front), asking(&front));
        until(|| here.get() == 2).await;
        go.notify_one();
        until(|| front.upstreams.borrow().server("127.0.0.1", app.address.port()).count().1 == 1).await;
        let server = Rc::clone(front.upstreams.borrow().server("127.0.0.1", app.address.port()));
        assert_eq!(server.count(), (2, 1));
        let mut gone = routes;
        gone[0].upstream.servers = vec![super::server(other.address)];
        let servers = front.servers.next(&gone, Arc::default());
        let next = Rc::new(front.upstreams.borrow().next(&servers, &limits, Writer(0)));
        *front.upstreams.borrow_mut() = next;
        assert_eq!(server.count(), (1, 0));
        assert!(front.get().await.ends_with("ok") && other.accepted.get() == 1);
        go.notify_one();
        assert!(idle.await.unwrap().ends_with("ok") && running.await.unwrap().ends_with("ok"));
        until(|| server.count() == (0, 0)).await;
    });
}

#[test]
fn an_app_that_never_answers_soundly_is_ejected_and_its_5xx_are_no_failure() {
    worker(async {
        let broken = App::start(|_, mut peer| async move {
            peer.head().await;
            peer.write("what?\r\n\r\n").await;
        })
        .await;
        let unhappy = App::start(|_, mut peer| async move {
            while !peer.head().await.is_empty() {
                peer.write("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
            }
        })
        .await;
        let mut way = Setup::of(&[&broken, &unhappy]);
        way.routes[0].upstream.ejection = Ejection { failures: 3, time: Duration::from_secs(60) };
        let front = way.start().await;
        let mut codes = HashMap::new();
        for _ in 0..40 {
            *codes.entry(front.get().await[9..12].to_owned()).or_insert(0) += 1;
        }
        assert_eq!(codes, HashMap::from([("502".to_owned(), 3), ("500".to_owned(), 37)]));
        assert_eq!(front.servers.up().map(|(_, _, up)| up).collect::<Vec<_>>(), [Some(false), Some(true)]);
    });
}

#[test]
fn what_the_last_check_said_does_not_outlive_the_checks() {
    worker(async {
        let checks = |checks: bool| {
            let mut routes = routes(Balance::RoundRobin, [1]);
            let minute = Duration::from_secs(60);
            let health = crate::config::Health {
                path: "/".into(),
                host: None,
                every: minute,
                timeout: minute,
                status: vec![200..=399],
                rise: 1,
                fall: 1,
            };
            routes[0].upstream.health = checks.then_some(health);
            routes
        };
        let servers = Servers::new(&checks(true), Arc::default());
        let asking = crate::forward::rounds::checked(&servers, Vec::new());
        assert_eq!(asking.len(), 1);
        let place = Arc::clone(&asking[0].0);
        // A new configuration is made, and before anybody hears of it a check comes back.
        let next = servers.next(&checks(false), Arc::default());
        place.fitness.down();
        assert!(crate::forward::rounds::checked(&next, asking).is_empty());
        assert!(!matches!(place.fitness.turn(|| millis(Instant::now()), 0), Turn::Down), "nobody would ever take it back");
    });
}
