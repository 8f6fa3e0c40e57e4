//! Many rotations at once: a bounded number runs, the others wait, a pause stops them and a restart forgets none;
//! one that fails stands in nobody's way, and openings go on meanwhile.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use keyturn_proto::v1;
use keyturn_tests::{
    inside::Inside,
    raw::{Founded, Line},
    slow::Slow,
    story::{SealedVersion, definition},
};
use keyturn_vault::{definition::Connector as Settings, jcs::Document as _, text::CredentialLine};
use keyturnd::{
    clock::Clock,
    config::Config,
    connector::{Connectors, Shape},
};

const MANY: usize = 40;
/// The one that the target refuses.
const REFUSED: &str = "aws/0";
/// What a configuration says that says nothing.
const CONCURRENT: usize = 8;
const SECRET: &[u8] = b"known to olga";

/// A vault's daemon over a slow target.
async fn serve(vault: &Founded, target: &Arc<Slow>) -> Inside {
    let config = Config::load(&vault.world.vault().join("keyturnd.toml")).unwrap();
    let connectors = Connectors::default().with("slow", Shape::One(Arc::<Slow>::clone(target)));
    let inside = Inside::serving(config, connectors, Clock::system()).await;
    inside.unwrap()
}

/// A vault with many credentials at a slow target, besides one that nobody rotates, as a request names it.
async fn many(target: &Arc<Slow>) -> (Founded, Inside, Line, CredentialLine) {
    let mut vault = Founded::new("").await.unwrap();
    vault.world.stop().unwrap();
    let inside = serve(&vault, target).await;
    let line = vault.line("olga").await.unwrap();
    let olga = vault.who("olga").unwrap();
    let mut last = None;
    for number in 0..=MANY {
        let mut definition = definition(&vault.facts, &format!("aws/{number}")).unwrap();
        if number < MANY {
            definition.connector = Some(Settings {
                name: "slow".parse().unwrap(),
                settings: BTreeMap::new(),
            });
        }
        let document = olga.sign_document(definition.to_bytes().unwrap()).unwrap();
        let add = v1::AddRequest {
            definition: Some(document),
        };
        line.credentials().add(add).await.unwrap();
        let sealed = SealedVersion::new(&vault.facts, &definition, 1, SECRET).unwrap();
        let deposit = sealed.deposit(olga).unwrap();
        line.credentials().deposit(deposit).await.unwrap();
        last = Some(sealed.line(&definition).unwrap());
    }
    (vault, inside, line, last.unwrap())
}

/// Makes everything due, in pages of 15; gives the sum and how many pages there were.
async fn all(line: &Line) -> (v1::RotateNowReply, usize) {
    let (mut sum, mut pages, mut after) = (v1::RotateNowReply::default(), 0, String::new());
    loop {
        let request = v1::RotateNowRequest {
            r#match: "aws/**".to_owned(),
            page: Some(v1::PageRequest { size: 15, after }),
            ..v1::RotateNowRequest::default()
        };
        let reply = line.rotations().now(request).await.unwrap().into_inner();
        sum.made_due += reply.made_due;
        sum.already_due += reply.already_due;
        sum.manual += reply.manual;
        sum.recent += reply.recent;
        pages += 1;
        after = reply.next_page;
        if after.is_empty() {
            return (sum, pages);
        }
    }
}

async fn pause(line: &Line, secs: u32) {
    let request = v1::PauseRequest {
        for_secs: secs,
        credentials: Vec::new(),
    };
    line.rotations().pause(request).await.unwrap();
}

/// Waits until nothing runs, and nothing is due but what fails; gives how it stands.
async fn settled(line: &Line) -> v1::RotationCounts {
    let settled = async {
        loop {
            let counts = line.status().await.unwrap().rotations.unwrap();
            if counts.due == counts.backing_off && counts.running == 0 {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_mins(2), settled).await;
    settled.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_incident_all_are_rotated_a_few_at_a_time() {
    let target = Arc::new(Slow::new(Duration::from_millis(20)).refusing(REFUSED));
    let (vault, inside, line, by_hand) = many(&target).await;

    // A pause of all holds what is made due meanwhile.
    pause(&line, 3600).await;
    let sums = |reply: &v1::RotateNowReply| {
        (
            reply.made_due,
            reply.already_due,
            reply.manual,
            reply.recent,
        )
    };
    let many = u64::try_from(MANY).unwrap();
    let (reply, pages) = all(&line).await;
    assert_eq!((sums(&reply), pages), ((many, 0, 1, 0), 3));
    // Asked again: nothing new, and nothing lost.
    assert_eq!(sums(&all(&line).await.0), (0, many, 1, 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(target.rotated(), 0);
    let counts = line.status().await.unwrap().rotations.unwrap();
    assert_eq!((counts.due, counts.running), (many, 0));

    // It begins, and is stopped half-way: what runs finishes, and nothing else begins.
    pause(&line, 0).await;
    while target.rotated() < MANY / 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A quorum opens what it needs meanwhile.
    let (_, secrets) = vault.open(vec![by_hand.clone()]).await.unwrap();
    assert_eq!(secrets, [SECRET]);
    pause(&line, 3600).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stopped = target.rotated();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(target.rotated(), stopped, "nothing begins in a pause");

    // A restart forgets neither what is due nor the pause; then it goes on where it stopped.
    inside.stop().await.unwrap();
    let inside = serve(&vault, &target).await;
    let line = vault.line("olga").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(target.rotated(), stopped, "nor after a restart");
    pause(&line, 0).await;
    let counts = settled(&line).await;
    assert_eq!(
        (counts.due, counts.backing_off, counts.needs_operator),
        (1, 1, 0)
    );
    assert_eq!(
        target.rotated(),
        MANY - 1,
        "all but the one that is refused"
    );
    let busiest = target.busiest();
    assert!((1..=CONCURRENT).contains(&busiest), "{busiest} at once");
    // And again: each was rotated within the hour, and no open request is ended by that.
    assert_eq!(sums(&all(&line).await.0), (0, 1, 1, many - 1));
    inside.stop().await.unwrap();
}
