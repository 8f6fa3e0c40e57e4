//! `keyturnd` by a clock that a test moves by hand: a process of its own, which can be killed and stopped for real.
//!
//! `clocked CONFIG WALL` serves a vault; by its clock it is `WALL`, in milliseconds since 1970. On standard
//! input `advance MS` lets time go by and `jump MS` sets the wall clock alone; each is answered by a line, as
//! is the beginning. It ends when its standard input does, or half-way through anything by SIGKILL.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "each command is answered")]

use std::{io::BufRead as _, path::Path, time::Duration};

use keyturn_tests::{Outcome, inside::Inside};
use keyturn_vault::time::Time;
use keyturnd::clock::Clock;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let (Some(config), Some(wall)) = (args.next(), args.next()) else {
        return Err("usage: clocked CONFIG WALL".into());
    };
    let inside = Inside::at(Path::new(&config), Time::from_ms(wall.parse()?)).await?;
    println!("serving");
    let clock = inside.clock.clone();
    tokio::task::spawn_blocking(move || obey(&clock)).await??;
    inside.stop().await?;
    Ok(())
}

/// Does what standard input says, to its end.
fn obey(clock: &Clock) -> Outcome<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("advance", ms)) => clock.advance(Duration::from_millis(ms.parse()?)),
            Some(("jump", ms)) => clock.jump(Time::from_ms(ms.parse()?)),
            _ => return Err(format!("no command {line:?}").into()),
        }
        println!("{}", clock.now().ms());
    }
    Ok(())
}
