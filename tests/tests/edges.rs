//! The daemon's network side and the client's, over real TLS on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

use std::{
    collections::HashMap,
    io::Read as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use keyturn::{
    connect::{Address, ConnectError, Failure, Link, Route, connect},
    refusal::Refusal,
};
use keyturn_hsm::device::DeviceKey;
use keyturn_proto::v1::{
    JoinRequest, PageRequest, Person, RestoreReply, RestoreRequest, ShowStatusReply,
    ShowStatusRequest,
    charter_client::CharterClient,
    status_client::StatusClient,
    status_server::{Status as StatusService, StatusServer},
};
use keyturn_vault::{digest::Digest, id::DeviceId, time::Time};
use keyturnd::{
    clock::Clock,
    config::Config,
    health::Health,
    metrics::Metrics,
    peers::{Caller, Peers},
    serve::{Bound, ServeError, serve},
    shell::Shell,
    tally::Tally,
};
use tokio::{
    io::AsyncReadExt as _,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{Request, Response, Status, service::Routes};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// Tells callers who they are; takes its time when asked to.
struct WhoAmI(Peers);

#[tonic::async_trait]
impl StatusService for WhoAmI {
    async fn show(
        &self,
        request: Request<ShowStatusRequest>,
    ) -> Result<Response<ShowStatusReply>, Status> {
        if request.metadata().contains_key("slowly") {
            sleep(Duration::from_millis(300)).await;
        }
        let caller = self.0.of(&request)?;
        let id = caller.person.id.to_string();
        let caller = Person {
            id,
            name: caller.person.name.to_string(),
        };
        Ok(Response::new(ShowStatusReply {
            caller: Some(caller),
            ..ShowStatusReply::default()
        }))
    }

    async fn restore(&self, _: Request<RestoreRequest>) -> Result<Response<RestoreReply>, Status> {
        Ok(Response::new(RestoreReply {
            next_page: "x".repeat(5 * 1024 * 1024),
            ..RestoreReply::default()
        }))
    }
}

struct Daemon {
    address: SocketAddr,
    shell: Shell,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

/// A daemon on loopback with these limits (lines of TOML), on a free port unless one is given.
async fn start(key: &Path, known: &[&DeviceKey], limits: &str, port: u16) -> Daemon {
    let text = format!(
        "data = \"/d\"\n[listen]\ngrpc = [\"127.0.0.1:{port}\"]\n[keys]\nnode = \"/k/n\"\nlog = \"/k/l\"\n\
         genesis = \"/k/g\"\n[copies]\nmin = 0\n[limits]\n{limits}"
    );
    let config = Config::parse(Path::new("test.toml"), &text).unwrap();
    let bound = Bound::new(&config).await.unwrap();
    let address = bound.addresses()[0];
    let (health, health_service) = Health::starting().await;
    let shell = Shell {
        clock: Clock::system(),
        metrics: Metrics::new(),
        peers: Peers::nobody(),
        health,
        tally: Tally::default(),
    };
    shell.peers.replace(
        known
            .iter()
            .map(|device| (Digest(device.pin()), alice()))
            .collect(),
    );
    shell.health.serving().await;

    let (stop, stopped) = oneshot::channel();
    let routes = Routes::new(StatusServer::new(WhoAmI(shell.peers.clone())));
    let (key, same) = (DeviceKey::load(key).unwrap(), shell.clone());
    let task = tokio::spawn(async move {
        let stop = async { stopped.await.unwrap_or_default() };
        serve(bound, &key, same, (routes, health_service), stop).await
    });
    Daemon {
        address,
        shell,
        stop,
        task,
    }
}

fn alice() -> Caller {
    Caller {
        person: "alice 01HZ0000000000000000000000".parse().unwrap(),
        roles: std::collections::BTreeSet::new(),
        device: DeviceId::from_parts(Time::from_ms(1), [1; 10]),
        device_signs: true,
    }
}

impl Daemon {
    fn route(&self, pin: [u8; 32]) -> Route {
        Route {
            addresses: vec![self.address.to_string().parse().unwrap()],
            pins: vec![Digest(pin)],
        }
    }

    fn refused(&self, reason: &str) -> bool {
        let line = format!("keyturn_connections_refused_total{{reason=\"{reason}\"}}");
        self.shell.metrics.render().contains(&line)
    }
}

struct Keys {
    folder: tempfile::TempDir,
    node: DeviceKey,
    device: DeviceKey,
}

fn keys() -> Keys {
    let folder = tempfile::tempdir().unwrap();
    let node = DeviceKey::create(&folder.path().join("node.pem"), "node").unwrap();
    let device = DeviceKey::create(&folder.path().join("device.pem"), "laptop").unwrap();
    Keys {
        folder,
        node,
        device,
    }
}

impl Keys {
    fn node_path(&self) -> std::path::PathBuf {
        self.folder.path().join("node.pem")
    }

    /// The same key with a certificate that expired in 1999.
    fn expired(&self, key: &DeviceKey) -> DeviceKey {
        let pem = key.to_pem();
        let pkcs8 = rcgen::KeyPair::from_pem(&pem[..pem.find("-----BEGIN CERT").unwrap()]).unwrap();
        let mut facts = rcgen::CertificateParams::default();
        facts.not_after = rcgen::date_time_ymd(1999, 12, 31);
        let certificate = facts.self_signed(&pkcs8).unwrap().pem();
        let path = self.folder.path().join("expired.pem");
        keyturn_hsm::private::create(
            &path,
            format!("{}{certificate}", pkcs8.serialize_pem()).as_bytes(),
        )
        .unwrap();
        DeviceKey::load(&path).unwrap()
    }
}

async fn ask(link: &Link) -> Result<String, Refusal> {
    let reply = StatusClient::new(link.channel())
        .show(ShowStatusRequest {})
        .await?;
    Ok(reply.into_inner().caller.unwrap_or_default().name)
}

#[tokio::test]
async fn a_known_device_reaches_a_pinned_server() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "", 0).await;
    let link = connect(&daemon.route(keys.node.pin()), &keys.device)
        .await
        .unwrap();
    assert_eq!(ask(&link).await.unwrap(), "alice");
    let server = link.server().unwrap();
    assert_eq!(
        (server.pin, server.complaint),
        (Digest(keys.node.pin()), None)
    );
    assert!(
        server.post_quantum,
        "X25519MLKEM768 is preferred on both sides"
    );

    let metrics = daemon.shell.metrics.render();
    let counted = "keyturn_calls_total{method=\"keyturn.v1.Status/Show\",code=\"OK\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn health_and_reflection_are_told_to_those_who_are_known() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "", 0).await;
    let link = connect(&daemon.route(keys.node.pin()), &keys.device)
        .await
        .unwrap();
    for serving in [ServingStatus::Serving, ServingStatus::NotServing] {
        if serving == ServingStatus::NotServing {
            daemon.shell.health.not_serving("the disk is full").await;
        }
        let ask_health = HealthCheckRequest {
            service: "keyturn.v1.Ceremony".to_owned(),
        };
        let reply = HealthClient::new(link.channel())
            .check(ask_health)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(reply.status(), serving);
    }

    let message_request = Some(MessageRequest::ListServices(String::new()));
    let requests = tokio_stream::iter([ServerReflectionRequest {
        message_request,
        ..Default::default()
    }]);
    let mut replies = ServerReflectionClient::new(link.channel())
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        replies.message().await.unwrap().unwrap().message_response
    else {
        panic!("reflection answers something else");
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in [
        "keyturn.v1.Ceremony",
        "keyturn.v1.Status",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn a_server_with_another_key_is_refused_by_name() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "", 0).await;
    let error = connect(&daemon.route(keys.device.pin()), &keys.device)
        .await
        .err()
        .unwrap();
    let refusal = Refusal::from(error.clone());
    assert_eq!(
        (refusal.code.as_str(), refusal.exit()),
        ("wrong-server-key", 4)
    );
    let ConnectError::Failed(failures) = error else {
        panic!("another error: {error}")
    };
    assert_eq!(failures[0].1, Failure::WrongKey(Digest(keys.node.pin())));
}

#[tokio::test]
async fn a_stranger_may_join_and_nothing_else() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[], "", 0).await;
    let link = connect(&daemon.route(keys.node.pin()), &keys.device)
        .await
        .unwrap();
    assert_eq!(ask(&link).await.unwrap_err().code, "unknown-device");
    let join = CharterClient::new(link.channel())
        .join(JoinRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        join.code(),
        tonic::Code::Unimplemented,
        "there is no such service in this test, but the way is open"
    );

    // The moment a charter knows the device, the same connection is let in; and out again.
    daemon
        .shell
        .peers
        .replace(HashMap::from([(Digest(keys.device.pin()), alice())]));
    assert_eq!(ask(&link).await.unwrap(), "alice");
    daemon.shell.peers.replace(HashMap::new());
    assert_eq!(ask(&link).await.unwrap_err().code, "unknown-device");
}

#[tokio::test]
async fn without_room_for_strangers_the_door_is_closed() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[], "stranger_connections = 0", 0).await;
    let code = match connect(&daemon.route(keys.node.pin()), &keys.device).await {
        Ok(link) => ask(&link).await.unwrap_err().code,
        Err(error) => Refusal::from(error).code,
    };
    assert_eq!(code, "not-let-in");
    assert!(daemon.refused("handshake"));
}

#[tokio::test]
async fn expired_certificates_are_told_and_work() {
    let keys = keys();
    let (node, device) = (keys.expired(&keys.node), &keys.device);
    let daemon = start(&keys.folder.path().join("expired.pem"), &[device], "", 0).await;
    let link = connect(&daemon.route(node.pin()), device).await.unwrap();
    assert_eq!(ask(&link).await.unwrap(), "alice");
    assert!(
        link.server()
            .unwrap()
            .complaint
            .is_some_and(|text| text.contains("expired"))
    );

    std::fs::remove_file(keys.folder.path().join("expired.pem")).unwrap();
    let expired = keys.expired(device);
    let link = connect(&daemon.route(node.pin()), &expired).await.unwrap();
    assert_eq!(
        ask(&link).await.unwrap(),
        "alice",
        "the pin counts, not the certificate"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_and_nobody_are_refused() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "", 0).await;
    let pem = keys.folder.path().join("device.pem");
    let pem = pem.to_str().unwrap();
    for (name, arguments, want) in [
        (
            "TLS 1.2",
            vec!["-tls1_2", "-cert", pem, "-key", pem],
            "alert protocol version",
        ),
        (
            "no certificate",
            vec!["-tls1_3"],
            "alert certificate required",
        ),
    ] {
        let said = dial(&daemon, &arguments);
        assert!(said.contains(want), "{name}: {said}");
    }
    assert!(daemon.refused("handshake"));
}

/// What stock OpenSSL (apt-get install openssl) says of a connection; one that stays is given up.
fn dial(daemon: &Daemon, arguments: &[&str]) -> String {
    let address = daemon.address.to_string();
    let mut openssl = Command::new("timeout")
        .args(["20", "openssl", "s_client", "-alpn", "h2", "-connect"])
        .arg(&address)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = openssl.stdin.take();
    let mut said = String::new();
    let mut stderr = openssl.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    drop(stdin);
    openssl.wait().unwrap();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_no_device_has_are_refused() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "", 0).await;
    let names: Vec<_> = (0..2000).map(|n| format!("DNS:n{n}.example")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let p256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    for (name, made, extension) in [
        (
            "P-384",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"][..],
            "basicConstraints=CA:FALSE",
        ),
        (
            "RSA",
            &["-newkey", "rsa:2048"][..],
            "basicConstraints=CA:FALSE",
        ),
        (
            "Ed25519",
            &["-newkey", "ed25519"][..],
            "basicConstraints=CA:FALSE",
        ),
        ("too large", p256, names.as_str()),
    ] {
        let path = |what: &str| {
            let file = keys.folder.path().join(format!("{name}.{what}"));
            file.to_str().unwrap().to_owned()
        };
        let (key, certificate) = (path("key"), path("crt"));
        // The name is that of a device that is known: names mean nothing.
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "1",
                "-subj",
                "/CN=laptop",
            ])
            .args(["-keyout", &key, "-out", &certificate, "-addext", extension])
            .args(made)
            .output()
            .unwrap();
        assert!(made.status.success(), "{name}: {made:?}");
        let said = dial(&daemon, &["-tls1_3", "-cert", &certificate, "-key", &key]);
        assert!(said.contains("alert"), "{name}: {said}");
    }
    assert!(daemon.refused("handshake"));
    let route = daemon.route(keys.node.pin());
    let link = connect(&route, &keys.device).await.unwrap();
    assert_eq!(ask(&link).await.unwrap(), "alice");
}

#[tokio::test]
async fn messages_are_bounded_in_both_directions() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "", 0).await;
    let link = connect(&daemon.route(keys.node.pin()), &keys.device)
        .await
        .unwrap();
    let mut client = StatusClient::new(link.channel());
    let page = PageRequest {
        after: "x".repeat(keyturn_proto::MAX_MESSAGE),
        size: 0,
    };
    let sent = client
        .restore(RestoreRequest { page: Some(page) })
        .await
        .unwrap_err();
    assert_eq!(Refusal::from(sent).code, "malformed");
    let got = client.restore(RestoreRequest::default()).await.unwrap_err();
    assert!(got.message().contains("too large"), "{got}");
    assert_eq!(ask(&link).await.unwrap(), "alice", "the connection goes on");
}

#[tokio::test]
async fn connections_are_bounded() {
    let keys = keys();
    let daemon = start(
        &keys.node_path(),
        &[&keys.device],
        "connections = 2\nhandshake_secs = 1",
        0,
    )
    .await;
    let route = daemon.route(keys.node.pin());
    let first = connect(&route, &keys.device).await.unwrap();
    ask(&first).await.unwrap();

    // Somebody who connects and says nothing is shown out in time.
    let mut mute = tokio::net::TcpStream::connect(daemon.address)
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    let third = connect(&route, &keys.device).await.err().unwrap();
    assert_eq!(third.code(), "unreachable", "{third}");
    assert!(daemon.refused("full"));
    let end = timeout(Duration::from_secs(5), mute.read(&mut [0; 16])).await;
    assert!(
        matches!(end, Ok(Ok(0) | Err(_))),
        "the silent one is closed: {end:?}"
    );
    assert!(daemon.refused("handshake-slow"));
    let third = connect(&route, &keys.device).await.unwrap();
    assert_eq!(ask(&third).await.unwrap(), "alice");
}

#[tokio::test]
async fn a_link_finds_the_way_and_heals() {
    let keys = keys();
    let daemon = start(&keys.node_path(), &[&keys.device], "stop_secs = 2", 0).await;
    let mut route = daemon.route(keys.node.pin());
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    route
        .addresses
        .insert(0, dead.to_string().parse::<Address>().unwrap());
    let link = connect(&route, &keys.device).await.unwrap();
    assert_eq!(
        ask(&link).await.unwrap(),
        "alice",
        "the second address answers"
    );

    // A call under way is answered before the daemon stops.
    let mut slowly = Request::new(ShowStatusRequest {});
    slowly
        .metadata_mut()
        .insert("slowly", "yes".parse().unwrap());
    let channel = link.channel();
    let under_way = tokio::spawn(async move { StatusClient::new(channel).show(slowly).await });
    sleep(Duration::from_millis(100)).await;
    daemon.stop.send(()).unwrap();
    assert!(
        under_way.await.unwrap().is_ok(),
        "a graceful stop cuts nothing off"
    );
    timeout(Duration::from_secs(5), daemon.task)
        .await
        .expect("it stops in time")
        .unwrap()
        .unwrap();
    let down = ask(&link).await.unwrap_err();
    assert_eq!(
        (down.code.as_str(), down.exit()),
        ("unreachable", 3),
        "{down}"
    );
    assert!(
        down.message.contains(&dead.to_string()),
        "every address is told: {down}"
    );

    let again = start(
        &keys.node_path(),
        &[&keys.device],
        "",
        daemon.address.port(),
    )
    .await;
    assert_eq!(
        ask(&link).await.unwrap(),
        "alice",
        "the same link reaches the daemon again"
    );
    assert_eq!(again.address, daemon.address);
}
