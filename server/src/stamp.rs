//! temp
use std::sync::Mutex;
use std::time::Instant;
static ALL: Mutex<Vec<(&'static str, Instant)>> = Mutex::new(Vec::new());
pub fn stamp(what: &'static str) {
    let now = Instant::now();
    let mut all = ALL.lock().unwrap();
    if what == "handler" && !all.is_empty() {
        let mut line = String::new();
        let t0 = all[0].1;
        for (w, t) in all.drain(..) {
            line.push_str(&format!(" {w} {}", t.duration_since(t0).as_micros()));
        }
        use std::io::Write;
        let mut f = std::fs::File::options().create(true).append(true).open("/dev/shm/stamps").unwrap();
        writeln!(f, "{line}").unwrap();
    }
    if what != "handler" && all.is_empty() { return; }
    all.push((what, now));
}
