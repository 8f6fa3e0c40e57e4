//! The simulator of AWS for tests, and the connectors that are tried against it.
//!
//! It is a program of its own (`tests/aws-simulator`), not AWS: what holds here has been seen with a
//! simulator only.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use keyturnd::{config, connector};
use serde_json::{Value, json};

use crate::harness::Outcome;

/// The simulator's own account.
pub const ACCOUNT: &str = "123456789012";
/// How long a call of a connector takes at most, where a test wants it to end without an answer; a slow machine answers
/// every other call sooner.
pub const DEADLINE_SECS: u32 = 6;
/// Longest answer of the simulator.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running simulator; it ends when this is dropped.
pub struct Simulator {
    port: u16,
    folder: tempfile::TempDir,
    child: Child,
    // The simulator lives as long as its standard input.
    stdin: Option<ChildStdin>,
}

impl Simulator {
    /// Starts one, with nothing in it but an IAM user who is the daemon, with these rights.
    pub fn start(policies: &[Value]) -> Outcome<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = python(root);
        if !python.exists() {
            let message =
                "there is no simulator of AWS under target/: run `./dev test`, which installs it";
            return Err(message.into());
        }
        let mut child = Command::new(python)
            .arg("-B")
            .arg(root.join("aws-simulator/simulator.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let simulator = Self {
            port: line.trim().parse()?,
            folder: tempfile::tempdir()?,
            child,
            stdin,
        };
        simulator.admin(&[("Action", "CreateUser"), ("UserName", "keyturnd")])?;
        simulator.ask("grant", &json!({"user": "keyturnd", "policies": policies}))?;
        let (id, secret) = simulator.key_of("keyturnd")?;
        let mut file = fs::File::create(simulator.credentials())?;
        write!(
            file,
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"
        )?;
        Ok(simulator)
    }

    /// The shared credentials file of the daemon's user.
    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("credentials")
    }

    /// Where its calls go.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a connector's table says of it; a call that takes longer is given up.
    pub fn host(&self, deadline: u32) -> String {
        format!(
            "region = \"eu-central-1\"\nendpoint = \"{}\"\ncredentials_file = \"{}\"\ndeadline_secs = {deadline}\n",
            self.endpoint(),
            self.credentials().display()
        )
    }

    /// A connector of this kind, over the simulator, whose calls end after [`DEADLINE_SECS`].
    pub fn connector(&self, kind: &str, more: &str) -> Outcome<connector::Shape> {
        let text = format!(
            "[aws]\nkind = \"{kind}\"\n{}{more}",
            self.host(DEADLINE_SECS)
        );
        let table: BTreeMap<config::Label, config::Connector> = toml::from_str(&text)?;
        let shape = connector::Connectors::of(&table).named("aws");
        Ok(shape.ok_or("no connector")?)
    }

    /// Asks the control interface; a refusal is an error.
    pub fn ask(&self, verb: &str, ask: &Value) -> Outcome<Value> {
        let (status, body) = self.post(&format!("/sim/{verb}"), &ask.to_string())?;
        if status == 200 {
            Ok(serde_json::from_str(&body)?)
        } else {
            Err(format!("{verb}: {status} {body}").into())
        }
    }

    fn post(&self, path: &str, body: &str) -> Outcome<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("not HTTP")?;
        let status = head.split(' ').nth(1).ok_or("not HTTP")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// A call of IAM by somebody else, which nobody checks; gives the XML of the answer.
    pub fn admin(&self, params: &[(&str, &str)]) -> Outcome<String> {
        let params: BTreeMap<_, _> = params.iter().copied().collect();
        let reply = self.ask("admin", &json!(params))?;
        let content = field(&reply, "content").to_owned();
        if reply.get("status") == Some(&json!(200)) {
            Ok(content)
        } else {
            Err(content.into())
        }
    }

    /// Makes an access key for a user, as somebody else.
    pub fn key_of(&self, user: &str) -> Outcome<(String, String)> {
        let answer = self.admin(&[("Action", "CreateAccessKey"), ("UserName", user)])?;
        let id = tag(&answer, "AccessKeyId").ok_or("no key")?;
        let secret = tag(&answer, "SecretAccessKey").ok_or("no key")?;
        Ok((id, secret))
    }

    /// Makes a user who signs in with this password.
    pub fn user(&self, user: &str, password: &str) -> Outcome<()> {
        self.admin(&[("Action", "CreateUser"), ("UserName", user)])?;
        self.admin(&[
            ("Action", "CreateLoginProfile"),
            ("UserName", user),
            ("Password", password),
        ])?;
        Ok(())
    }

    /// Signs in at the console; gives a session where that works.
    pub fn sign_in(&self, user: &str, password: &str, code: Option<&str>) -> Option<Value> {
        let ask = json!({"user": user, "password": password, "code": code});
        self.ask("sign-in", &ask).ok()?.get("session").cloned()
    }

    /// Whether a session may still do anything.
    pub fn lives(&self, session: &Value) -> Outcome<bool> {
        let answer = self.ask("session", &json!({"session": session}))?;
        Ok(answer.get("alive") == Some(&Value::Bool(true)))
    }

    /// The next calls of an action go wrong like this.
    pub fn fault(&self, action: &str, kind: &str, times: u64, ms: u64) -> Outcome<()> {
        let fault = json!({"action": action, "kind": kind, "times": times, "ms": ms});
        self.ask("fault", &fault).map(drop)
    }

    /// The next call of an action waits: before anything is done, or after it. Then it ends without an answer.
    pub fn hold(&self, action: &str, after: bool) -> Outcome<()> {
        let kind = if after { "hold-after" } else { "hold-before" };
        self.fault(action, kind, 1, 0)
    }

    /// Whether somebody waits in a call that is held.
    pub fn holds(&self) -> Outcome<bool> {
        let held = self.ask("held", &json!({}))?;
        Ok(held.get("held").and_then(Value::as_u64) > Some(0))
    }

    /// All goes well again; what is held ends.
    pub fn mend(&self) -> Outcome<()> {
        self.ask("fault", &json!({})).map(drop)
    }

    /// Who called what since this was asked last, sorted and each once, like `user keyturnd iam:GetUser`.
    pub fn calls(&self) -> Outcome<Vec<String>> {
        let calls = self.ask("calls", &json!({"clear": true}))?;
        let mut calls: Vec<String> = calls
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| format!("{} {}", field(call, "by"), field(call, "action")))
            .collect();
        calls.sort();
        calls.dedup();
        Ok(calls)
    }

    /// How many calls of an action have come.
    pub fn count(&self, action: &str) -> Outcome<usize> {
        let calls = self.ask("calls", &json!({}))?;
        let calls = calls.as_array().into_iter().flatten();
        Ok(calls
            .filter(|call| {
                call["action"]
                    .as_str()
                    .is_some_and(|one| one.ends_with(action))
            })
            .count())
    }

    /// Nobody listens any more.
    pub fn stop(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where `./dev test` installs what the simulator runs on.
fn python(manifest: &Path) -> PathBuf {
    manifest.join("../target/aws-simulator/bin/python")
}

/// A text of an answer.
fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The text of the first element of this name.
pub fn tag(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

/// The JSON blocks of a page of the documentation.
pub fn policies(page: &str) -> Outcome<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/connectors")
        .join(page);
    let text = fs::read_to_string(path)?;
    let blocks = text.split("```json\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    Ok(blocks.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The actions that policies allow, sorted.
pub fn actions(policies: &[Value]) -> Vec<String> {
    let list = |value: &Value| match value.as_array() {
        Some(list) => list.clone(),
        None => vec![value.clone()],
    };
    let statements = policies.iter().filter_map(|policy| policy.get("Statement"));
    let statements: Vec<Value> = statements.flat_map(list).collect();
    let actions = statements
        .iter()
        .filter_map(|statement| statement.get("Action"));
    let mut actions: Vec<String> = actions
        .flat_map(list)
        .filter_map(|action| action.as_str().map(str::to_owned))
        .collect();
    actions.sort();
    actions.dedup();
    actions
}
