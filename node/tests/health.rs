//! Checks of real servers on loopback, and what is told of them.

#![cfg(unix)]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use evenkeel_control::{HealthCheck, HealthConfig};
use evenkeel_core::service::{RealServerId, ServiceId};
use evenkeel_node::health::{CheckSpec, Checks, HealthEvent, IN_FLIGHT_MAX, IcmpError, WHY_LEN_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// Far beyond what any of these takes: who waits so long hangs.
const HANGS: Duration = Duration::from_secs(60);
/// Between the checks of one server.
const INTERVAL: Duration = Duration::from_millis(20);
/// Where an answer is awaited that comes: who waits for the end of it hangs, too.
const LONG: Duration = Duration::from_secs(300);
/// Where none comes.
const SHORT: Duration = Duration::from_millis(100);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(HANGS, test).await.expect("the test hangs") });
}

fn config(check: HealthCheck, timeout: Duration) -> HealthConfig {
    HealthConfig {
        check,
        interval: INTERVAL,
        timeout,
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn spec(server: u16, addr: SocketAddr, health: HealthConfig) -> CheckSpec {
    CheckSpec {
        service: ServiceId(1),
        server: RealServerId(server),
        addr,
        health: Arc::new(health),
    }
}

fn http(path: &str) -> HealthCheck {
    HealthCheck::Http {
        path: path.into(),
        host: None,
        status: (200, 399),
    }
}

fn udp(send: &[u8], expect: Option<&[u8]>) -> HealthCheck {
    HealthCheck::Udp {
        send: send.to_vec(),
        expect: expect.map(<[u8]>::to_vec),
    }
}

fn start(specs: Vec<CheckSpec>) -> (Checks, mpsc::Receiver<HealthEvent>) {
    let (sender, events) = mpsc::channel(64);
    let checks = Checks::spawn(7, specs, sender).expect("ICMP can be asked for");
    (checks, events)
}

/// What is told first of the server at `addr`, which is the only one.
async fn first(addr: SocketAddr, check: HealthCheck, timeout: Duration) -> HealthEvent {
    let (_checks, mut events) = start(vec![spec(5, addr, config(check, timeout))]);
    let event = events.recv().await.expect("an event");
    assert_eq!((event.service, event.server), (ServiceId(1), RealServerId(5)));
    assert!(event.why.len() <= WHY_LEN_MAX && !event.why.is_empty());
    event
}

async fn listener() -> (TcpListener, SocketAddr) {
    listener_at("127.0.0.1:0").await
}

async fn listener_at(addr: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(addr).await.expect("a listener");
    let addr = listener.local_addr().expect("its address");
    (listener, addr)
}

/// An address at which nobody listens, and nobody else can as long as the socket is there.
fn closed() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a port");
    let addr = socket.local_addr().expect("its address");
    (socket, addr)
}

/// Reads the head of a request. `None`: whoever asked has gone.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).expect("a head of ASCII"))
}

/// A server that answers every request with `answer`, and says what it was asked.
fn serve(
    listener: TcpListener,
    answer: impl Fn() -> Vec<u8> + Send + 'static,
) -> mpsc::UnboundedReceiver<String> {
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(request) = head(&mut stream).await else {
                continue;
            };
            // Who asked may be gone by now, and whoever wants to know, too.
            let _ = stream.write_all(&answer()).await;
            let _ = sender.send(request);
        }
    });
    requests
}

fn status(code: u16) -> Vec<u8> {
    format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn tcp_listener_is_up() {
    run(async {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let (_listener, addr) = listener_at(addr).await;
            let event = first(addr, HealthCheck::Tcp, LONG).await;
            assert!(event.up, "{event:?}");
        }
    });
}

#[test]
fn tcp_port_of_nobody_is_down_at_once() {
    run(async {
        let (_socket, addr) = closed();
        // The timeout is never waited for.
        let event = first(addr, HealthCheck::Tcp, LONG).await;
        assert!(!event.up && event.why.contains("refused"), "{event:?}");
    });
}

#[test]
fn tcp_checks_another_port_if_the_config_says_so() {
    run(async {
        let (_listener, open) = listener().await;
        let (_socket, closed) = closed();
        let mut health = config(HealthCheck::Tcp, LONG);
        health.port = Some(open.port());
        let (_checks, mut events) = start(vec![spec(1, closed, health)]);
        assert!(events.recv().await.expect("an event").up);
    });
}

#[test]
fn tcp_check_leaves_nothing_behind() {
    run(async {
        let (listener, addr) = listener().await;
        let (_checks, mut events) = start(vec![spec(1, addr, config(HealthCheck::Tcp, LONG))]);
        let (mut stream, _) = listener.accept().await.expect("a connection");
        assert!(events.recv().await.expect("an event").up);
        let end = stream.read_u8().await.expect_err("nothing is said");
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn http_status_decides() {
    run(async {
        for (code, up) in [
            (200, true),
            (204, true),
            (301, true),
            (399, true),
            (404, false),
            (500, false),
            (503, false),
        ] {
            let (listener, addr) = listener().await;
            let _requests = serve(listener, move || status(code));
            let event = first(addr, http("/"), LONG).await;
            assert_eq!((event.up, event.why), (up, format!("status {code}")));
        }
    });
}

#[test]
fn http_asks_for_path_and_host() {
    run(async {
        for (host, wanted) in [
            (Some("www.example.com".to_owned()), "www.example.com".to_owned()),
            (None, String::new()),
        ] {
            let (listener, addr) = listener().await;
            let wanted = if host.is_some() { wanted } else { addr.to_string() };
            let mut requests = serve(listener, || status(204));
            let check = HealthCheck::Http {
                path: "/healthz?full=1&a='%20'".into(),
                host,
                status: (204, 204),
            };
            assert!(first(addr, check, LONG).await.up);
            let request = requests.recv().await.expect("a request").to_ascii_lowercase();
            assert!(
                request.starts_with("get /healthz?full=1&a='%20' http/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains(&format!("\r\nhost: {wanted}\r\n")), "{request}");
            assert!(request.contains("\r\nconnection: close\r\n"), "{request}");
        }
    });
}

#[test]
fn http_reads_no_body() {
    run(async {
        let (listener, addr) = listener().await;
        // A body that is announced and never comes.
        let _requests = serve(listener, || {
            b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec()
        });
        let event = first(addr, http("/"), LONG).await;
        assert!(event.up, "{event:?}");
    });
}

#[test]
fn http_server_that_never_answers_is_down() {
    run(async {
        // The kernel accepts; nobody reads.
        let (_listener, addr) = listener().await;
        let event = first(addr, http("/"), SHORT).await;
        assert_eq!((event.up, event.why.as_str()), (false, "no answer within 100ms"));
        // A check of TCP has nothing against it.
        assert!(first(addr, HealthCheck::Tcp, LONG).await.up);
    });
}

#[test]
fn http_server_that_closes_is_down_at_once() {
    run(async {
        let (listener, addr) = listener().await;
        let _requests = serve(listener, Vec::new);
        let event = first(addr, http("/"), LONG).await;
        assert!(!event.up && event.why.contains("closed"), "{event:?}");
    });
}

#[test]
fn http_answer_that_is_none_is_down_at_once() {
    run(async {
        for answer in [
            "220 mail.example.com ESMTP\r\n",
            "HTTP/1.1 two hundred\r\n\r\n",
            "\0\0\0\0\r\n\r\n",
        ] {
            let (listener, addr) = listener().await;
            let _requests = serve(listener, move || answer.as_bytes().to_vec());
            let event = first(addr, http("/"), LONG).await;
            assert!(!event.up, "{answer:?}: {event:?}");
        }
    });
}

#[test]
fn http_head_that_drips_is_down_after_the_timeout() {
    run(async {
        let (listener, addr) = listener().await;
        let dripped = Arc::new(AtomicUsize::new(0));
        let drips = dripped.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut pace = tokio::time::interval(Duration::from_millis(1));
                let head = b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
                for byte in head {
                    pace.tick().await;
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    drips.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let event = first(addr, http("/"), SHORT).await;
        assert_eq!((event.up, event.why.as_str()), (false, "no answer within 100ms"));
        assert!(
            dripped.load(Ordering::Relaxed) > 1,
            "there was more than one drop"
        );
    });
}

#[test]
fn http_head_that_is_too_long_is_down_at_once() {
    run(async {
        let (listener, addr) = listener().await;
        let held = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            head(&mut stream).await.expect("a request");
            let mut answer = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
            answer.resize(64 << 10, b'x');
            // Whoever asked may have gone before the end of it.
            let _ = stream.write_all(&answer).await;
            stream
        });
        let event = first(addr, http("/"), LONG).await;
        assert!(!event.up && event.why.contains("too large"), "{event:?}");
        held.await.expect("a server that did not close first");
    });
}

/// A UDP server that answers with what `answer` makes of the question.
async fn udp_server(addr: &str, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(addr).await.expect("a socket");
    let addr = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut question = [0; 2048];
        while let Ok((n, from)) = socket.recv_from(&mut question).await {
            if let Some(answer) = answer(&question[..n]) {
                // Who asked may be gone.
                let _ = socket.send_to(&answer, from).await;
            }
        }
    });
    addr
}

#[test]
fn udp_echo_is_up() {
    run(async {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let addr = udp_server(addr, |q| Some(q.to_vec())).await;
            for expect in [None, Some(&b"\0pi"[..]), Some(&b"\0ping"[..])] {
                let event = first(addr, udp(b"\0ping", expect), LONG).await;
                assert_eq!((event.up, event.why.as_str()), (true, "an answer of 5 bytes"));
            }
        }
    });
}

#[test]
fn udp_answer_that_is_not_expected_is_down() {
    run(async {
        let addr = udp_server("127.0.0.1:0", |_| Some(b"pong".to_vec())).await;
        for expect in [&b"pang"[..], b"pong!"] {
            let event = first(addr, udp(b"ping", Some(expect)), LONG).await;
            assert_eq!(
                (event.up, event.why.as_str()),
                (false, "the answer begins with hex:70:6f:6e:67")
            );
        }
    });
}

#[test]
fn udp_port_of_nobody_is_down_at_once() {
    run(async {
        // A socket that is connected elsewhere: the port is taken, and to us closed.
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let addr = socket.local_addr().expect("its address");
        socket.connect("127.0.0.1:9").await.expect("a peer");
        let event = first(addr, udp(b"ping", None), LONG).await;
        assert!(!event.up && event.why.contains("refused"), "{event:?}");
    });
}

#[test]
fn udp_silence_is_down() {
    run(async {
        let addr = udp_server("127.0.0.1:0", |_| None).await;
        let event = first(addr, udp(b"ping", None), SHORT).await;
        assert_eq!((event.up, event.why.as_str()), (false, "no answer within 100ms"));
    });
}

/// Checks both loopback addresses, twenty at a time: each takes its own reply.
async fn loopback_replies() -> Result<(), IcmpError> {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        let addr: SocketAddr = addr.parse().expect("an address");
        let (sender, mut events) = mpsc::channel(64);
        let specs = (0..20)
            .map(|i| spec(i, addr, config(HealthCheck::Icmp, LONG)))
            .collect();
        let checks = Checks::spawn(7, specs, sender)?;
        for _ in 0..20 {
            let event = events.recv().await.expect("an event");
            assert_eq!((event.up, event.why.as_str()), (true, "echo reply"), "{addr}");
        }
        assert_eq!(checks.stats().failed, 0);
    }
    Ok(())
}

#[test]
fn icmp_echo_of_loopback_is_up() {
    run(async {
        if let Err(error) = loopback_replies().await {
            println!("SKIP: {error}");
        }
    });
}

/// The name of the test that this process was started for, in a network namespace of its own.
const INSIDE: &str = "EVENKEEL_TEST_INSIDE";

/// Runs `test`, which is called `name`, in a network namespace whose loopback is up and for which the shell has run
/// `setup`; `with` is a command that the test is run by. The namespace goes with the process.
fn in_a_namespace(name: &str, setup: &str, with: &str, test: impl Future<Output = ()>) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        return run(test);
    }
    let script =
        format!("ip link set lo up && {setup} || exit 77; exec {with} \"$0\" --exact {name} --nocapture");
    let program = std::env::current_exe().expect("a path");
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--net", "sh", "-c", &script])
        .arg(program)
        .env(INSIDE, name);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("SKIP: no unshare: {error}"),
    };
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.code() == Some(77) || said.contains("unshare failed") {
        return println!("SKIP: no namespace to test in: {}", said.trim());
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

const WITHOUT_CAPABILITY: &str = "setpriv --bounding-set=-net_raw --inh-caps=-net_raw";

#[test]
fn icmp_needs_no_capability_where_ping_does_not() {
    in_a_namespace(
        "icmp_needs_no_capability_where_ping_does_not",
        "echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range",
        WITHOUT_CAPABILITY,
        async { loopback_replies().await.expect("ping sockets are allowed") },
    );
}

#[test]
fn icmp_that_is_not_permitted_is_refused_at_start() {
    in_a_namespace(
        "icmp_that_is_not_permitted_is_refused_at_start",
        "echo '1 0' >/proc/sys/net/ipv4/ping_group_range",
        WITHOUT_CAPABILITY,
        async {
            let addr: SocketAddr = "127.0.0.1:0".parse().expect("an address");
            let icmp = spec(1, addr, config(HealthCheck::Icmp, LONG));
            let (sender, mut events) = mpsc::channel(64);
            let error = Checks::spawn(7, vec![icmp.clone()], sender)
                .expect_err("not permitted")
                .to_string();
            for word in ["IPv4", "CAP_NET_RAW", "net.ipv4.ping_group_range"] {
                assert!(error.contains(word), "{error}");
            }
            assert_eq!(events.recv().await, None, "nothing was started");

            // A reload is refused as well, and nothing changes.
            let (_listener, open) = listener().await;
            let (mut checks, mut events) = start(vec![spec(2, open, config(HealthCheck::Tcp, LONG))]);
            assert!(events.recv().await.expect("an event").up);
            let done = checks.stats().succeeded;
            checks.update(vec![icmp]).expect_err("not permitted");
            while checks.stats().succeeded < done + 2 {
                tokio::task::yield_now().await;
            }
        },
    );
}

#[test]
fn icmp_silence_is_down() {
    in_a_namespace(
        "icmp_silence_is_down",
        "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all",
        "",
        async {
            let addr = "127.0.0.1:0".parse().expect("an address");
            let event = first(addr, HealthCheck::Icmp, SHORT).await;
            assert_eq!((event.up, event.why.as_str()), (false, "no answer within 100ms"));
        },
    );
}

#[test]
fn a_host_without_sockets_blames_no_server() {
    in_a_namespace(
        "a_host_without_sockets_blames_no_server",
        "ulimit -n 64",
        "",
        async {
            let (_listener, addr) = listener().await;
            let mut taken = Vec::new();
            while let Ok(socket) = TcpSocket::new_v4() {
                taken.push(socket);
                assert!(taken.len() < 64, "there is no limit");
            }
            let kinds = [HealthCheck::Tcp, http("/"), udp(b"ping", None)];
            let specs = (0..)
                .zip(kinds)
                .map(|(i, kind)| spec(i, addr, config(kind, LONG)));
            let (checks, mut events) = start(specs.collect());
            while checks.stats().not_made < 10 {
                tokio::task::yield_now().await;
            }
            let stats = checks.stats();
            assert_eq!((stats.succeeded, stats.failed), (0, 0));
            assert!(stats.not_made_why.is_some_and(|why| why.contains("open files")));
            assert!(events.try_recv().is_err(), "nothing is known");
            let why = |server| checks.not_made(ServiceId(1), RealServerId(server));
            while why(2).is_none() {
                tokio::task::yield_now().await;
            }
            assert!(why(2).is_some_and(|why| why.contains("open files")) && why(3).is_none());
            drop(taken);
            while why(2).is_some() {
                tokio::task::yield_now().await;
            }
            let event = events.recv().await.expect("an event");
            assert!(event.up || event.server != RealServerId(0), "{event:?}");
        },
    );
}

#[test]
fn rise_and_fall_are_counted_by_real_answers() {
    run(async {
        let (listener, addr) = listener().await;
        let code = Arc::new(AtomicU16::new(200));
        let answer = code.clone();
        let mut requests = serve(listener, move || status(answer.load(Ordering::Relaxed)));
        let mut health = config(http("/"), LONG);
        (health.rise, health.fall) = (4, 6);
        let (checks, mut events) = start(vec![spec(1, addr, health)]);
        let mut next = async |up, why: &str| {
            let event = events.recv().await.expect("an event");
            assert_eq!((event.up, event.why.as_str()), (up, why));
            let mut count = 0;
            while requests.try_recv().is_ok() {
                count += 1;
            }
            count
        };
        next(true, "status 200").await;
        for _ in 0..2 {
            code.store(500, Ordering::Relaxed);
            let asked = next(false, "status 500").await;
            assert!(asked >= 6, "down after {asked}");
            code.store(200, Ordering::Relaxed);
            let asked = next(true, "status 200").await;
            assert!(asked >= 4, "up after {asked}");
        }
        let stats = checks.stats();
        assert!(
            stats.succeeded >= 9 && stats.failed >= 12 && stats.not_made == 0,
            "{stats:?}"
        );
    });
}

#[test]
fn a_hung_server_delays_no_other() {
    run(async {
        let (hung, hung_addr) = listener().await;
        let (listener, addr) = listener().await;
        let mut requests = serve(listener, || status(200));
        let hanging = (0..20).map(|i| spec(i, hung_addr, config(http("/"), LONG)));
        let (checks, mut events) = start(hanging.chain([spec(99, addr, config(http("/"), LONG))]).collect());
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(hung.accept().await.expect("a connection"));
        }
        // All of them hang, and the other one is asked time and again.
        let event = events.recv().await.expect("an event");
        assert_eq!((event.server, event.up), (RealServerId(99), true));
        while requests.try_recv().is_ok() {}
        for _ in 0..5 {
            requests.recv().await.expect("another request");
        }
        assert!(events.try_recv().is_err(), "nothing is known of those that hang");
        assert_eq!(checks.stats().failed, 0);
    });
}

#[test]
fn checks_under_way_are_bounded() {
    run(async {
        const MORE: u64 = 44;
        let (hung, addr) = listener().await;
        let servers = IN_FLIGHT_MAX as u16 + MORE as u16;
        let (checks, mut events) = start(
            (0..servers)
                .map(|i| spec(i, addr, config(http("/"), LONG)))
                .collect(),
        );
        let mut held = Vec::new();
        for _ in 0..IN_FLIGHT_MAX {
            held.push(hung.accept().await.expect("a connection").0);
        }
        while checks.stats().late < MORE {
            tokio::task::yield_now().await;
        }
        let mut more = Box::pin(hung.accept());
        let waits = std::future::poll_fn(|cx| Poll::Ready(more.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "one more than {IN_FLIGHT_MAX} are under way");
        // Whoever comes to an end makes room for one.
        drop(held.pop());
        assert!(!events.recv().await.expect("an event").up);
        held.push(more.await.expect("the next one").0);
        let mut more = Box::pin(hung.accept());
        let waits = std::future::poll_fn(|cx| Poll::Ready(more.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "two came for one");
    });
}

#[test]
fn update_keeps_what_is_known_of_those_that_stay() {
    run(async {
        let (listener, addr) = listener().await;
        let code = Arc::new(AtomicU16::new(200));
        let answer = code.clone();
        let mut requests = serve(listener, move || status(answer.load(Ordering::Relaxed)));
        let (_socket, closed) = closed();
        let stays = spec(1, addr, config(http("/old"), LONG));
        let other = |server| spec(server, closed, config(HealthCheck::Tcp, LONG));
        let (mut checks, mut events) = start(vec![stays.clone()]);
        let mut next = async || {
            let event = events.recv().await.expect("an event");
            (event.server.0, event.up)
        };
        assert_eq!(next().await, (1, true));

        // A new one is told of, and the old one is not.
        checks.update(vec![stays.clone(), other(2)]).expect("no ICMP");
        assert_eq!(next().await, (2, false));
        // Asked in another way it is what it was.
        let changed = spec(1, addr, config(http("/new"), LONG));
        checks.update(vec![changed, other(2), other(3)]).expect("no ICMP");
        assert_eq!(next().await, (3, false));
        while !requests.recv().await.expect("a request").starts_with("GET /new ") {}
        // Checks of the old one are over: what comes now is of the new one.
        for _ in 0..5 {
            assert!(requests.recv().await.expect("a request").starts_with("GET /new "));
        }
        code.store(500, Ordering::Relaxed);
        assert_eq!(next().await, (1, false), "it is checked still");

        // Who goes and comes back is new, and so is another address under an old id.
        let has = |checks: &Checks| [1, 2, 3].map(|server| checks.has(ServiceId(1), RealServerId(server)));
        assert_eq!(has(&checks), [true; 3]);
        checks.update(vec![other(2)]).expect("no ICMP");
        assert_eq!(has(&checks), [false, true, false]);
        checks.update(vec![stays, other(2)]).expect("no ICMP");
        assert_eq!(next().await, (1, false));
        checks
            .update(vec![spec(2, addr, config(HealthCheck::Tcp, LONG))])
            .expect("no ICMP");
        assert_eq!(next().await, (2, true));
    });
}

#[test]
fn update_takes_away_what_was_under_way() {
    run(async {
        let (hung, addr) = listener().await;
        let hangs = spec(1, addr, config(http("/"), LONG));
        let (mut checks, _events) = start(vec![hangs]);
        for specs in [vec![spec(1, addr, config(http("/other"), LONG))], Vec::new()] {
            let (mut stream, _) = hung.accept().await.expect("a connection");
            head(&mut stream).await.expect("a request");
            checks.update(specs).expect("no ICMP");
            // The end of the connection, well before the timeout.
            let end = stream.read(&mut [0]).await;
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
    });
}

#[test]
fn dropping_the_checks_ends_them() {
    run(async {
        let (hung, addr) = listener().await;
        let (_socket, closed) = closed();
        let specs = vec![
            spec(1, addr, config(http("/"), LONG)),
            spec(2, closed, config(HealthCheck::Tcp, LONG)),
        ];
        let (checks, mut events) = start(specs);
        let (mut stream, _) = hung.accept().await.expect("a connection");
        assert_eq!(events.recv().await.map(|e| e.server), Some(RealServerId(2)));
        drop(checks);
        assert_eq!(events.recv().await, None, "nobody is left to tell anything");
        head(&mut stream).await.expect("a request");
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    });
}

#[test]
fn dropping_the_checks_ends_those_that_wait_to_tell() {
    run(async {
        let (_listener, addr) = listener().await;
        let specs = (0..20)
            .map(|i| spec(i, addr, config(HealthCheck::Tcp, LONG)))
            .collect();
        let (sender, mut events) = mpsc::channel(1);
        let checks = Checks::spawn(7, specs, sender).expect("no ICMP");
        while checks.stats().succeeded < 20 {
            tokio::task::yield_now().await;
        }
        drop(checks);
        assert!(events.recv().await.is_some(), "what was told before");
        assert_eq!(events.recv().await, None);
    });
}

#[test]
fn events_that_nobody_takes_are_not_lost() {
    run(async {
        let (_listener, addr) = listener().await;
        let specs = (0..50)
            .map(|i| spec(i, addr, config(HealthCheck::Tcp, LONG)))
            .collect();
        let (sender, mut events) = mpsc::channel(1);
        let checks = Checks::spawn(7, specs, sender).expect("no ICMP");
        // Nobody takes an event yet: all but one wait with theirs.
        while checks.stats().succeeded < 50 {
            tokio::task::yield_now().await;
        }
        let mut told = Vec::new();
        while told.len() < 50 {
            told.push(events.recv().await.expect("an event").server.0);
        }
        told.sort_unstable();
        assert_eq!(told, (0..50).collect::<Vec<_>>());
        assert!(events.try_recv().is_err(), "nobody is told of twice");
    });
}
