//! Roles of a real PostgreSQL.

use std::{path::Path, sync::Arc, time::Duration};

use keyturn_proto::v1::RotationState;
use keyturn_tests::{
    direct::{apply, connector, target, test, word},
    postgres::{Server, messages},
    proxy::{Place, Proxy, Stop},
    story::Asked,
};
use keyturn_vault::definition::Kind;
use keyturnd::connector::{Evidence, Known, Shape, Target, Verdict};
use tokio::net::{UnixListener, UnixStream};

use super::{
    killed_between_messages::{self, Scene},
    stage::{FIRST, Stage},
};

const ROLE: &str = "breakglass";
const MINUTE: Duration = Duration::from_mins(1);

fn first() -> &'static str {
    std::str::from_utf8(FIRST).unwrap()
}

/// The connector's configuration: over TLS with a password.
fn by_tls(server: &Server) -> String {
    let folder = server.folder().display();
    format!(
        "\n[connectors.db]\nkind = \"postgres\"\nhost = \"localhost\"\nport = {}\nroots = \"{folder}/roots.pem\"\n\
         password_file = \"{folder}/own\"\ndeadline_secs = 2\nrules = {{ length = 24 }}\n",
        server.port()
    )
}

async fn stage(config: &str) -> Stage {
    let stage = Stage::configured(
        Kind::Postgres,
        "db",
        &[("role", ROLE), ("probe-every", "10m")],
        config,
    )
    .await;
    stage.deposit(1, FIRST).await;
    stage
}

/// All is well: one version, which signs in, and the first password does not.
async fn is_rotated(stage: &Stage, server: &Server, name: &str) -> (Asked, Vec<Vec<u8>>) {
    stage.idle().await;
    let (asked, secrets) = stage.open().await;
    assert_eq!(secrets.len(), 1, "{name}");
    assert!(server.accepts(ROLE, &secrets[0]).unwrap(), "{name}");
    assert!(!server.accepts(ROLE, FIRST).unwrap(), "{name}");
    (asked, secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_rotated_and_its_old_sessions_end() {
    let server = Server::start(first()).unwrap();
    let stage = stage(&by_tls(&server)).await;
    let (asked, secrets) = stage.open().await;
    assert!(server.accepts(ROLE, &secrets[0]).unwrap());
    let mut session = server.session(ROLE, FIRST, "SELECT pg_sleep(300)").unwrap();
    while server.sessions(ROLE).unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.check_in(&asked, Some(1)).await;
    stage.idle().await;
    assert!(
        !session.wait().unwrap().success(),
        "the old session was ended"
    );
    assert_eq!(stage.current().await, 2);
    let (_, secrets) = is_rotated(&stage, &server, "over TLS").await;
    assert_eq!(secrets[0].len(), 24, "by the connector's rules");
    let kept = server
        .admin("SELECT version, rolpassword ~ '^SCRAM-SHA-256.4096:', length(rolpassword) < 150 FROM keyturn.managed JOIN pg_authid ON rolname = role")
        .unwrap();
    assert_eq!(kept, "2|t|t");
    let log = std::fs::read_to_string(server.folder().join("log")).unwrap();
    assert!(!log.contains(std::str::from_utf8(&secrets[0]).unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_server_is_tried_again_and_locks_nobody_out() {
    const HELD: &str = "SELECT 1 FROM keyturn.managed FOR UPDATE; SELECT pg_sleep(60)";
    const LET_GO: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
        WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
    let mut server = Server::start(first()).unwrap();
    let stage = stage(&by_tls(&server)).await;
    let (mut asked, mut before) = stage.open().await;
    for (name, live) in [
        ("down", 1),
        ("silent", 1),
        ("a lock is held", 1),
        ("refusing", 1),
        ("the COMMIT is answered late", 2),
    ] {
        let mut held = None;
        match name {
            "down" => server.stop().unwrap(),
            "silent" => server.silent(true).unwrap(),
            "a lock is held" => {
                held = Some(server.hold(HELD).unwrap());
            }
            "refusing" => {
                server
                    .admin("UPDATE keyturn.managed SET credential = 'another'")
                    .unwrap();
            }
            _ => server.waits_for_a_standby(true).unwrap(),
        }
        stage.check_in(&asked, None).await;
        let failed = stage
            .until(name, |view| view.state() == RotationState::BackingOff)
            .await;
        assert!(!failed.problem.is_empty(), "{name}");
        assert_eq!(
            stage.named().await.len(),
            live,
            "{name}: {}",
            failed.problem
        );
        match name {
            "down" => server.again().unwrap(),
            "silent" => server.silent(false).unwrap(),
            "a lock is held" => {
                server.admin(LET_GO).unwrap();
                held.take().unwrap().wait().unwrap();
            }
            "refusing" => {
                server
                    .admin("UPDATE keyturn.managed SET credential = NULL")
                    .unwrap();
            }
            _ => server.waits_for_a_standby(false).unwrap(),
        }
        let (open, secrets) = stage.open().await;
        assert!(
            secrets
                .iter()
                .any(|secret| server.accepts(ROLE, secret).unwrap()),
            "{name}: what a quorum opens signs in"
        );
        stage.check_in(&open, None).await;
        stage.advance(2 * MINUTE);
        let (next, now) = is_rotated(&stage, &server, name).await;
        assert!(!server.accepts(ROLE, &before[0]).unwrap(), "{name}");
        (asked, before) = (next, now);
    }
}

/// A folder with a socket whose conversations go through the proxy to the server's own.
fn through(proxy: &Arc<Proxy>, server: &Server) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let (proxy, socket) = (Arc::clone(proxy), server.socket());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (proxy, socket) = (Arc::clone(&proxy), socket.clone());
            tokio::spawn(async move {
                if let Ok(server) = UnixStream::connect(socket).await {
                    proxy.carry(client, server).await;
                }
            });
        }
    });
    folder
}

/// The connector's configuration: by a socket, with a password.
fn by_socket(server: &Server, folder: &Path, deadline: u32) -> String {
    format!(
        "kind = \"postgres\"\nhost = \"{}\"\npassword_file = \"{}/own\"\ndeadline_secs = {deadline}\n",
        folder.display(),
        server.folder().display(),
    )
}

/// What the connector says of its way through a rotation, in messages that want an answer: sign in (0 to 2), begin,
/// look the function up, set, COMMIT (6); a login without a password, one with it (8 to 10); sign in, end the
/// sessions (15), and again where there were some; sign in, show the evidence (20).
const STEPS: usize = 21;
/// One of each stand, see [`killed_between_messages::plays`]: applying, and the server has the old password (twice:
/// nothing begun; set and not committed); applying, the new one; testing; promoted, and old sessions live; ended.
const PAIRED: [killed_between_messages::Step; 6] = [
    (0, Stop::Before),
    (5, Stop::After),
    (6, Stop::After),
    (10, Stop::After),
    (11, Stop::Before),
    (15, Stop::After),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_or_two_locks_nobody_out() {
    let server = Arc::new(Server::start(first()).unwrap());
    let (mut scenes, mut folders) = (Vec::new(), Vec::new());
    for role in ["breakglass", "second", "third", "fourth"] {
        if role != ROLE {
            server.add_role(role, first()).unwrap();
        }
        let proxy = Proxy::new(messages);
        let folder = through(&proxy, &server);
        // A call that is not stopped has time to end, on a slow machine too: what is counted is what is said.
        let table = by_socket(&server, folder.path(), 20);
        let config = format!("\n[connectors.db]\n{table}");
        let settings = [("role", role), ("probe-every", "7d")];
        let stage = Stage::configured(Kind::Postgres, "db", &settings, &config).await;
        stage.deposit(1, FIRST).await;
        let target = Arc::clone(&server);
        let accepts = move |password: &[u8]| target.accepts(role, password).unwrap();
        scenes.push(Scene::of(stage, proxy, Box::new(accepts)).await);
        folders.push(folder);
    }
    for scene in &mut scenes {
        assert!((STEPS..STEPS + 5).contains(&scene.steps().await));
    }
    killed_between_messages::play_all(scenes, killed_between_messages::plays(STEPS, &PAIRED)).await;
}

fn role(name: &str) -> Target {
    target("postgres", &[("role", name)])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connector_says_what_is_so() {
    let server = Server::start(first()).unwrap();
    signs_in(&server).await;
    looks(&server).await;
    tries(&server).await;
    late_writers_change_nothing(&server).await;
    a_cut_is_told_as_it_is(&server).await;
}

async fn signs_in(server: &Server) {
    let folder = server.folder().display().to_string();
    server
        .admin(
            "CREATE ROLE peer LOGIN IN ROLE keyturn; CREATE ROLE certified LOGIN IN ROLE keyturn; \
             CREATE ROLE stranger LOGIN PASSWORD 'the connector''s own password'",
        )
        .unwrap();
    let (socket, port) = (
        format!("host = \"{folder}\"\nport = {}\n", server.port()),
        server.port(),
    );
    let net = format!("host = \"localhost\"\nport = {port}\nroots = \"{folder}/roots.pem\"\n");
    let password = format!("password_file = \"{folder}/own\"\n");
    let pair =
        format!("certificate = \"{folder}/certified.crt\"\nkey = \"{folder}/certified.key\"\n");
    for (name, way, user, own, want) in [
        (
            "a socket and a password",
            &socket,
            "keyturn",
            &password,
            "done",
        ),
        (
            "a socket and the host's user",
            &socket,
            "peer",
            &String::new(),
            "done",
        ),
        ("TLS and a password", &net, "keyturn", &password, "done"),
        ("TLS and a certificate", &net, "certified", &pair, "done"),
        (
            "no password where one is wanted",
            &net,
            "keyturn",
            &String::new(),
            "busy",
        ),
        (
            "a role without rights",
            &net,
            "stranger",
            &password,
            "refused",
        ),
        ("a role that is none", &net, "nobody", &password, "refused"),
    ] {
        let table = format!("kind = \"postgres\"\nuser = \"{user}\"\n{way}{own}");
        let said = connector(&table).unwrap().connector().check_self().await;
        assert_eq!(word(&said), want, "{name}: {said:?}");
        if let Ok(said) = said {
            assert!(
                said.starts_with(&format!("{user}, PostgreSQL ")),
                "{name}: {said}"
            );
        }
    }
    let denied = server.session(
        "keyturn",
        keyturn_tests::postgres::OWN.as_bytes(),
        "ALTER ROLE breakglass SUPERUSER",
    );
    assert!(
        !denied.unwrap().wait().unwrap().success(),
        "the connector's role alters none"
    );
}

fn by_its_socket(server: &Server, deadline: u32) -> Shape {
    let folder = server.folder();
    let table = by_socket(server, folder, deadline);
    connector(&format!("{table}port = {}\n", server.port())).unwrap()
}

async fn looks(server: &Server) {
    let shape = by_its_socket(server, 5);
    let one = shape.one().unwrap();
    server.add_role("seen", first()).unwrap();
    let seen = role("seen");
    let evidence = one.evidence(&seen).await;
    assert_eq!(word(&evidence), "unknown", "nothing was set: {evidence:?}");
    apply(one, &seen, (3, "the third"), 5).await.unwrap();
    let Evidence::Shown(line) = one.evidence(&seen).await.unwrap() else {
        panic!("no evidence");
    };
    assert!(
        line.starts_with("pg_authid holds the verifier of v3 with SHA-256 "),
        "{line}"
    );

    let known = Known {
        version: 3,
        ..Known::default()
    };
    for (name, change, want) in [
        ("as it was set", "SELECT 1", Verdict::Same),
        (
            "changed behind our back",
            "ALTER ROLE seen PASSWORD 'another'",
            Verdict::Diverged("the verifier in pg_authid is not the one that was set".to_owned()),
        ),
        (
            "expired",
            "ALTER ROLE seen VALID UNTIL '2001-01-01'",
            Verdict::Diverged("the password of the role has expired".to_owned()),
        ),
        (
            "locked",
            "ALTER ROLE seen NOLOGIN",
            Verdict::Diverged("the role may not sign in".to_owned()),
        ),
        (
            "without a password",
            "ALTER ROLE seen PASSWORD NULL",
            Verdict::Diverged("the role has no password".to_owned()),
        ),
        ("gone", "DROP ROLE seen", Verdict::Absent),
        (
            "given up",
            "DELETE FROM keyturn.managed WHERE role = 'seen'",
            Verdict::NotObservable("the role \"seen\" is not in keyturn.managed".to_owned()),
        ),
    ] {
        server.admin(change).unwrap();
        let sight = one.probe(&seen, &known).await.unwrap();
        assert_eq!(sight.verdict, want, "{name}");
    }
}

async fn tries(server: &Server) {
    let shape = by_its_socket(server, 5);
    let one = shape.one().unwrap();
    server.add_role("tried", "right").unwrap();
    server.add_role("open", "right").unwrap();
    for (name, who, password, want) in [
        ("right", "tried", "right", "done"),
        ("wrong", "tried", "wrong", "refused"),
        ("the server asks nobody", "open", "right", "unknown"),
    ] {
        let tried = test(one, &role(who), password).await;
        assert_eq!(word(&tried), want, "{name}: {tried:?}");
    }
}

async fn late_writers_change_nothing(server: &Server) {
    let shape = by_its_socket(server, 15);
    let one = shape.one().unwrap();
    server.add_role("fenced", first()).unwrap();
    let fenced = role("fenced");
    apply(one, &fenced, (5, "the fifth"), 5).await.unwrap();
    apply(one, &fenced, (5, "the fifth"), 5).await.unwrap();
    let late = apply(one, &fenced, (4, "the fourth"), 5).await.unwrap_err();
    assert!(
        late.to_string().contains("version 5 has been set since"),
        "{late}"
    );
    let mut other = fenced.clone();
    "01HX0000000000000000000001".clone_into(&mut other.credential);
    let foreign = apply(one, &other, (9, "a foreign one"), 5)
        .await
        .unwrap_err();
    assert!(
        foreign.to_string().contains("is kept by the credential"),
        "{foreign}"
    );

    // A process that was paused right before its COMMIT.
    let proxy = Proxy::new(messages);
    let folder = through(&proxy, server);
    let paused = connector(&by_socket(server, folder.path(), 15)).unwrap();
    proxy.stop(Place::Saying(b"COMMIT"), Stop::Before);
    let (target, shape) = (fenced.clone(), paused.clone());
    let paused =
        tokio::spawn(
            async move { apply(shape.one().unwrap(), &target, (6, "the sixth"), 15).await },
        );
    assert!(proxy.stops_within(Duration::from_secs(10)).await);
    apply(one, &fenced, (7, "the seventh"), 15).await.unwrap();
    proxy.go_on();
    let late = paused.await.unwrap();
    assert_ne!(word(&late), "done", "the paused one changed nothing");
    for (password, want) in [
        ("the seventh", true),
        ("the sixth", false),
        ("the fifth", false),
    ] {
        assert_eq!(
            server.accepts("fenced", password.as_bytes()).unwrap(),
            want,
            "{password}"
        );
    }
}

async fn a_cut_is_told_as_it_is(server: &Server) {
    server.add_role("cut", "version 0").unwrap();
    let cut = role("cut");
    let proxy = Proxy::new(messages);
    let folder = through(&proxy, server);
    let shape = connector(&by_socket(server, folder.path(), 5)).unwrap();
    let (mut version, mut current) = (0, "version 0".to_owned());
    for at in 0..7 {
        for (stop, want, set) in [
            (Stop::Before, if at < 6 { "busy" } else { "unknown" }, false),
            (
                Stop::After,
                if at < 6 { "busy" } else { "unknown" },
                at == 6,
            ),
        ] {
            version += 1;
            let new = format!("version {version}");
            proxy.stop(Place::Number(at), stop);
            let (call, target, shape) = ((version, new.clone()), cut.clone(), shape.clone());
            let said = tokio::spawn(async move {
                apply(shape.one().unwrap(), &target, (call.0, &call.1), 10).await
            });
            assert!(
                proxy.stops_within(Duration::from_secs(10)).await,
                "{at} {stop:?}"
            );
            proxy.cut();
            let said = said.await.unwrap();
            assert_eq!(word(&said), want, "{at} {stop:?}: {said:?}");
            // What was sent takes effect when the server comes to it.
            let accepted = || server.accepts("cut", new.as_bytes()).unwrap();
            for _ in 0..100 {
                if !set || accepted() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(accepted(), set, "{at} {stop:?}");
            assert_eq!(
                server.accepts("cut", current.as_bytes()).unwrap(),
                !set,
                "{at} {stop:?}"
            );
            if set {
                current = new;
            }
        }
    }
}
