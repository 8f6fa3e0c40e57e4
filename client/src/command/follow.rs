//! A ceremony as it goes on: a stream that survives reconnects, and its picture on the terminal.

use std::time::Duration;

use keyturn_proto::v1::{
    self, CeremonyState, CeremonyView, Decision, ceremony_client::CeremonyClient, watch_reply::What,
};
use keyturn_vault::id::CeremonyId;
use tokio::{
    signal::ctrl_c,
    sync::mpsc,
    time::{Interval, interval},
};
use tonic::{Code, transport::Channel};

use super::show;
use crate::{
    clock,
    refusal::Refusal,
    ui::{Ui, clean, countdown, live::Live},
};

/// A lost connection is tried again after this time, then after twice as much, and so on.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// At most this much.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a ceremony's stream brings.
#[derive(Debug)]
pub enum News {
    /// It changed.
    View(Box<CeremonyView>),
    /// Shares go to this key now.
    SubmitKey(v1::SignedText),
    /// What was opened.
    Release(Box<v1::Release>),
    /// The connection broke and is tried again.
    Lost,
}

/// Follows a ceremony until it is over; what is lost in between is asked for again.
pub fn follow(
    client: CeremonyClient<Channel>,
    id: String,
    with_release: bool,
) -> mpsc::Receiver<Result<News, Refusal>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(run(client, id, with_release, sender));
    receiver
}

async fn run(
    mut client: CeremonyClient<Channel>,
    id: String,
    with_release: bool,
    sender: mpsc::Sender<Result<News, Refusal>>,
) {
    let mut revision = 0;
    let mut pause = FIRST_PAUSE;
    let mut over = None;
    loop {
        let request = v1::WatchRequest {
            id: id.clone(),
            after_revision: revision,
            with_release,
        };
        // A stream lasts longer than any call.
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_hours(24));
        let failed = match client.watch(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(reply)) => {
                            pause = FIRST_PAUSE;
                            let Some(news) = news(reply, &mut revision, &mut over) else {
                                continue;
                            };
                            if sender.send(Ok(news)).await.is_err() {
                                return;
                            }
                        }
                        Ok(None)
                            if over.is_some_and(|state| {
                                !with_release || state != CeremonyState::Released
                            }) =>
                        {
                            return;
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        if over == Some(CeremonyState::Released) && failed.is_none() {
            return;
        }
        if let Some(status) = failed
            && !passing(status.code())
        {
            // A receiver that is gone needs no error.
            let _ = sender.send(Err(status.into())).await;
            return;
        }
        if sender.send(Ok(News::Lost)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

fn news(
    reply: v1::WatchReply,
    revision: &mut u64,
    over: &mut Option<CeremonyState>,
) -> Option<News> {
    Some(match reply.what? {
        What::Ceremony(view) => {
            *revision = view.revision;
            *over = Some(view.state()).filter(|state| is_final(*state));
            News::View(Box::new(view))
        }
        What::SubmitKey(key) => News::SubmitKey(key),
        What::Release(release) => News::Release(Box::new(release)),
        What::Alive(_) => return None,
    })
}

/// Errors that go away by themselves.
pub(super) fn passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Internal
    )
}

/// Whether nothing more will happen.
pub fn is_final(state: CeremonyState) -> bool {
    use CeremonyState as S;
    match state {
        S::Unspecified | S::Open | S::Approved | S::Authorized => false,
        S::Released
        | S::Failed
        | S::Interrupted
        | S::Applied
        | S::Expired
        | S::Withdrawn
        | S::Superseded => true,
    }
}

/// Stays until a ceremony is over, and shows it meanwhile; gives how it ended.
pub async fn outcome(
    ui: Ui,
    client: CeremonyClient<Channel>,
    id: CeremonyId,
    view: CeremonyView,
) -> Result<CeremonyView, Refusal> {
    let mut wait = Wait::new(ui, client, id, false);
    let leaving = format!("see `keyturn status`; `keyturn withdraw {id}` gives it up");
    while wait.next(&leaving).await?.is_some() {}
    Ok(wait.view().cloned().unwrap_or(view))
}

/// A ceremony that is awaited, and shown meanwhile.
pub struct Wait {
    ui: Ui,
    news: mpsc::Receiver<Result<News, Refusal>>,
    tick: Interval,
    picture: Picture,
}

impl Wait {
    /// Nothing known yet.
    pub fn new(
        ui: Ui,
        client: CeremonyClient<Channel>,
        id: CeremonyId,
        with_release: bool,
    ) -> Self {
        Self {
            ui,
            news: follow(client, id.to_string(), with_release),
            tick: interval(Duration::from_secs(1)),
            picture: Picture::new(ui),
        }
    }

    /// What comes next; nothing once the ceremony is over. A person who has enough of it reads what to do then.
    pub async fn next(&mut self, leaving: &str) -> Result<Option<News>, Refusal> {
        loop {
            tokio::select! {
                came = self.news.recv() => {
                    let came = came.transpose()?;
                    if let Some(news) = &came {
                        self.picture.tell(news);
                    }
                    return Ok(came);
                }
                _ = self.tick.tick() => self.picture.draw(),
                _ = ctrl_c() => return Err(self.left(leaving)),
            }
        }
    }

    /// The last that is known.
    pub fn view(&self) -> Option<&CeremonyView> {
        self.picture.view.as_ref()
    }

    /// Why nobody waits any more: the person had enough of it, and the request goes on.
    fn left(&self, hint: &str) -> Refusal {
        if self.ui.live() {
            // Below the ^C that the terminal shows.
            self.ui.note("");
        }
        Refusal::new("not-released", "you left; the request goes on", hint)
    }
}

/// The picture of a ceremony while it is awaited.
struct Picture {
    live: Live,
    view: Option<CeremonyView>,
    since_ms: u64,
    lost: bool,
}

impl Picture {
    fn new(ui: Ui) -> Self {
        Self {
            live: Live::new(ui),
            view: None,
            since_ms: 0,
            lost: false,
        }
    }

    /// Takes in what came and draws.
    fn tell(&mut self, news: &News) {
        match news {
            News::View(view) => {
                self.view = Some(CeremonyView::clone(view));
                self.since_ms = clock::now().ms();
                self.lost = false;
            }
            News::Lost => self.lost = true,
            News::SubmitKey(_) | News::Release(_) => self.lost = false,
        }
        self.draw();
    }

    /// Draws the countdown anew.
    fn draw(&mut self) {
        let Some(view) = &self.view else { return };
        let gone = clock::now().ms().saturating_sub(self.since_ms) / 1000;
        let mut ticking = Vec::new();
        if view.waiting_secs > 0 {
            let left = u64::from(view.waiting_secs).saturating_sub(gone);
            ticking.push(format!("  shares are taken in {}", countdown(left)));
        } else if view.left_secs > 0 && !is_final(view.state()) {
            ticking.push(format!(
                "  {} left",
                countdown(u64::from(view.left_secs).saturating_sub(gone))
            ));
        }
        if self.lost {
            ticking.push("  the connection is lost; trying again".to_owned());
        }
        self.live.show(&lines(view), &ticking);
    }
}

/// What a ceremony looks like while it is awaited, line by line.
pub fn lines(view: &CeremonyView) -> Vec<String> {
    let mut lines = Vec::new();
    for voice in &view.voices {
        let name = show::person(voice.person.as_ref());
        lines.push(match voice.decision() {
            Decision::Approve => format!("  + {name} has approved"),
            Decision::Refuse => format!("  - {name} has refused"),
            Decision::Retract => format!("  - {name} has taken it back"),
            Decision::Unspecified => format!("  ? {name}"),
        });
    }
    for need in &view.needs {
        let what = if need.path.is_empty() {
            "this change".to_owned()
        } else {
            clean(&need.path)
        };
        let missing = need.quorum.saturating_sub(need.approved);
        let awaited: Vec<_> = need
            .awaited
            .iter()
            .map(|person| clean(&person.name))
            .collect();
        let still = match (missing, awaited.is_empty()) {
            (0, _) => String::new(),
            (_, true) => "; nobody is left to ask".to_owned(),
            (_, false) => format!("; waiting for {missing} of: {}", awaited.join(", ")),
        };
        lines.push(format!(
            "  {what}: {} of {} of {} have approved{still}",
            need.approved,
            need.quorum,
            clean(&need.group)
        ));
    }
    if view.state() != CeremonyState::Open {
        lines.push(format!("  {}", show::state(view)));
    }
    let out = view.checkout.iter().filter(|out| out.ends_ms > 0);
    let afterwards = out.flat_map(|out| &out.afterwards);
    lines.extend(afterwards.map(|after| format!("  afterwards {}", clean(after))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> v1::Person {
        v1::Person {
            id: String::new(),
            name: name.to_owned(),
        }
    }

    fn view(approved: u32, awaited: &[&str], decision: Decision) -> CeremonyView {
        CeremonyView {
            state: CeremonyState::Open.into(),
            voices: vec![v1::Voice {
                person: Some(person("bob\u{1b}[2J")),
                decision: decision.into(),
                ..v1::Voice::default()
            }],
            needs: vec![v1::Need {
                path: "aws/prod/root".to_owned(),
                group: "ops".to_owned(),
                quorum: 2,
                approved,
                awaited: awaited.iter().map(|name| person(name)).collect(),
                ..v1::Need::default()
            }],
            ..CeremonyView::default()
        }
    }

    #[test]
    fn who_is_waited_for_is_told() {
        for (name, view, want) in [
            (
                "one more",
                view(1, &["carol", "dan"], Decision::Approve),
                "1 of 2 of ops have approved; waiting for 1 of: carol, dan",
            ),
            (
                "enough",
                view(2, &["dan"], Decision::Approve),
                "2 of 2 of ops have approved",
            ),
            (
                "nobody left",
                view(1, &[], Decision::Approve),
                "nobody is left to ask",
            ),
            (
                "a refusal",
                view(0, &["carol"], Decision::Refuse),
                "has refused",
            ),
            (
                "names cannot draw",
                view(0, &["carol"], Decision::Refuse),
                "bob\\u{1b}[2J",
            ),
        ] {
            let told = lines(&view).join("\n");
            assert!(told.contains(want), "{name}: {told}");
        }
    }
}
