//! A small account service: the target whose password the demo and the tests rotate.
//!
//! `account serve FILE` listens on loopback, writes its address and admin token to `FILE` and keeps
//! accounts in memory. `account connect FILE` is an `exec` connector for it. `account login FILE USER`
//! reads a password from standard input and says whether it is accepted.
//!
//! The protocol is a line each way over TCP: `LOGIN user password-base64`, `SET token user
//! password-base64`, `CHANGED user`, `END token user`, `READY token`, and those of [`keys`]; the answer is `OK …` or `NO …`.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "a connector and a sign-in answer on standard output"
)]

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Longest line of the protocol, in bytes.
const MAX_LINE: u64 = 4096;
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Account {
    password: Vec<u8>,
    changes: u64,
    /// Keys that the service made.
    keys: BTreeMap<String, Key>,
}

struct Key {
    secret: String,
    active: bool,
}

/// The most keys of an account.
const MAX_KEYS: usize = 2;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["serve", file] => serve(Path::new(file)),
        ["connect", file] => connect(Path::new(file)),
        ["login", file, user] => login(Path::new(file), user),
        _ => Err("usage: account serve FILE | connect FILE | login FILE USER".into()),
    }
}

fn serve(file: &Path) -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)?;
    let token = hex::encode(random);
    let temporary = file.with_extension("new");
    let mut out = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    write!(out, "{} {token}", listener.local_addr()?)?;
    drop(out);
    std::fs::rename(temporary, file)?;
    let mut accounts = HashMap::new();
    for stream in listener.incoming() {
        // One client at a time is plenty here; a broken one is dropped.
        let _ = answer(&mut accounts, &token, stream?);
    }
    Ok(())
}

fn answer(
    accounts: &mut HashMap<String, Account>,
    token: &str,
    mut stream: TcpStream,
) -> Outcome<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut line = String::new();
    BufReader::new((&stream).take(MAX_LINE)).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let reply = match words.as_slice() {
        ["LOGIN", user, password] => {
            let known = accounts
                .get(*user)
                .is_some_and(|a| BASE64_STANDARD.encode(&a.password) == *password);
            if known {
                "OK signed in".to_owned()
            } else {
                "NO wrong user or password".to_owned()
            }
        }
        ["SET", given, user, password] if given == &token => {
            let account = accounts.entry((*user).to_owned()).or_default();
            account.password = BASE64_STANDARD.decode(password)?;
            account.changes = account.changes.saturating_add(1);
            "OK set".to_owned()
        }
        ["CHANGED", user] => match accounts.get(*user) {
            Some(account) => format!("OK password changed {} times", account.changes),
            None => "NO such account".to_owned(),
        },
        ["READY", given] if given == &token => "OK the account service's administrator".to_owned(),
        ["END", given, _] if given == &token => "OK no sessions".to_owned(),
        [verb, given, user, rest @ ..] if given == &token => {
            let account = accounts.entry((*user).to_owned()).or_default();
            keys(account, verb, rest)?
        }
        _ => "NO not allowed".to_owned(),
    };
    writeln!(stream, "{reply}")?;
    Ok(())
}

/// Keys beside the password: `KEYS`, `MAKE`, `USE key secret-base64`, `OFF key`, `DROP key`.
fn keys(account: &mut Account, verb: &str, rest: &[&str]) -> Outcome<String> {
    Ok(match (verb, rest) {
        ("KEYS", []) => {
            let list = account.keys.iter();
            let list: Vec<_> = list
                .map(|(id, key)| format!("{id}={}", key.active))
                .collect();
            format!("OK {}", list.join(" "))
        }
        ("MAKE", []) if account.keys.len() >= MAX_KEYS => "FULL two keys".to_owned(),
        ("MAKE", []) => {
            let mut random = [0_u8; 16];
            getrandom::fill(&mut random)?;
            let hex = hex::encode(random);
            let (id, secret) = hex.split_at(8);
            let id = format!("KEY{id}");
            let secret = BASE64_STANDARD.encode(secret);
            let made = format!("OK {id} {secret}");
            let key = Key {
                secret,
                active: true,
            };
            account.keys.insert(id, key);
            made
        }
        ("USE", [key, secret]) => match account.keys.get(*key) {
            Some(known) if known.active && known.secret == *secret => "OK signed".to_owned(),
            _ => "NO key, or not this secret".to_owned(),
        },
        ("OFF", [key]) => {
            if let Some(key) = account.keys.get_mut(*key) {
                key.active = false;
            }
            "OK inactive".to_owned()
        }
        ("DROP", [key]) => {
            account.keys.remove(*key);
            "OK gone".to_owned()
        }
        _ => "NO not allowed".to_owned(),
    })
}

/// Sends one line (`{token}` is filled in) and gives the answer's line.
fn ask(file: &Path, line: &str) -> Outcome<String> {
    let place = std::fs::read_to_string(file)?;
    let (address, token) = place
        .split_once(' ')
        .ok_or("the service's file is damaged")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    writeln!(stream, "{}", line.replace("{token}", token))?;
    let mut reply = String::new();
    BufReader::new(stream.take(MAX_LINE)).read_line(&mut reply)?;
    if reply.is_empty() {
        return Err("the service closed the connection".into());
    }
    Ok(reply.trim_end().to_owned())
}

/// The `exec` contract: one document in, one out.
fn connect(file: &Path) -> Outcome<()> {
    let document: Value = serde_json::from_reader(std::io::stdin())?;
    let text = |pointer: &str| {
        document
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let user = text("/settings/user");
    let secret = text("/secret");
    let key = text("/key");
    let line = match text("/action") {
        "ready" => "READY {token}".to_owned(),
        "probe" if text("/settings/looks") == "yes" => format!("CHANGED {user}"),
        "check" | "evidence" => format!("CHANGED {user}"),
        "apply" => format!("SET {{token}} {user} {secret}"),
        "test" if !key.is_empty() => format!("USE {{token}} {user} {key} {secret}"),
        "test" => format!("LOGIN {user} {secret}"),
        "keys" => format!("KEYS {{token}} {user}"),
        "create" => format!("MAKE {{token}} {user}"),
        "deactivate" => format!("OFF {{token}} {user} {key}"),
        "delete" => format!("DROP {{token}} {user} {key}"),
        "end-sessions" => format!("END {{token}} {user}"),
        other => return Err(format!("no action {other:?}").into()),
    };
    let reply = match ask(file, &line) {
        Ok(reply) if reply.starts_with("OK") && text("/action") == "evidence" => {
            json!({"outcome": "done", "evidence": reply.trim_start_matches("OK ")})
        }
        Ok(reply) if reply.starts_with("OK") && text("/action") == "keys" => {
            let words = reply.split_whitespace().skip(1);
            let keys: Vec<_> = words
                .filter_map(|word| {
                    let (id, active) = word.split_once('=')?;
                    Some(json!({"id": id, "active": active == "true"}))
                })
                .collect();
            json!({"outcome": "done", "keys": keys})
        }
        Ok(reply) if reply.starts_with("OK") && text("/action") == "create" => {
            let mut words = reply.split_whitespace().skip(1);
            json!({"outcome": "done", "key": words.next(), "secret": words.next()})
        }
        Ok(reply) if reply.starts_with("OK") && text("/action") == "probe" => {
            let before = text("/known/facts/changed");
            let same = before.is_empty() || before == reply;
            let verdict = if same { "same" } else { "diverged" };
            json!({"outcome": "done", "verdict": verdict, "message": "the password was changed again", "facts": {"changed": reply}})
        }
        Ok(reply) if reply.starts_with("FULL") => json!({"outcome": "full", "message": reply}),
        Ok(reply) if reply.starts_with("OK") => {
            json!({"outcome": "done", "message": reply.trim_start_matches("OK ")})
        }
        Ok(reply) => json!({"outcome": "refused", "message": reply}),
        Err(error) => json!({"outcome": "unknown", "message": error.to_string()}),
    };
    println!("{reply}");
    Ok(())
}

fn login(file: &Path, user: &str) -> Outcome<()> {
    let mut password = Vec::new();
    std::io::stdin().take(MAX_LINE).read_to_end(&mut password)?;
    let reply = ask(
        file,
        &format!("LOGIN {user} {}", BASE64_STANDARD.encode(&password)),
    )?;
    println!("{reply}");
    if reply.starts_with("OK") {
        Ok(())
    } else {
        Err(reply.into())
    }
}
