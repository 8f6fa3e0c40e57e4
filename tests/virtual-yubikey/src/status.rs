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

fn is_card_there(reader: u16) -> Result<bool, pcsc::Error> {
    let driver = reader.checked_div(READERS_PER_DRIVER).unwrap_or_default();
    let slot = reader.checked_rem(READERS_PER_DRIVER).unwrap_or_default();
    let (begin, end) = (
        format!("{} ", friendly_name(driver)),
        format!(" {slot:02X}"),
    );
    let context = Context::establish(Scope::System)?;
    let names = context.list_readers_owned()?;
    let is_meant = |name: &str| name.starts_with(&begin) && name.ends_with(&end);
    let name = names
        .into_iter()
        .find(|name| name.to_str().is_ok_and(is_meant));
    let mut states = [ReaderState::new(
        name.ok_or(pcsc::Error::UnknownReader)?,
        State::UNAWARE,
    )];
    context.get_status_change(Duration::ZERO, &mut states)?;
    let [state] = states;
    Ok(state.event_state().contains(State::PRESENT))
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
