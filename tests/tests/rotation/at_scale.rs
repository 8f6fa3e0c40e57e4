//! Many rotations at once: a bounded number runs, the others wait, a pause holds them, and asking again goes on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keyturn_proto::v1;
use keyturn_seal::SecretBytes;
use keyturn_tests::{
    inside::Inside,
    raw::{Founded, Line},
    story::{SealedVersion, definition},
};
use keyturn_vault::{definition::Connector as Settings, jcs::Document as _};
use keyturnd::{
    clock::Clock,
    config::Config,
    connector::{
        About, Attempt, Connector, Connectors, Evidence, Failure, OneSlot, Rules, RulesError,
        Shape, Target,
    },
};
use tonic::async_trait;

const MANY: usize = 40;
/// What a configuration says that says nothing.
const CONCURRENT: usize = 8;

/// A target that takes a moment, and counts.
#[derive(Default)]
struct Slow {
    set: AtomicUsize,
    busy: AtomicUsize,
    busiest: AtomicUsize,
}

#[async_trait]
impl Connector for Slow {
    fn about(&self) -> About {
        About {
            kind: "slow",
            fence: false,
            rights: &[],
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_mins(1)
    }

    async fn check_self(&self) -> Result<String, Failure> {
        Ok("a test".to_owned())
    }

    async fn check(&self, _: &Target) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl OneSlot for Slow {
    fn rules(&self, _: &Target) -> Result<Rules, RulesError> {
        Ok(Rules::default())
    }

    async fn apply(&self, _: &Target, _: Attempt, _: &SecretBytes) -> Result<(), Failure> {
        let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
        self.busiest.fetch_max(busy, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.busy.fetch_sub(1, Ordering::SeqCst);
        self.set.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn test(&self, _: &Target, _: Attempt, _: &SecretBytes) -> Result<(), Failure> {
        Ok(())
    }

    async fn end_sessions(&self, _: &Target) -> Result<(), Failure> {
        Ok(())
    }

    async fn evidence(&self, _: &Target) -> Result<Evidence, Failure> {
        Ok(Evidence::NotObservable)
    }
}

/// A vault with many credentials at a slow target, besides one that nobody rotates.
async fn many(target: &Arc<Slow>) -> (Founded, Inside, Line) {
    let mut vault = Founded::new("").await.unwrap();
    vault.world.stop().unwrap();
    let config = Config::load(&vault.world.vault().join("keyturnd.toml")).unwrap();
    let connectors = Connectors::default().with("slow", Shape::One(Arc::<Slow>::clone(target)));
    let inside = Inside::serving(config, connectors, Clock::system())
        .await
        .unwrap();
    let line = vault.line("olga").await.unwrap();
    let olga = vault.who("olga").unwrap();
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
        let sealed = SealedVersion::new(&vault.facts, &definition, 1, b"known to olga").unwrap();
        let deposit = sealed.deposit(olga).unwrap();
        line.credentials().deposit(deposit).await.unwrap();
    }
    (vault, inside, line)
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

#[tokio::test(flavor = "multi_thread")]
async fn after_an_incident_all_are_rotated_a_few_at_a_time() {
    let target = Arc::new(Slow::default());
    let (vault, inside, line) = many(&target).await;

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
    assert_eq!(target.set.load(Ordering::SeqCst), 0);
    let counts = line.status().await.unwrap().rotations.unwrap();
    assert_eq!((counts.due, counts.running), (many, 0));

    pause(&line, 0).await;
    let done = async {
        loop {
            let counts = line.status().await.unwrap().rotations.unwrap();
            assert_eq!((counts.needs_operator, counts.backing_off), (0, 0));
            if counts.due == 0 && counts.running == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_mins(2), done).await;
    assert!(done.is_ok(), "not all are rotated");
    assert_eq!(target.set.load(Ordering::SeqCst), MANY);
    let busiest = target.busiest.load(Ordering::SeqCst);
    assert!((1..=CONCURRENT).contains(&busiest), "{busiest} at once");
    // And again: each was rotated within the hour, and no open request is ended by that.
    assert_eq!(sums(&all(&line).await.0), (0, 0, 1, many));
    inside.stop().await.unwrap();
    drop(vault);
}
