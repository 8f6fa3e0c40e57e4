//! When rotations run: by age alone, however the clock jumps, over restarts; and who is told when they do not.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{
    aws::{Simulator, policies},
    harness::write_private,
    listener::Listener,
    raw::Founded,
    target::Mood,
};
use keyturn_vault::{definition::Kind, time::Time};
use keyturnd::notice::{Kind as Notice, Severity};
use serde_json::json;

use super::stage::{FIRST, Stage, USER};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY_MS: u64 = 24 * 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_is_rotated_when_it_is_old() {
    let vault = Founded::new("rotate_max_age_secs = 86400\n").await.unwrap();
    let mut stage = Stage::deposited(vault).await;
    stage.advance(23 * HOUR);
    let young = stage.rotation().await;
    assert_eq!(
        (young.state(), stage.current().await),
        (RotationState::Idle, 1)
    );
    // Nobody answers, so that it can be seen.
    stage.target.becomes(Mood::Down).unwrap();
    stage.advance(2 * HOUR);
    stage.until("old", |view| view.cause == "max-age").await;
    stage.target.becomes(Mood::Well).unwrap();
    stage.idle().await;
    // Not the second for sure: an attempt that nobody answered has used up a number.
    let second = stage.current().await;
    assert!(second > 1);
    assert!(!stage.target.accepts(USER, FIRST).unwrap());

    // Its age goes on while the daemon is stopped, and so does what was owed then.
    stage = stage.restart(23 * HOUR).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stage.current().await, second);
    stage.target.becomes(Mood::Down).unwrap();
    stage = stage.restart(2 * HOUR).await;
    stage
        .until("old again", |view| view.cause == "max-age")
        .await;
    stage.target.becomes(Mood::Well).unwrap();
    stage.idle().await;
    assert!(stage.current().await > second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_makes_nothing_due_and_forgets_nothing() {
    let stage = Stage::new().await;
    let (_, secrets) = stage.open().await;
    assert_eq!(secrets, [FIRST]);
    let begun = stage.advance(Duration::ZERO);
    for wall in [begun.ms() + 30 * DAY_MS, begun.ms() - 30 * DAY_MS] {
        stage.daemon.jump(Time::from_ms(wall)).unwrap();
        stage.advance(MINUTE);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(stage.rotation().await.state(), RotationState::Due);
        assert!(
            stage.target.accepts(USER, FIRST).unwrap(),
            "the check-out goes on"
        );
    }
    // By the time that passed, it ends when it was to end.
    stage.advance(59 * MINUTE);
    stage.idle().await;
    assert!(!stage.target.accepts(USER, FIRST).unwrap());
    assert_eq!(stage.current().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_and_wakes_up_late_changes_nothing() {
    const MEMBER: &str = "210987654321";
    let simulator = Simulator::start(&policies("aws-root.md").unwrap()).unwrap();
    simulator
        .ask("settings", &json!({"members": [MEMBER]}))
        .unwrap();
    let full = json!({"password": true, "keys": ["AKIAROOT1"], "devices": [], "certificates": []});
    let set = json!({"account": MEMBER, "set": full});
    simulator.ask("root", &set).unwrap();
    let table = format!(
        "\n[connectors.aws]\nkind = \"aws-root\"\n{}",
        simulator.host(3)
    );
    let settings = [("account", MEMBER)];
    let stage = Stage::configured(Kind::AwsRoot, "aws", &settings, &table).await;

    // Stopped between two calls of one attempt: the look, after which it would take everything away.
    simulator.fault("ListMFADevices", "slow", 1, 2500).unwrap();
    stage.rotate_now().await;
    stage
        .until("running", |view| view.state() == RotationState::Applying)
        .await;
    while simulator.count("ListAccessKeys").unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.daemon.pause().unwrap();
    // Longer than the deadline of the attempt.
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.daemon.go_on().unwrap();
    let failed = stage
        .until("late", |view| view.state() == RotationState::BackingOff)
        .await;
    assert_eq!(failed.attempts, 1);
    assert_eq!(simulator.count("DeleteLoginProfile").unwrap(), 0);
    let there = simulator.ask("root", &json!({"account": MEMBER})).unwrap();
    assert_eq!(there, full, "what it was about to do is not done");
    // The next attempt does it.
    stage.advance(2 * MINUTE);
    stage.idle().await;
    assert_eq!(simulator.count("DeleteLoginProfile").unwrap(), 1);
}

/// A figure of `/metrics`, which is how it stands at that moment.
fn figure(http: SocketAddr, state: &str) -> u64 {
    let mut stream = TcpStream::connect(http).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let name = format!("keyturn_rotations{{state=\"{state}\"}} ");
    let line = reply.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_and_what_is_stuck_is_told_counted_and_shown() {
    let vault = Founded::new("").await.unwrap();
    let listener = Listener::new(&vault.world, "all", "kinds = [\"rotation.*\"]\n").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = free.local_addr().unwrap();
    drop(free);
    let path = vault.world.vault().join("keyturnd.toml");
    let config = fs::read_to_string(&path).unwrap();
    let config = config.replace("[listen]\n", &format!("[listen]\nmetrics = \"{http}\"\n"));
    write_private(&path, config.as_bytes()).unwrap();
    let stage = Stage::deposited(vault).await;
    stage.target.becomes(Mood::Refusing).unwrap();
    let (asked, _) = stage.open().await;
    stage.check_in(&asked, None).await;

    // Failed attempts are told; an hour after it was due it is late.
    stage.until("a failure", |view| view.attempts == 1).await;
    stage.told(&listener, Notice::RotationFailed, 1).await;
    assert_eq!(listener.count(Notice::RotationLate), 0);
    assert_eq!(figure(http, "failing"), 1);
    assert_eq!(figure(http, "late"), 0);
    let pause = v1::PauseRequest {
        for_secs: 7200,
        credentials: vec![],
    };
    stage.line.rotations().pause(pause).await.unwrap();
    stage.advance(61 * MINUTE);
    let told = stage.told(&listener, Notice::RotationLate, 1).await;
    let late = told.iter().find(|one| one.kind == Notice::RotationLate);
    let late = late.unwrap();
    assert_eq!(late.severity, Severity::Warning);
    assert_eq!(late.credentials[0].path, stage.definition.path);
    assert!(stage.rotation().await.late);
    assert_eq!(figure(http, "late"), 1);
    assert_eq!(listener.count(Notice::RotationLate), 1, "once");

    // After the last attempt an operator is needed, and hears of it.
    stage.advance(60 * MINUTE);
    for attempts in 2..=4 {
        stage
            .until("a failure", |view| view.attempts == attempts)
            .await;
        stage.advance(180 * MINUTE);
    }
    let told = stage
        .told(&listener, Notice::RotationNeedsOperator, 1)
        .await;
    let stuck = told
        .iter()
        .find(|one| one.kind == Notice::RotationNeedsOperator);
    assert_eq!(stuck.unwrap().severity, Severity::Alert);
    assert_eq!(figure(http, "stuck"), 1);
    assert_eq!(figure(http, "failing"), 0);
    let status = stage.line.status().await.unwrap();
    let findings: Vec<_> = status
        .findings
        .iter()
        .map(|one| one.code.as_str())
        .collect();
    assert!(findings.contains(&"needs-operator"), "{findings:?}");

    stage.target.becomes(Mood::Well).unwrap();
    let retry = v1::RetryRequest {
        credential: stage.definition.credential.to_string(),
    };
    stage.line.rotations().retry(retry).await.unwrap();
    stage.idle().await;
    stage.told(&listener, Notice::RotationDone, 1).await;
    for state in ["stuck", "late", "due", "failing"] {
        assert_eq!(figure(http, state), 0);
    }
}
