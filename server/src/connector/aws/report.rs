//! The credential report: what AWS itself says of every user's password, keys and devices.
//!
//! AWS makes one at most every four hours and gives the same one meanwhile, so a report says something
//! of a change only when it was made after it. Each row is for a user, and the account's root is one.

use std::time::Duration;

use aws_sdk_iam::{self as iam, types::ReportStateType};
use keyturn_vault::time::Time;

use super::platform::Platform;
use crate::connector::Failure;

/// How long AWS is given to make a report.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is asked whether it has.
const POLL: Duration = Duration::from_millis(500);
/// The largest report that is read.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A row of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// When the report was made, by AWS's clock.
    pub(super) made: Time,
    /// When the password was set; none where there is none, or it was never set.
    pub(super) password_changed: Option<Time>,
    /// Whether an MFA device is enabled.
    pub(super) mfa: bool,
}

/// The newest row of a principal; a report is made when AWS has none that is new enough for it. None where
/// the principal is not in it: it is younger than the report.
pub(super) async fn row(platform: &Platform, arn: &str) -> Result<Option<Row>, Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        let call = platform.looks("GenerateCredentialReport");
        let operation = platform.clients().await.look.generate_credential_report();
        let state = call
            .send(operation.customize().interceptor(call.clone()).send())
            .await?;
        if state.state == Some(ReportStateType::Complete) {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(Failure::Busy {
                why: "AWS is still making the credential report".to_owned(),
                after: Some(PATIENCE),
            });
        }
        tokio::time::sleep(POLL).await;
    }
    let call = platform.looks("GetCredentialReport");
    let operation = platform.clients().await.look.get_credential_report();
    let report = call
        .send(operation.customize().interceptor(call.clone()).send())
        .await?;
    let made = report
        .generated_time()
        .and_then(time)
        .ok_or_else(unreadable)?;
    let content = report.content().map(iam::primitives::Blob::as_ref);
    let content = content
        .filter(|content| content.len() <= MAX_BYTES)
        .and_then(|content| std::str::from_utf8(content).ok())
        .ok_or_else(unreadable)?;
    find(content, arn, made)
}

fn unreadable() -> Failure {
    Failure::Unknown("GetCredentialReport: the report cannot be read".to_owned())
}

/// A time of AWS.
pub(super) fn time(time: &iam::primitives::DateTime) -> Option<Time> {
    let ms = u64::try_from(time.to_millis().ok()?).ok()?;
    Some(Time::from_ms(ms))
}

/// The row of a principal in a report.
fn find(content: &str, arn: &str, made: Time) -> Result<Option<Row>, Failure> {
    let mut lines = content.lines();
    let names = lines.next().ok_or_else(unreadable)?;
    let names: Vec<&str> = names.split(',').collect();
    let place = |name: &str| {
        let place = names.iter().position(|one| *one == name);
        place.ok_or_else(unreadable)
    };
    let (at, changed, mfa) = (
        place("arn")?,
        place("password_last_changed")?,
        place("mfa_active")?,
    );
    for line in lines {
        let cells = cells(line, names.len());
        if cells.len() < names.len() {
            return Err(unreadable());
        }
        if cells.get(at).is_some_and(|cell| cell == arn) {
            return Ok(Some(Row {
                made,
                password_changed: cells.get(changed).and_then(|cell| stamp(cell)),
                mfa: cells.get(mfa).ok_or_else(unreadable)? == "true",
            }));
        }
    }
    Ok(None)
}

/// The cells of a line. A user's name may hold commas; it is in the first two cells, as often in each.
fn cells(line: &str, wanted: usize) -> Vec<String> {
    let pieces: Vec<&str> = line.split(',').collect();
    let more = pieces.len().saturating_sub(wanted) / 2;
    let width = more.saturating_add(1);
    let (user, rest) = pieces.split_at(width.min(pieces.len()));
    let (arn, rest) = rest.split_at(width.min(rest.len()));
    let mut cells = vec![user.join(","), arn.join(",")];
    cells.extend(rest.iter().map(|cell| (*cell).to_owned()));
    cells
}

/// A time of a report, like `2026-11-21T02:17:00+00:00`; none for `N/A` and its like.
fn stamp(cell: &str) -> Option<Time> {
    let stamp: jiff::Timestamp = cell.parse().ok()?;
    Some(Time::from_ms(u64::try_from(stamp.as_millisecond()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "user,arn,user_creation_time,password_enabled,password_last_used,password_last_changed,mfa_active";

    fn row(cells: &str) -> Result<Option<Row>, Failure> {
        find(
            &format!("{HEAD}\n{cells}\n"),
            "arn:aws:iam::123456789012:user/a,b",
            Time::from_ms(9),
        )
    }

    #[test]
    fn rows_are_found_by_principal() {
        let found = |password_changed, mfa| {
            Ok(Some(Row {
                made: Time::from_ms(9),
                password_changed,
                mfa,
            }))
        };
        for (name, cells, want) in [
            (
                "commas in a name",
                "a,b,arn:aws:iam::123456789012:user/a,b,2026-11-21T02:17:00+00:00,true,no_information,1970-01-01T00:00:07+00:00,true",
                found(Some(Time::from_ms(7000)), true),
            ),
            (
                "no password",
                "a,b,arn:aws:iam::123456789012:user/a,b,2026-11-21T02:17:00+00:00,false,N/A,N/A,false",
                found(None, false),
            ),
            (
                "somebody else",
                "c,arn:aws:iam::123456789012:user/c,2026-11-21T02:17:00+00:00,false,N/A,N/A,false",
                Ok(None),
            ),
            (
                "a line that is cut",
                "a,b,arn:aws:iam::123456789012:user/a,b,2026",
                Err(unreadable()),
            ),
        ] {
            assert_eq!(row(cells), want, "{name}");
        }
        let not_one = find("not a report\n", "arn", Time::from_ms(9));
        assert_eq!(not_one, Err(unreadable()));
    }
}
