//! `keyturn doctor`: the whole way, from the keys of this home to the vault's log, step by step.

#[cfg(feature = "yubikey")]
mod acceptance;
mod rehearsal;

use clap::Args;
use keyturn_vault::reference::TokenKind;
use serde_json::json;

use super::Context;
use crate::{
    home::Profile,
    refusal::Refusal,
    session::{DEVICE_FILE, Session, kept_chain},
    token::{self, KEY_FILE},
    ui::{Style, Ui, several},
    verify::log,
};

/// Look at the whole way, from your keys to the vault's log.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Rehearse an approval with your token: eight shares and a signature, without a vault
    #[arg(long, conflicts_with = "acceptance")]
    rehearse: bool,
    /// Try two real YubiKeys in ten minutes: what goes well, and what goes wrong
    #[arg(long)]
    acceptance: bool,
}

/// What was looked at, and what came of it.
struct Report {
    ui: Ui,
    steps: Vec<(&'static str, Result<String, Refusal>)>,
}

impl Report {
    fn step<T>(
        &mut self,
        name: &'static str,
        outcome: Result<T, Refusal>,
        told: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let (result, value) = match outcome {
            Ok(value) => (Ok(told(&value)), Some(value)),
            Err(refusal) => (Err(refusal), None),
        };
        self.steps.push((name, result));
        value
    }

    fn text(&self) -> String {
        let line = |(name, outcome): &(&str, Result<String, Refusal>)| match outcome {
            Ok(told) => format!("{}  {name:8} {told}\n", self.ui.paint(Style::Good, "ok  ")),
            Err(refusal) => format!(
                "{}  {name:8} {refusal}\n      {:8} {}\n",
                self.ui.paint(Style::Bad, "FAIL"),
                "",
                refusal.hint
            ),
        };
        self.steps.iter().map(line).collect::<Vec<_>>().concat()
    }
}

impl Doctor {
    pub(crate) async fn run(self, mut context: Context) -> Result<(), Refusal> {
        if self.acceptance {
            return accept(context);
        }
        let mut report = Report {
            ui: context.ui,
            steps: Vec::new(),
        };
        if self.rehearse {
            rehearse(&mut context, &mut report);
        } else {
            look(&mut context, &mut report).await;
        }
        report.ends(&context)
    }
}

#[cfg(feature = "yubikey")]
fn accept(context: Context) -> Result<(), Refusal> {
    acceptance::run(context)
}

#[cfg(not(feature = "yubikey"))]
fn accept(_: Context) -> Result<(), Refusal> {
    Err(token::no_yubikey())
}

impl Report {
    /// Shows it; the first step that failed is the outcome.
    fn ends(self, context: &Context) -> Result<(), Refusal> {
        let report = self;
        let steps = report.steps.iter().map(|(name, outcome)| match outcome {
            Ok(told) => json!({ "step": name, "ok": true, "told": told }),
            Err(refusal) => json!({ "step": name, "ok": false, "code": refusal.code, "told": refusal.message, "hint": refusal.hint }),
        });
        let document = json!({ "steps": steps.collect::<Vec<_>>() });
        context.ui.result(&document, || report.text())?;
        match report
            .steps
            .into_iter()
            .find_map(|(_, outcome)| outcome.err())
        {
            None => Ok(()),
            Some(first) => Err(first),
        }
    }
}

/// The token alone, with or without a home.
fn rehearse(context: &mut Context, report: &mut Report) {
    let opened = match context.home.profile() {
        Ok(profile) => {
            look_at_readers(profile.token.kind, report);
            context.token(&profile).map(|opened| opened.token)
        }
        Err(none) => {
            look_at_readers(TokenKind::Yubikey, report);
            token::inserted(context.wanted)
                .and_then(|token| token.ok_or_else(|| Refusal::from(none)))
        }
    };
    let Some(mut token) = report.step("token", opened, |token| token.describe().to_string()) else {
        return;
    };
    let rehearsed = rehearsal::rehearse(token.as_mut(), &mut context.person);
    report.step("rehearse", rehearsed, String::clone);
}

/// What the smart-card service has, where a token needs it.
#[cfg(feature = "yubikey")]
fn look_at_readers(kind: TokenKind, report: &mut Report) {
    if kind == TokenKind::Yubikey {
        let readers = token::yubikey::readers().map_err(Refusal::from);
        report.step("readers", readers, String::clone);
    }
}

#[cfg(not(feature = "yubikey"))]
fn look_at_readers(_: TokenKind, _: &mut Report) {}

/// The token of a profile, without a PIN or passphrase.
fn look_at_token(context: &mut Context, profile: &Profile, report: &mut Report) {
    look_at_readers(profile.token.kind, report);
    if profile.token.kind == TokenKind::Software {
        let file = keyturn_hsm::private::read(&context.home.path(KEY_FILE)).map_err(Refusal::from);
        report.step("token", file, |_| {
            format!("{} has its key file", profile.token)
        });
        return;
    }
    let opened = context.token(profile);
    report.step("token", opened, |opened| {
        let of = opened
            .token
            .describe()
            .firmware
            .map(|firmware| format!(", firmware {firmware}"))
            .unwrap_or_default();
        format!("{} has the enrolled keys{of}", opened.reference())
    });
}

/// Each step builds on the one before; after the first that fails there is nothing more to look at.
async fn look(context: &mut Context, report: &mut Report) {
    let home = context.home.clone();
    let home = &home;
    let Some(profile) = report.step("profile", home.profile().map_err(Into::into), |profile| {
        profile.reference().to_string()
    }) else {
        return;
    };
    look_at_token(context, &profile, report);
    let device =
        keyturn_hsm::device::DeviceKey::load(&home.path(DEVICE_FILE)).map_err(Refusal::from);
    report.step("device", device, |key| {
        format!("pin {}", hex::encode(key.pin()))
    });
    let Some(vault) = report.step(
        "vault",
        profile
            .vault
            .clone()
            .ok_or_else(|| crate::home::HomeError::NoVault.into()),
        |vault| vault.origin.to_string(),
    ) else {
        return;
    };
    report.step("charters", kept_chain(home, &vault), |chain| {
        chain
            .newest()
            .map(|(newest, _)| format!("verified up to charter {}", newest.index))
            .unwrap_or_default()
    });
    let kept = home.checkpoint().map_err(Refusal::from);
    report.step("log", kept, |kept| {
        if kept.is_some() {
            "a checkpoint is kept".to_owned()
        } else {
            "no checkpoint is kept yet".to_owned()
        }
    });
    let Some(mut session) = report.step("way", Session::connect(home, context.ui).await, way)
    else {
        return;
    };
    let followed = session.follow().await;
    let Some(()) = report.step("verify", followed, |()| {
        "charter and log continue what was seen before".to_owned()
    }) else {
        return;
    };
    let me = session.me().map(|me| {
        me.roles
            .iter()
            .map(|role| format!("{role:?}").to_lowercase())
            .collect::<Vec<_>>()
            .join(", ")
    });
    report.step("roles", me, String::clone);
    let head = session.head.as_ref().map(log::head);
    report.step("head", Ok(head), |head| {
        head.map(|head| several(head.size, "entry", "entries"))
            .unwrap_or_default()
    });
    let link = session
        .status()
        .show(keyturn_proto::v1::ShowStatusRequest {})
        .await
        .map_err(Refusal::from);
    report.step("daemon", link, |reply| {
        format!("keyturnd {}", crate::ui::clean(&reply.get_ref().daemon))
    });
}

fn way(session: &Session) -> String {
    session.link().server().map_or_else(
        || "connected".to_owned(),
        |server| {
            let quantum = if server.post_quantum {
                "post-quantum"
            } else {
                "classical"
            };
            format!("{} with the pinned key, TLS 1.3, {quantum}", server.address)
        },
    )
}
