//! What `pcscd` knows of its readers: tests wait for it, because it looks for cards only several times a second.

use std::{io, thread, time::Duration};

use pcsc::{Context, ReaderState, Scope, State};

/// Readers of one copy of vpcd's driver.
pub(crate) const READERS_PER_DRIVER: u16 = 2;

/// How long `pcscd` may take to start, or to notice that a card is gone, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(5);

/// The name of the readers of one driver; `pcscd` appends the driver's number and the slot's.
pub(crate) fn friendly_name(driver: u16) -> String {
    format!("Yubico YubiKey {driver}")
}

/// Waits until `pcscd` answers and has so many readers.
pub(crate) fn wait_for_readers(count: u16) -> io::Result<()> {
    wait_for(PATIENCE, || {
        let readers = Context::establish(Scope::System)?.list_readers_owned()?;
        Ok(readers.len() >= usize::from(count))
    })
}

/// Waits until `pcscd` knows that there is a card in this reader, or that there is none.
pub(crate) fn wait_for_card(reader: u16, is_there: bool, limit: Duration) -> io::Result<()> {
    wait_for(limit, || Ok(is_card_there(reader)? == is_there))
}

/// What `pcscd` calls a reader.
fn name_of(context: &Context, reader: u16) -> Result<std::ffi::CString, pcsc::Error> {
    let driver = reader.checked_div(READERS_PER_DRIVER).unwrap_or_default();
    let slot = reader.checked_rem(READERS_PER_DRIVER).unwrap_or_default();
    let (begin, end) = (
        format!("{} ", friendly_name(driver)),
        format!(" {slot:02X}"),
    );
    let names = context.list_readers_owned()?;
    let is_meant = |name: &str| name.starts_with(&begin) && name.ends_with(&end);
    let name = names
        .into_iter()
        .find(|name| name.to_str().is_ok_and(is_meant));
    name.ok_or(pcsc::Error::UnknownReader)
}

fn is_card_there(reader: u16) -> Result<bool, pcsc::Error> {
    let context = Context::establish(Scope::System)?;
    let mut states = [ReaderState::new(name_of(&context, reader)?, State::UNAWARE)];
    context.get_status_change(Duration::ZERO, &mut states)?;
    let [state] = states;
    Ok(state.event_state().contains(State::PRESENT))
}

/// Another program that uses the card in a reader and lets nobody else; until it is dropped.
pub struct Hold {
    _card: pcsc::Card,
}

impl Hold {
    pub(crate) fn new(reader: u16) -> Result<Self, pcsc::Error> {
        let context = Context::establish(Scope::System)?;
        let name = name_of(&context, reader)?;
        let card = context.connect(&name, pcsc::ShareMode::Exclusive, pcsc::Protocols::ANY)?;
        Ok(Self { _card: card })
    }
}

/// An error is "not yet" while there is time.
fn wait_for(limit: Duration, condition: impl Fn() -> Result<bool, pcsc::Error>) -> io::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        let told = condition();
        if told == Ok(true) {
            return Ok(());
        }
        if waited >= limit {
            let why = told.map_or_else(
                |error| error.to_string(),
                |_| "it does not notice".to_owned(),
            );
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("pcscd: {why}"),
            ));
        }
        thread::sleep(TICK);
        waited = waited.saturating_add(TICK);
    }
}
