//! `keyturn doctor --acceptance`: what only a person with two real YubiKeys can try, step by step, with a report.
//!
//! Each step says what to do, does its part, and compares what came of it with what must come of it. Nothing on the
//! tokens is changed.

use std::fmt::Write as _;

use keyturn_hsm::{Token, TokenError};
use serde_json::json;

use super::{Context, rehearsal::rehearse};
use crate::{
    causes::told,
    clock,
    refusal::Refusal,
    token::yubikey::{at_hand, readers},
    ui::{Style, prompt::PromptError},
};

const TEXT: &[u8] = b"keyturn rehearsal v1\n";

/// What came of a step.
struct Step {
    name: &'static str,
    outcome: Result<String, String>,
}

struct Acceptance {
    context: Context,
    steps: Vec<Step>,
}

/// What a step does; the error is that of the token.
type Trial<'a> = &'a dyn Fn(&mut Context) -> Result<String, TokenError>;

pub(super) fn run(context: Context) -> Result<(), Refusal> {
    context.ui.note(
        "Two enrolled YubiKeys, their PINs, ten minutes. Nothing on them is changed; one wrong PIN is used up and given back.",
    );
    let mut acceptance = Acceptance {
        context,
        steps: Vec::new(),
    };
    acceptance.first_key()?;
    acceptance.second_key()?;
    acceptance.report()
}

impl Acceptance {
    fn first_key(&mut self) -> Result<(), Refusal> {
        self.wait("Insert the first YubiKey alone.")?;
        self.step("found", None, &|_| readers());
        self.rehearse(
            "eight shares and a signature",
            "Enter its PIN once; touch it when it is asked for, at most twice.",
            None,
        );
        self.say("Now do NOT touch it.");
        self.step("touch not given", Some("touch-not-given"), &sign);
        self.say("Now pull it out while it blinks.");
        self.step("pulled out during a touch", Some("token-removed"), &sign);
        self.wait("Insert it again.")?;
        self.say("Now enter a WRONG PIN of six digits.");
        self.step("wrong PIN", Some("wrong-pin"), &sign);
        self.say("Now the right one, and touch it.");
        self.step("right PIN after a wrong one", None, &sign);
        Ok(())
    }

    fn second_key(&mut self) -> Result<(), Refusal> {
        self.wait("Insert the second YubiKey beside the first.")?;
        let several = |_: &mut Context| at_hand(None).map(|token| token.describe().to_string());
        self.step("two at once", Some("several-tokens"), &several);
        let serial = self
            .context
            .person
            .line("Serial number of the second YubiKey (on its back): ")?;
        let serial = serial.trim().parse().map_err(|_| {
            Refusal::new(
                "malformed",
                "that is not a serial number",
                "run it again; it is printed on the YubiKey",
            )
        })?;
        self.rehearse(
            "the second of two, by its number",
            "Enter the PIN of the second one; touch the one that blinks.",
            Some(serial),
        );
        self.wait("Pull out both.")?;
        let none = |_: &mut Context| at_hand(None).map(|token| token.describe().to_string());
        self.step("none", Some("no-token no-reader"), &none);
        Ok(())
    }

    fn rehearse(&mut self, name: &'static str, what: &str, serial: Option<u32>) {
        self.say(what);
        let outcome = at_hand(serial)
            .map_err(Refusal::from)
            .and_then(|mut token| rehearse(token.as_mut(), &mut self.context.person));
        self.push(name, outcome.map_err(|refusal| refusal.message));
    }

    /// `want` is the code of the error that must come, or one of several; none for success.
    fn step(&mut self, name: &'static str, want: Option<&'static str>, trial: Trial<'_>) {
        let outcome = match (trial(&mut self.context), want) {
            (Ok(told), None) => Ok(told),
            (Err(error), Some(want)) if want.split(' ').any(|code| code == error.code()) => {
                Ok(format!("told as it should be: {error}"))
            }
            (Ok(told), Some(_)) => Err(format!("it went well, where it should not: {told}")),
            (Err(error), _) => Err(told(&error)),
        };
        self.push(name, outcome);
    }

    fn push(&mut self, name: &'static str, outcome: Result<String, String>) {
        let ui = self.context.ui;
        ui.note(match &outcome {
            Ok(told) => format!("{}  {name}: {told}", ui.paint_err(Style::Good, "ok  ")),
            Err(why) => format!("{}  {name}: {why}", ui.paint_err(Style::Bad, "FAIL")),
        });
        self.steps.push(Step { name, outcome });
    }

    fn say(&self, what: &str) {
        self.context
            .ui
            .note(self.context.ui.paint_err(Style::Bold, what));
    }

    fn wait(&self, what: &str) -> Result<(), PromptError> {
        self.context
            .person
            .line(&format!("{what} Then press Enter. "))
            .map(drop)
    }

    fn report(self) -> Result<(), Refusal> {
        let Self { context, steps } = self;
        let failed = steps.iter().filter(|step| step.outcome.is_err()).count();
        let rows = steps.iter().map(|step| match &step.outcome {
            Ok(told) => json!({ "step": step.name, "ok": true, "told": told }),
            Err(why) => json!({ "step": step.name, "ok": false, "told": why }),
        });
        let (version, made) = (env!("CARGO_PKG_VERSION"), clock::now().stamp().to_string());
        let document =
            json!({ "keyturn": version, "made": made, "steps": rows.collect::<Vec<_>>() });
        context.ui.result(&document, || {
            let mut text = format!("keyturn {version}, acceptance with YubiKeys, {made}\n");
            for step in &steps {
                let (word, told) = match &step.outcome {
                    Ok(told) => ("ok  ", told),
                    Err(why) => ("FAIL", why),
                };
                // Writing to a string does not fail.
                let _ = writeln!(text, "{word}  {}: {told}", step.name);
            }
            text
        })?;
        if failed == 0 {
            return Ok(());
        }
        Err(Refusal::new(
            "verification",
            format_args!(
                "{failed} of {} steps did not go as they should",
                steps.len()
            ),
            "keep the report, and tell the project about it",
        ))
    }
}

/// Signs with the only YubiKey; the PIN is asked for anew.
fn sign(context: &mut Context) -> Result<String, TokenError> {
    let mut token: Box<dyn Token> = at_hand(None)?;
    let signature = token.sign(TEXT, &mut context.person)?;
    Ok(format!("a signature of {} bytes", signature.len()))
}
