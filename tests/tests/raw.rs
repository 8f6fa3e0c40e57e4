//! Calls to the daemon, one by one, without the command line.

use keyturn_audit::tile::{Content, TilePath};
use keyturn_proto::v1;
use keyturn_tests::{
    harness::write_private,
    raw::{Founded, Line},
};

#[tokio::test(flavor = "multi_thread")]
async fn two_custodians_open_what_was_sealed() {
    let vault = Founded::new("").await.unwrap();
    let (_, named) = vault.seal("aws/1/root", b"hunter2").await.unwrap();
    let (_, secrets) = vault.open(vec![named]).await.unwrap();
    assert_eq!(secrets[0], b"hunter2");
}

/// The bytes of the first tile of this content, when the log had so many entries.
async fn tile(line: &Line, content: Content, width: u32) -> Result<Vec<u8>, String> {
    let request = v1::TileRequest {
        level: match content {
            Content::Entries => None,
            Content::Hashes(level) => Some(level.into()),
        },
        index: 0,
        width,
        offset: 0,
    };
    let reply = line.log().tile(request).await;
    reply
        .map(|reply| reply.into_inner().data)
        .map_err(|refused| refused.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tile_of_a_shorter_log_is_given_while_the_log_grows() {
    let vault = Founded::new("").await.unwrap();
    let line = vault.line("bob").await.unwrap();
    let facts = &vault.facts;
    let contents = [Content::Hashes(0), Content::Entries];
    let width = |size: u64| u32::try_from(size).unwrap();
    let short = line.checkpoint(&facts.vkey).await.unwrap().size();
    let mut then = Vec::new();
    for content in contents {
        then.push(tile(&line, content, width(short)).await.unwrap());
    }
    vault.seal("aws/1/root", b"hunter2").await.unwrap();
    let long = line.checkpoint(&facts.vkey).await.unwrap().size();
    assert!(long > short);
    for (content, then) in contents.into_iter().zip(&then) {
        let whole = tile(&line, content, width(long)).await.unwrap();
        assert!(
            whole.len() > then.len() && whole.starts_with(then),
            "{content:?}"
        );
        assert_eq!(
            tile(&line, content, width(short)).await.as_ref(),
            Ok(then),
            "{content:?}"
        );
        for later in [width(long).checked_add(1).unwrap(), 0, u32::MAX] {
            let refused = tile(&line, content, later).await.unwrap_err();
            assert_eq!(
                refused, "the log has no tile of this width yet",
                "{content:?}: {later}"
            );
        }
        // What lies there damaged is not cut to what it should be: whoever verifies it sees the damage.
        let path = TilePath::new(content, 0, long).unwrap().to_string();
        let damaged = [whole, vec![0]].concat();
        write_private(&vault.world.log().join(path), &damaged).unwrap();
        assert_eq!(
            tile(&line, content, width(short)).await,
            Ok(damaged),
            "{content:?}"
        );
    }
}
