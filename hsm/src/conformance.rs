//! What every token must do, in one place.
//!
//! `run` opens the token anew for every check, as every command does, and plays the person in front of it. It is
//! public so that the crates which keep keys elsewhere can hold their tokens to it. Each check names the invariant
//! of the crate's first page, or of [`crate::prompt`], that it asserts.

use keyturn_seal::{SecretBytes, ShareIdentity, ShareKey, encrypt_to};
use thiserror::Error;

use crate::{
    BUDGET, Budget, Notice, Prompt, Question, SHARE_MAX, SHARES_MAX, TEXT_MAX, Token, TokenError,
};

/// A check that failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{check}: {what}")]
pub struct Failure {
    /// The check's name.
    pub check: &'static str,
    /// What was seen.
    pub what: String,
}

/// Opens the token as a new command does.
pub type Open<'a> = dyn FnMut(&mut dyn Prompt) -> Result<Box<dyn Token>, TokenError> + 'a;

/// The token under test.
pub struct Subject<'a> {
    /// Opens it; always the same token.
    pub open: &'a mut Open<'a>,
    /// The secret that it asks for.
    pub secret: &'a [u8],
    /// A secret of the right form that is wrong; used once.
    pub wrong: &'a [u8],
}

/// A person who gives one answer to every question and remembers what happened.
#[derive(Default)]
pub struct Person {
    answer: Option<Vec<u8>>,
    /// The questions, in order.
    pub questions: Vec<Question>,
    /// The notices, in order.
    pub notices: Vec<Notice>,
}

impl Person {
    /// Knows the secret.
    pub fn who_answers(secret: &[u8]) -> Self {
        Self {
            answer: Some(secret.to_vec()),
            ..Self::default()
        }
    }

    /// Is not there.
    pub fn absent() -> Self {
        Self::default()
    }

    /// What was asked of the person.
    pub fn spent(&self) -> Budget {
        let touches = self
            .notices
            .iter()
            .filter(|notice| matches!(notice, Notice::Touch { .. }));
        Budget {
            secrets: u8::try_from(self.questions.len()).unwrap_or(u8::MAX),
            touches: u8::try_from(touches.count()).unwrap_or(u8::MAX),
        }
    }
}

impl Prompt for Person {
    fn ask(&mut self, question: &Question) -> Result<SecretBytes, TokenError> {
        self.questions.push(question.clone());
        let answer = self
            .answer
            .as_deref()
            .ok_or(TokenError::NotAnswered("nobody is there".into()))?;
        Ok(SecretBytes::from_slice(answer))
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(*notice);
    }
}

type Check = fn(&mut Subject<'_>) -> Result<(), String>;

const CHECKS: [(&str, Check); 8] = [
    ("the keys are the same each time", keys_stay),
    ("a signature holds for its text only", signatures_hold),
    (
        "every length of text is signed, up to the limit",
        texts_are_bounded,
    ),
    (
        "shares come back in order, within the budget",
        shares_come_back,
    ),
    (
        "a share that cannot be opened spoils no other",
        shares_fail_alone,
    ),
    (
        "more shares than any request names are refused",
        shares_are_bounded,
    ),
    ("a wrong secret opens and signs nothing", wrong_secret),
    ("nobody there: nothing is opened or signed", nobody_there),
];

/// Runs every check; the first that fails is returned.
pub fn run(subject: &mut Subject<'_>) -> Result<(), Failure> {
    for (check, body) in CHECKS {
        body(subject).map_err(|what| Failure { check, what })?;
    }
    Ok(())
}

const TEXT: &[u8] = b"keyturn approval v1\nvault: conformance\n";

fn keys_stay(subject: &mut Subject<'_>) -> Result<(), String> {
    let mut seen = None;
    for _ in 0..2 {
        let (token, _) = open(subject)?;
        let now = (
            token.describe(),
            token.share_key().clone(),
            token.approval_key().clone(),
        );
        let same = seen.get_or_insert_with(|| now.clone()) == &now;
        ensure(same, || format!("{} has other keys", now.0))?;
    }
    Ok(())
}

fn signatures_hold(subject: &mut Subject<'_>) -> Result<(), String> {
    let (mut token, mut person) = open(subject)?;
    let signature = token.sign(TEXT, &mut person).map_err(text)?;
    let key = token.approval_key();
    ensure(key.verify(TEXT, &signature).is_ok(), || {
        "does not verify".to_owned()
    })?;
    ensure(key.verify(b"other", &signature).is_err(), || {
        "verifies for another text".to_owned()
    })?;
    within_budget(&person)
}

fn texts_are_bounded(subject: &mut Subject<'_>) -> Result<(), String> {
    for (len, fits) in [
        (0, true),
        (1, true),
        (TEXT_MAX, true),
        (TEXT_MAX.saturating_add(1), false),
    ] {
        let (mut token, mut person) = open(subject)?;
        let body = vec![b'x'; len];
        match token.sign(&body, &mut person) {
            Ok(signature) if fits => {
                let holds = token.approval_key().verify(&body, &signature).is_ok();
                ensure(holds, || format!("{len} bytes: does not verify"))?;
            }
            Err(TokenError::TooMuch(_)) if !fits => {}
            Ok(_) => return Err(format!("{len} bytes were signed")),
            Err(error) => return Err(format!("{len} bytes: {error}")),
        }
    }
    Ok(())
}

fn shares_come_back(subject: &mut Subject<'_>) -> Result<(), String> {
    for count in [0, 1, 8, SHARES_MAX] {
        let (mut token, mut person) = open(subject)?;
        let shares: Vec<Vec<u8>> = (0..count)
            .map(|n| format!("share {n}").into_bytes())
            .collect();
        let files = encrypt(&[token.share_key().clone()], &shares)?;
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let opened = token.open_shares(&files, &mut person);
        ensure(opened.len() == count, || {
            format!("{} results for {count}", opened.len())
        })?;
        for (result, share) in opened.iter().zip(&shares) {
            // Exposed to be compared with what the check itself encrypted.
            let got = result.as_ref().map(SecretBytes::expose).map_err(text)?;
            ensure(got == share, || "another share came back".to_owned())?;
        }
        token.sign(TEXT, &mut person).map_err(text)?;
        within_budget(&person)?;
    }
    Ok(())
}

fn shares_fail_alone(subject: &mut Subject<'_>) -> Result<(), String> {
    let (mut token, mut person) = open(subject)?;
    let ours = token.share_key().clone();
    let stranger = ShareIdentity::generate().map_err(text)?.share_key();
    let one = |keys: &[ShareKey], plain: &[u8]| encrypt_to(keys, plain).map_err(text);
    let good = one(std::slice::from_ref(&ours), b"good")?;
    let shared = one(&[stranger.clone(), ours.clone()], b"shared")?;
    let foreign = one(&[stranger], b"foreign")?;
    let long = one(&[ours], &vec![0; SHARE_MAX.saturating_add(1)])?;
    let cut = good
        .get(..good.len().saturating_sub(1))
        .unwrap_or_default()
        .to_vec();
    let mut flipped = good.clone();
    if let Some(last) = flipped.last_mut() {
        *last ^= 1;
    }
    let cases: [(&str, &[u8], Option<TokenError>); 9] = [
        ("good", &good, None),
        ("for two tokens", &shared, None),
        (
            "for another token",
            &foreign,
            Some(TokenError::NotForThisToken),
        ),
        ("too long", &long, Some(TokenError::ShareDamaged)),
        ("cut", &cut, Some(TokenError::ShareDamaged)),
        ("altered", &flipped, Some(TokenError::ShareDamaged)),
        ("empty", b"", Some(TokenError::ShareDamaged)),
        (
            "no age file",
            b"nothing of the kind",
            Some(TokenError::ShareDamaged),
        ),
        ("good again", &good, None),
    ];
    let files: Vec<&[u8]> = cases.iter().map(|(_, file, _)| *file).collect();
    let opened = token.open_shares(&files, &mut person);
    for ((name, _, want), result) in cases.iter().zip(&opened) {
        let got = result.as_ref().err();
        ensure(got == want.as_ref(), || {
            format!("{name}: {}", got.map_or("opened".to_owned(), text))
        })?;
    }
    within_budget(&person)
}

fn shares_are_bounded(subject: &mut Subject<'_>) -> Result<(), String> {
    let (mut token, mut person) = open(subject)?;
    let file = encrypt_to(&[token.share_key().clone()], b"share").map_err(text)?;
    let files = vec![file.as_slice(); SHARES_MAX.saturating_add(1)];
    let refused = |result: &Result<_, TokenError>| matches!(result, Err(TokenError::TooMuch(_)));
    let opened = token.open_shares(&files, &mut person);
    ensure(
        opened.len() == files.len() && opened.iter().all(refused),
        || "were opened".to_owned(),
    )
}

fn wrong_secret(subject: &mut Subject<'_>) -> Result<(), String> {
    let mut person = Person::who_answers(subject.wrong);
    let error = refused(subject, &mut person)?;
    let wrong = matches!(
        error,
        TokenError::WrongPassphrase | TokenError::WrongPin { .. }
    );
    ensure(wrong, || format!("told as: {error}"))?;
    ensure(person.questions.len() == 1, || {
        "asked more than once".to_owned()
    })?;
    // Invariant 4: the next command works.
    signatures_hold(subject)
}

fn nobody_there(subject: &mut Subject<'_>) -> Result<(), String> {
    let error = refused(subject, &mut Person::absent())?;
    ensure(matches!(error, TokenError::NotAnswered(_)), || {
        format!("told as: {error}")
    })?;
    signatures_hold(subject)
}

/// The error of a command that must not get anywhere: on opening, or on the first use.
fn refused(subject: &mut Subject<'_>, person: &mut Person) -> Result<TokenError, String> {
    let mut token = match (subject.open)(person) {
        Ok(token) => token,
        Err(error) => return Ok(error),
    };
    let file = encrypt_to(&[token.share_key().clone()], b"share").map_err(text)?;
    match token.open_shares(&[&file], person).pop() {
        Some(Err(error)) => Ok(error),
        _ => Err("a share was opened".to_owned()),
    }
}

fn open(subject: &mut Subject<'_>) -> Result<(Box<dyn Token>, Person), String> {
    let mut person = Person::who_answers(subject.secret);
    let token = (subject.open)(&mut person).map_err(text)?;
    Ok((token, person))
}

fn encrypt(keys: &[ShareKey], shares: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    shares
        .iter()
        .map(|share| encrypt_to(keys, share).map_err(text))
        .collect()
}

/// Invariant 1 and 2 of the crate, 1 to 3 of the prompt.
fn within_budget(person: &Person) -> Result<(), String> {
    let spent = person.spent();
    ensure(spent.secrets <= BUDGET.secrets, || {
        format!("asked for {} secrets", spent.secrets)
    })?;
    ensure(spent.touches <= BUDGET.touches, || {
        format!("asked for {} touches", spent.touches)
    })?;
    let mut told = Budget::default();
    let mut waiting = false;
    for notice in &person.notices {
        match notice {
            Notice::Ahead(budget) => told = *budget,
            Notice::Touch { .. } => {
                ensure(told.touches > 0 && !waiting, || {
                    "a touch came unannounced".to_owned()
                })?;
                waiting = true;
            }
            Notice::TouchOver => waiting = false,
        }
    }
    ensure(!waiting, || "a touch was never over".to_owned())?;
    ensure(spent.touches <= told.touches, || {
        format!("told {told}, took {spent}")
    })
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` wants"
)]
fn text(error: impl ToString) -> String {
    error.to_string()
}
