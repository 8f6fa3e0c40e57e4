//! What people change: they are reminded, guided, checked, and where two are wanted one is not enough.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use keyturn_proto::v1::{self, RotationState};
use keyturn_tests::{World, harness::write_private, listener::Listener, raw::Founded};
use keyturn_vault::definition::Kind;
use keyturnd::notice::{Kind as Notice, Severity};

use super::stage::{FIRST, Stage};

const HOUR: Duration = Duration::from_hours(1);
/// Two operators, where one is not enough.
const PEOPLE: [(&str, &[&str]); 6] = [
    ("alice", &["requester"]),
    ("olga", &["operator"]),
    ("oscar", &["operator"]),
    ("bob", &["custodian"]),
    ("carol", &["custodian"]),
    ("dan", &["custodian"]),
];

/// A program that looks whether the target was changed: a file says so.
struct Check {
    program: PathBuf,
    changed: PathBuf,
}

impl Check {
    fn new(world: &World) -> Self {
        let folder = world.folder().join("check");
        fs::create_dir(&folder).unwrap();
        let (program, changed) = (folder.join("look"), folder.join("changed"));
        let script = format!(
            r#"#!/bin/sh
case $(cat) in
*'"action":"changed"'*'"since":"20'*)
    if [ -e {} ]; then echo '{{"outcome":"done","evidence":"last changed today"}}'
    else echo '{{"outcome":"refused","message":"it is as it was"}}'; fi ;;
*) echo '{{"outcome":"refused","message":"nothing to look at"}}' ;;
esac
"#,
            changed.display()
        );
        write_private(&program, script.as_bytes()).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { program, changed }
    }

    /// The connector's table.
    fn table(&self) -> String {
        format!(
            "\n[connectors.manual]\nkind = \"manual\"\nremind_hours = 24\nescalate_hours = 72\n\
             guides = {{ console = [\"sign in\", \"change the password\"] }}\n\
             [connectors.manual.check]\ncommand = \"{}\"\n",
            self.program.display()
        )
    }
}

/// A vault that is rotated by hand, and who is told.
async fn by_hand(more: &[(&str, &str)]) -> (Stage, Check, Listener) {
    let world = World::new().unwrap();
    let vault = Founded::by(&PEOPLE, world, "").await.unwrap();
    let listener = Listener::new(&vault.world, "all", "kinds = [\"rotation.*\"]\n").unwrap();
    let check = Check::new(&vault.world);
    let mut settings = vec![("guide", "console")];
    settings.extend(more);
    let stage = Stage::over(vault, Kind::AwsRoot, ("manual", &settings), &check.table()).await;
    stage.deposit(1, FIRST).await;
    (stage, check, listener)
}

impl Stage {
    /// Somebody says that it is done; gives the code of the refusal, or nothing.
    async fn complete(&self, who: &str, version: u64) -> String {
        let complete = v1::CompleteRequest {
            credential: self.definition.credential.to_string(),
            version,
        };
        let line = self.vault.line(who).await.unwrap();
        let Err(refused) = line.rotations().complete(complete).await else {
            return String::new();
        };
        let code = refused.metadata().get("keyturn-code").unwrap();
        code.to_str().unwrap().to_owned()
    }

    async fn standing(&self) -> v1::RotationCounts {
        self.line.status().await.unwrap().rotations.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_reminds_escalates_and_ends_when_the_check_sees_the_change() {
    let (mut stage, check, listener) = by_hand(&[]).await;
    let (asked, _) = stage.open().await;
    stage.check_in(&asked, Some(1)).await;
    stage.told(&listener, Notice::RotationManual, 1).await;
    let view = stage.rotation().await;
    assert_eq!(view.state(), RotationState::Manual);
    assert_eq!(view.guide, ["sign in", "change the password"]);
    assert!(view.hint.contains("rotate complete"), "{}", view.hint);

    // Reminders come by themselves, also after a restart; the third is an alert.
    stage.advance(25 * HOUR);
    stage.told(&listener, Notice::RotationManual, 2).await;
    assert_eq!(stage.standing().await.needs_operator, 0);
    stage = stage.restart(20 * HOUR).await;
    assert_eq!(listener.count(Notice::RotationManual), 2, "not yet");
    stage.advance(5 * HOUR);
    stage.told(&listener, Notice::RotationManual, 3).await;
    stage.advance(25 * HOUR);
    let told = stage.told(&listener, Notice::RotationOverdue, 1).await;
    let overdue = told.iter().find(|one| one.kind == Notice::RotationOverdue);
    assert_eq!(overdue.unwrap().severity, Severity::Alert);
    let counts = stage.standing().await;
    assert_eq!((counts.manual, counts.needs_operator), (1, 1));

    assert_eq!(stage.complete("olga", 1).await, "not-changed");
    stage.deposit(2, b"by hand").await;
    assert_eq!(stage.complete("olga", 2).await, "not-changed");
    assert_eq!(stage.rotation().await.state(), RotationState::Manual);
    write_private(&check.changed, b"").unwrap();
    assert_eq!(stage.complete("olga", 1).await, "nothing-owed");
    assert_eq!(stage.complete("olga", 2).await, "");
    let done = stage.rotation().await;
    assert_eq!(done.state(), RotationState::Idle);
    assert_eq!(done.evidence, "last changed today");
    let counts = stage.standing().await;
    assert_eq!((counts.manual, counts.needs_operator), (0, 0));
    let told = listener.told().len();
    stage.advance(50 * HOUR);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        listener.told().len(),
        told,
        "what is done is not told again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_people_are_wanted_one_changes_and_another_completes() {
    let (stage, check, _) = by_hand(&[("two-people", "yes")]).await;
    let now = v1::RotateNowRequest {
        r#match: "accounts/**".to_owned(),
        ..Default::default()
    };
    let reply = stage.line.rotations().now(now).await.unwrap().into_inner();
    assert_eq!((reply.made_due, reply.manual), (0, 1), "it is a task");
    let view = stage.rotation().await;
    assert!(view.two_people && view.state() == RotationState::Manual);
    write_private(&check.changed, b"").unwrap();
    stage.deposit(2, b"by two people").await;
    assert_eq!(stage.complete("olga", 2).await, "same-person");
    assert_eq!(stage.complete("alice", 2).await, "role-missing");
    assert_eq!(stage.complete("oscar", 2).await, "");
    assert_eq!(stage.rotation().await.state(), RotationState::Idle);
    let (_, secrets) = stage.open().await;
    assert_eq!(
        secrets,
        [FIRST, b"by two people"],
        "the old one stays until somebody has signed in with the new one"
    );
}
