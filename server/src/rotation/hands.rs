//! Rotations that people do: what they are told, and what a check of the target says.

use keyturn_vault::{
    definition::Definition,
    event::Evidence,
    name::Line,
    time::{Span, Time},
};

use super::{Workshop, target::target};
use crate::connector::{self, Failure, Manual, Shape};

/// How people are reminded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long after a reminder the next one comes.
    pub remind: Span,
    /// How long after it became owed a task is overdue.
    pub escalate: Span,
}

impl Workshop {
    /// How people are reminded of a task; none where it is nobody's.
    pub fn pace(&self, definition: &Definition) -> Option<Pace> {
        definition.task()?;
        let pace = |manual: &Manual| Pace {
            remind: manual.remind,
            escalate: manual.escalate,
        };
        Some(match self.connector(definition) {
            Some(Shape::Hands(manual)) => pace(&manual),
            _ => pace(&Manual::default()),
        })
    }

    /// What people do, line by line.
    pub fn guide(&self, definition: &Definition) -> Vec<String> {
        match self.connector(definition) {
            Some(Shape::Hands(manual)) => manual.guide(&target(definition)).to_vec(),
            _ => Vec::new(),
        }
    }

    /// Whether people have changed a target since then, where a check can say.
    pub async fn changed(&self, definition: &Definition, since: Time) -> Result<Evidence, Failure> {
        let Some(Shape::Hands(manual)) = self.connector(definition) else {
            return Ok(Evidence::NotObservable);
        };
        let shown = match manual.changed(&target(definition), since).await? {
            connector::Evidence::Shown(line) => line.parse::<Line>().ok(),
            connector::Evidence::NotObservable => None,
        };
        Ok(shown.map_or(Evidence::NotObservable, Evidence::Shown))
    }
}
