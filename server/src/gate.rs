//! How many connections there may be, in all and from one source.
//!
//! # Invariants
//! 1. One source cannot use up what the others need: it has its own bounds, below those for all.
//! 2. The memory for sources is bounded; one with an open connection is never forgotten.
//! 3. What a connection took is given back when it ends, however it ends.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::config::Limits;

/// Why a connection is not let in; each is a label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// There are as many as there may be.
    Full,
    /// This source has as many as it may have.
    SourceFull,
    /// This source connects too often.
    TooFast,
    /// This source failed too often.
    Strikes,
    /// There are as many strangers as there may be.
    Strangers,
}

impl Shut {
    /// For metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::SourceFull => "source-full",
            Self::TooFast => "too-fast",
            Self::Strikes => "strikes",
            Self::Strangers => "strangers",
        }
    }
}

/// Counts who is inside; clones count together.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: Arc<Limits>,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    open: u32,
    strangers: u32,
    sources: HashMap<IpAddr, Source>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    open: u32,
    minute: u64,
    new: u32,
    strikes: u32,
}

/// A place inside; dropping it gives it back (invariant 3).
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    source: IpAddr,
    stranger: bool,
}

impl Gate {
    /// Nobody is inside.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Arc::new(limits),
            inside: Arc::default(),
        }
    }

    /// Lets a connection in, or says why not. `running` is the clock's running time.
    pub fn enter(&self, from: IpAddr, running: Duration) -> Result<Pass, Shut> {
        let limits = &self.limits;
        let minute = running.as_secs() / 60;
        let mut inside = self.lock();
        let address = source_of(from);
        if inside.open >= limits.connections.value() {
            return Err(Shut::Full);
        }
        inside.make_room(limits.sources.size());
        let source = inside.sources.entry(address).or_default();
        if source.minute != minute {
            *source = Source {
                open: source.open,
                minute,
                ..Source::default()
            };
        }
        source.new = source.new.saturating_add(1);
        if source.strikes >= limits.strikes_per_source_minute.value() {
            return Err(Shut::Strikes);
        }
        if source.new > limits.new_per_source_minute.value() {
            return Err(Shut::TooFast);
        }
        if source.open >= limits.connections_per_source.value() {
            return Err(Shut::SourceFull);
        }
        source.open = source.open.saturating_add(1);
        inside.open = inside.open.saturating_add(1);
        Ok(Pass {
            gate: self.clone(),
            source: address,
            stranger: false,
        })
    }

    /// How many are inside.
    pub fn open(&self) -> u32 {
        self.lock().open
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// Forgets the source that was away longest, when there are too many (invariant 2).
    fn make_room(&mut self, most: usize) {
        if self.sources.len() < most {
            return;
        }
        let away = self.sources.iter().filter(|(_, source)| source.open == 0);
        if let Some(oldest) = away
            .min_by_key(|(_, source)| source.minute)
            .map(|(address, _)| *address)
        {
            self.sources.remove(&oldest);
        }
    }
}

impl Pass {
    /// This one failed its handshake.
    pub fn strike(&self) {
        if let Some(source) = self.gate.lock().sources.get_mut(&self.source) {
            source.strikes = source.strikes.saturating_add(1);
        }
    }

    /// This one is a stranger: of these there may be fewer.
    pub fn as_stranger(mut self) -> Result<Self, Shut> {
        let most = self.gate.limits.stranger_connections.value();
        {
            let mut inside = self.gate.lock();
            if inside.strangers >= most {
                return Err(Shut::Strangers);
            }
            inside.strangers = inside.strangers.saturating_add(1);
        }
        self.stranger = true;
        Ok(self)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.lock();
        inside.open = inside.open.saturating_sub(1);
        if self.stranger {
            inside.strangers = inside.strangers.saturating_sub(1);
        }
        if let Some(source) = inside.sources.get_mut(&self.source) {
            source.open = source.open.saturating_sub(1);
        }
    }
}

/// One source is an IPv4 address or an IPv6 /64: a household or a host has all of it.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Within;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";

    fn gate() -> Gate {
        Gate::new(Limits {
            connections: Within::new(4).unwrap(),
            connections_per_source: Within::new(2).unwrap(),
            stranger_connections: Within::new(1).unwrap(),
            new_per_source_minute: Within::new(5).unwrap(),
            strikes_per_source_minute: Within::new(2).unwrap(),
            sources: Within::new(16).unwrap(),
            ..Limits::default()
        })
    }

    fn enter(gate: &Gate, from: &str, secs: u64) -> Result<Pass, Shut> {
        gate.enter(from.parse().unwrap(), Duration::from_secs(secs))
    }

    #[test]
    fn bounds_hold_for_all_and_for_each_source() {
        let gate = gate();
        let first = enter(&gate, A, 0).unwrap();
        let _second = enter(&gate, A, 0).unwrap();
        assert_eq!(enter(&gate, A, 0).err(), Some(Shut::SourceFull));
        let _third = enter(&gate, B, 0).expect("invariant 1");
        let _fourth = enter(&gate, B, 0).unwrap();
        assert_eq!(enter(&gate, "192.0.2.3", 0).err(), Some(Shut::Full));
        drop(first);
        assert_eq!(gate.open(), 3, "invariant 3");
        assert!(enter(&gate, "192.0.2.3", 0).is_ok());
    }

    #[test]
    fn a_source_that_is_too_fast_or_fails_waits_for_the_next_minute() {
        let gate = gate();
        for _ in 0..5 {
            assert!(enter(&gate, A, 59).is_ok());
        }
        assert_eq!(enter(&gate, A, 59).err(), Some(Shut::TooFast));
        assert!(enter(&gate, B, 59).is_ok(), "invariant 1");
        assert!(enter(&gate, A, 60).is_ok());
        for _ in 0..2 {
            enter(&gate, A, 61).unwrap().strike();
        }
        assert_eq!(enter(&gate, A, 61).err(), Some(Shut::Strikes));
        assert!(enter(&gate, A, 120).is_ok());
    }

    #[test]
    fn strangers_have_few_places() {
        let gate = gate();
        let one = enter(&gate, A, 0).unwrap().as_stranger().unwrap();
        assert_eq!(
            enter(&gate, B, 0).unwrap().as_stranger().err(),
            Some(Shut::Strangers)
        );
        assert_eq!(gate.open(), 1, "invariant 3");
        drop(one);
        assert!(enter(&gate, B, 0).unwrap().as_stranger().is_ok());
    }

    #[test]
    fn sources_are_told_apart_and_forgotten() {
        for (name, one, two, same) in [
            ("one address", A, A, true),
            ("two addresses", A, B, false),
            ("mapped into IPv6", A, "::ffff:192.0.2.1", true),
            ("one /64", "2001:db8::1", "2001:db8::ffff:1", true),
            ("two /64", "2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let (one, two): (IpAddr, IpAddr) = (one.parse().unwrap(), two.parse().unwrap());
            assert_eq!(source_of(one) == source_of(two), same, "{name}");
        }
        let gate = gate();
        let _stays = enter(&gate, A, 0).unwrap();
        for i in 0..1000_u64 {
            drop(enter(&gate, &format!("198.51.{}.{}", i / 250, i % 250), i));
        }
        assert!(gate.lock().sources.len() <= 16, "invariant 2");
        assert!(
            gate.lock().sources.contains_key(&A.parse().unwrap()),
            "invariant 2"
        );
    }
}
