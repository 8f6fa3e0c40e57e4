//! Entries of a real OpenLDAP.

use std::{path::Path, sync::Arc, time::Duration};

use keyturn_proto::v1::RotationState;
use keyturn_tests::{
    direct::{apply, connector, target, test, word},
    directory::{CONNECTOR, Directory, dn, messages},
    proxy::{Place, Proxy, Stop},
};
use keyturn_vault::definition::Kind;
use keyturnd::connector::{Evidence, Facts, Known, Sight, Target, Verdict};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    killed_between_messages::{self, Scene},
    stage::{FIRST, Stage},
};

const USER: &str = "breakglass";
const MINUTE: Duration = Duration::from_mins(1);

fn first() -> &'static str {
    std::str::from_utf8(FIRST).unwrap()
}

/// The connector's table: by LDAPS at this port, with a password.
fn by_ldaps(folder: &Path, port: u16, deadline: u32) -> String {
    let folder = folder.display();
    format!(
        "kind = \"ldap\"\nhost = \"localhost\"\nport = {port}\nroots = \"{folder}/roots.pem\"\n\
         bind_dn = \"{CONNECTOR}\"\npassword_file = \"{folder}/own\"\ndeadline_secs = {deadline}\n"
    )
}

fn person(user: &str) -> Target {
    target("ldap", &[("dn", &dn(user))])
}

/// A port that speaks TLS as the server does, and whose conversations go through the proxy to it.
async fn through(proxy: &Arc<Proxy>, directory: &Directory) -> u16 {
    let file = |name: &str| directory.folder().join(name);
    let certificate = CertificateDer::from_pem_file(file("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (proxy, (plain, _)) = (Arc::clone(proxy), directory.ports());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (proxy, acceptor) = (Arc::clone(&proxy), acceptor.clone());
            tokio::spawn(async move {
                let server = TcpStream::connect(("localhost", plain)).await;
                if let (Ok(client), Ok(server)) = (acceptor.accept(client).await, server) {
                    proxy.carry(client, server).await;
                }
            });
        }
    });
    port
}

async fn stage(user: &str, table: &str) -> Stage {
    let name = dn(user);
    let settings = [("dn", name.as_str()), ("probe-every", "7d")];
    let config = format!("\n[connectors.staff]\n{table}rules = {{ length = 24 }}\n");
    let stage = Stage::configured(Kind::Ldap, "staff", &settings, &config).await;
    stage.deposit(1, FIRST).await;
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_rotated_and_a_failing_directory_locks_nobody_out() {
    let mut directory = Directory::start(first()).unwrap();
    let proxy = Proxy::new(messages);
    let port = through(&proxy, &directory).await;
    let stage = stage(USER, &by_ldaps(directory.folder(), port, 2)).await;
    let length = |least: u32| {
        format!(
            "dn: cn=default,dc=example,dc=org\nchangetype: modify\nreplace: pwdMinLength\npwdMinLength: {least}\n"
        )
    };
    let modify = Place::Saying(b"1.3.6.1.4.1.4203.1.11.1");
    let (mut asked, mut before) = stage.open().await;
    for (name, live) in [
        ("well", 1),
        ("down", 1),
        ("silent", 1),
        ("refusing by policy", 1),
        ("the answer is lost", 1),
        ("done after the deadline", 2),
    ] {
        match name {
            "down" => directory.stop().unwrap(),
            "silent" => directory.silent(true).unwrap(),
            "refusing by policy" => directory.admin("ldapmodify", &length(100)).unwrap(),
            "the answer is lost" => proxy.stop(modify, Stop::After),
            "done after the deadline" => proxy.stop(modify, Stop::Before),
            _ => {}
        }
        stage.check_in(&asked, None).await;
        if ["well", "the answer is lost"].contains(&name) {
            // A login proves it.
            stage.idle().await;
            proxy.cut();
        } else {
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
                "down" => directory.again().unwrap(),
                "silent" => directory.silent(false).unwrap(),
                "refusing by policy" => directory.admin("ldapmodify", &length(8)).unwrap(),
                _ => {
                    proxy.go_on();
                    while directory.accepts(USER, &before[0]).unwrap() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            let (open, secrets) = stage.open().await;
            let accepted = |secret: &Vec<u8>| directory.accepts(USER, secret).unwrap();
            assert!(
                secrets.iter().any(accepted),
                "{name}: what a quorum opens signs in"
            );
            stage.check_in(&open, None).await;
            stage.advance(2 * MINUTE);
        }
        stage.idle().await;
        let (next, secrets) = stage.open().await;
        assert_eq!((secrets.len(), secrets[0].len()), (1, 24), "{name}");
        assert!(directory.accepts(USER, &secrets[0]).unwrap(), "{name}");
        assert!(!directory.accepts(USER, &before[0]).unwrap(), "{name}");
        (asked, before) = (next, secrets);
    }
}

/// The connector's way through a rotation, in messages that want an answer: sign in, Password Modify; a login; sign
/// in, read the time of change.
const STEPS: usize = 5;
/// One of each stand, see [`killed_between_messages::plays`]: applying, and the server has the old password (twice:
/// nothing begun; signed in); applying, the new one; testing; promoted.
const PAIRED: [killed_between_messages::Step; 5] = [
    (0, Stop::Before),
    (1, Stop::Before),
    (1, Stop::After),
    (2, Stop::After),
    (4, Stop::After),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_or_two_locks_nobody_out() {
    let directory = Arc::new(Directory::start(first()).unwrap());
    let mut scenes = Vec::new();
    for user in [USER, "second", "third", "fourth"] {
        if user != USER {
            directory.add(user, first()).unwrap();
        }
        let proxy = Proxy::new(messages);
        let port = through(&proxy, &directory).await;
        let stage = stage(user, &by_ldaps(directory.folder(), port, 2)).await;
        let server = Arc::clone(&directory);
        let accepts = move |password: &[u8]| server.accepts(user, password).unwrap();
        scenes.push(Scene::of(stage, proxy, Box::new(accepts)).await);
    }
    for scene in &mut scenes {
        assert_eq!(scene.steps().await, STEPS);
    }
    killed_between_messages::play_all(scenes, killed_between_messages::plays(STEPS, &PAIRED)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connector_says_what_is_so() {
    let directory = Directory::start(first()).unwrap();
    signs_in(&directory).await;
    sets_and_tries(&directory).await;
    looks(&directory).await;
    a_cut_is_told_as_it_is(&directory).await;
}

async fn signs_in(directory: &Directory) {
    let folder = directory.folder().display().to_string();
    let (plain, tls) = directory.ports();
    let password = format!("bind_dn = \"{CONNECTOR}\"\npassword_file = \"{folder}/own\"\n");
    let nobody = password.replace("cn=keyturn", "cn=nobody");
    let pair =
        format!("certificate = \"{folder}/certified.crt\"\nkey = \"{folder}/certified.key\"\n");
    let roots = |file: &str| format!("roots = \"{folder}/{file}\"\n");
    let (ldaps, start_tls) = (
        format!("port = {tls}\n"),
        format!("port = {plain}\nsecurity = \"start-tls\"\n"),
    );
    for (name, way, roots, own, want) in [
        (
            "LDAPS and a password",
            &ldaps,
            roots("roots.pem"),
            &password,
            "done",
        ),
        (
            "StartTLS and a password",
            &start_tls,
            roots("roots.pem"),
            &password,
            "done",
        ),
        ("a certificate", &ldaps, roots("roots.pem"), &pair, "done"),
        (
            "an entry that is none",
            &ldaps,
            roots("roots.pem"),
            &nobody,
            "refused",
        ),
        (
            "another server",
            &ldaps,
            roots("certified.crt"),
            &password,
            "busy",
        ),
        (
            "no TLS",
            &format!("port = {plain}\n"),
            roots("roots.pem"),
            &password,
            "busy",
        ),
    ] {
        let table =
            format!("kind = \"ldap\"\nhost = \"localhost\"\ndeadline_secs = 5\n{way}{roots}{own}");
        let said = connector(&table).unwrap().connector().check_self().await;
        assert_eq!(word(&said), want, "{name}: {said:?}");
        if let Ok(said) = said {
            assert_eq!(said, format!("dn:{CONNECTOR}"), "{name}");
        }
    }
}

async fn sets_and_tries(directory: &Directory) {
    let (_, tls) = directory.ports();
    let shape = connector(&by_ldaps(directory.folder(), tls, 5)).unwrap();
    let one = shape.one().unwrap();
    directory.add("tried", "the right one").unwrap();
    let elsewhere = target("ldap", &[("dn", CONNECTOR)]);
    for (name, who, password, want) in [
        ("somebody", &person("tried"), "another one", "done"),
        ("the same twice", &person("tried"), "another one", "done"),
        ("against the policy", &person("tried"), "short", "refused"),
        ("nobody", &person("nobody"), "another one", "refused"),
        (
            "somebody whom the connector may not change",
            &elsewhere,
            "another one",
            "refused",
        ),
    ] {
        let set = apply(one, who, (2, password), 5).await;
        assert_eq!(word(&set), want, "{name}: {set:?}");
    }
    for (name, password, want) in [
        ("right", "another one", "done"),
        ("wrong", "the right one", "refused"),
    ] {
        let tried = test(one, &person("tried"), password).await;
        assert_eq!(word(&tried), want, "{name}: {tried:?}");
    }
    assert_eq!(word(&one.check(&person("tried")).await), "done");
    assert_eq!(word(&one.check(&person("nobody")).await), "refused");
    for (name, dn) in [("no name", "tried"), ("an empty one", "")] {
        assert!(
            one.check_settings(&target("ldap", &[("dn", dn)])).is_err(),
            "{name}"
        );
    }
}

async fn looks(directory: &Directory) {
    let (_, tls) = directory.ports();
    let shape = connector(&by_ldaps(directory.folder(), tls, 5)).unwrap();
    let one = shape.one().unwrap();
    directory.add("seen", first()).unwrap();
    let seen = person("seen");
    apply(one, &seen, (2, "the second one"), 5).await.unwrap();
    let Evidence::Shown(line) = one.evidence(&seen).await.unwrap() else {
        panic!("no evidence");
    };
    assert!(
        line.starts_with("pwdChangedTime is 2") && line.contains("stay open"),
        "{line}"
    );

    let probe = async |facts: Option<Facts>| {
        let known = Known {
            version: 2,
            facts,
            ..Known::default()
        };
        one.probe(&seen, &known).await.unwrap()
    };
    let Sight { verdict, facts } = probe(None).await;
    assert_eq!(verdict, Verdict::Same, "the first look");
    // The time is in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    directory.set("seen", "changed behind our back").unwrap();
    let behind = probe(Some(facts)).await.verdict;
    let said = "pwdChangedTime has changed since the last proof".to_owned();
    assert_eq!(behind, Verdict::Diverged(said));
    let attribute = |name: &str, value: &str| {
        let ldif = format!(
            "dn: {}\nchangetype: modify\nreplace: {name}\n{name}: {value}\n",
            dn("seen")
        );
        directory.admin("ldapmodify", &ldif).unwrap();
    };
    attribute("pwdReset", "TRUE");
    assert!(
        matches!(probe(None).await.verdict, Verdict::Diverged(why) if why.contains("another password"))
    );
    attribute("pwdAccountLockedTime", "20260101000000Z");
    assert!(
        matches!(probe(None).await.verdict, Verdict::Diverged(why) if why.contains("locked since 2026"))
    );
    let gone = format!("dn: {}\nchangetype: delete\n", dn("seen"));
    directory.admin("ldapmodify", &gone).unwrap();
    assert_eq!(probe(None).await.verdict, Verdict::Absent);
    let elsewhere = target("ldap", &[("dn", "ou=breakglass,dc=example,dc=org")]);
    let sight = one.probe(&elsewhere, &Known::default()).await.unwrap();
    assert!(
        !matches!(sight.verdict, Verdict::Same | Verdict::Diverged(_)),
        "{sight:?}"
    );
}

async fn a_cut_is_told_as_it_is(directory: &Directory) {
    directory.add("cut", "version 0").unwrap();
    let cut = person("cut");
    let proxy = Proxy::new(messages);
    let port = through(&proxy, directory).await;
    let shape = connector(&by_ldaps(directory.folder(), port, 5)).unwrap();
    for (version, at, stop, want, set) in [
        (1, 0, Stop::Before, "busy", false),
        (2, 0, Stop::After, "busy", false),
        (3, 1, Stop::Before, "unknown", false),
        (4, 1, Stop::After, "unknown", true),
    ] {
        let name = format!("cut at {at} {stop:?}");
        proxy.stop(Place::Number(at), stop);
        let (target, shape) = (cut.clone(), shape.clone());
        let said = tokio::spawn(async move {
            let new = format!("version {version}");
            apply(shape.one().unwrap(), &target, (version, &new), 10).await
        });
        assert!(proxy.stops_within(Duration::from_secs(10)).await, "{name}");
        proxy.cut();
        let said = said.await.unwrap();
        assert_eq!(word(&said), want, "{name}: {said:?}");
        let new = format!("version {version}");
        assert_eq!(
            directory.accepts("cut", new.as_bytes()).unwrap(),
            set,
            "{name}"
        );
        assert_eq!(
            directory.accepts("cut", b"version 0").unwrap(),
            !set,
            "{name}"
        );
    }
}
