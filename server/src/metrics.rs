//! Counters, gauges and histograms in the text format of Prometheus (version 0.0.4).
//!
//! # Invariants
//! 1. Names and labels are constants of the program or bounded values, never what a peer sent.
//! 2. A family has at most [`MAX_SERIES`] series; what would be one more is counted as `other`.
//! 3. Counting takes no lock and never waits.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The most series of one family.
pub const MAX_SERIES: usize = 512;

/// Upper bounds of the buckets of every histogram, in microseconds.
const BUCKETS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// All families; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<&'static str, Family>>>);

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: &'static str,
    series: BTreeMap<Labels, Series>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets it; what does not fit is the largest number.
    pub fn set(&self, value: impl TryInto<i64>) {
        self.0
            .store(value.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug, Default)]
struct HistogramCells {
    // The last one is +Inf.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// It took this long.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        if let Some(cell) = self.0.buckets.get(bucket) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl Metrics {
    /// No family yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of this name and these labels; the same one each time.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        let new = || Series::Counter(Counter::default());
        match self.series(name, help, "counter", labels, new) {
            Series::Counter(counter) => counter,
            Series::Gauge(_) | Series::Histogram(_) => Counter::default(),
        }
    }

    /// The gauge of this name and these labels; the same one each time.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Gauge {
        match self.series(name, help, "gauge", labels, || {
            Series::Gauge(Gauge::default())
        }) {
            Series::Gauge(gauge) => gauge,
            Series::Counter(_) | Series::Histogram(_) => Gauge::default(),
        }
    }

    /// The histogram (of seconds) of this name and these labels; the same one each time.
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Histogram {
        let new = || Series::Histogram(Histogram::default());
        match self.series(name, help, "histogram", labels, new) {
            Series::Histogram(histogram) => histogram,
            Series::Counter(_) | Series::Gauge(_) => Histogram::default(),
        }
    }

    fn series(
        &self,
        name: &'static str,
        help: &'static str,
        kind: &'static str,
        labels: &[(&'static str, &str)],
        new: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family {
            help,
            kind,
            series: BTreeMap::new(),
        });
        let mut labels: Labels = labels
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect();
        if family.series.len() >= MAX_SERIES && !family.series.contains_key(&labels) {
            for (_, value) in &mut labels {
                "other".clone_into(value);
            }
        }
        family.series.entry(labels).or_insert_with(new).clone()
    }

    /// Everything as Prometheus reads it.
    pub fn render(&self) -> String {
        let families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        for (name, family) in &*families {
            // Writing into a string cannot fail.
            let _ = writeln!(
                out,
                "# HELP {name} {}\n# TYPE {name} {}",
                family.help, family.kind
            );
            for (labels, series) in &family.series {
                series.render(name, labels, &mut out);
            }
        }
        out
    }
}

impl Series {
    fn render(&self, name: &str, labels: &Labels, out: &mut String) {
        let plain = braces(labels, None);
        let _ = match self {
            Self::Counter(counter) => writeln!(out, "{name}{plain} {}", counter.value()),
            Self::Gauge(gauge) => writeln!(out, "{name}{plain} {}", gauge.value()),
            Self::Histogram(histogram) => {
                let mut sum = 0_u64;
                let bounds = BUCKETS_US.iter().map(|us| seconds(*us));
                let bounds = bounds.chain([String::from("+Inf")]);
                for (bound, cell) in bounds.zip(&histogram.0.buckets) {
                    sum = sum.saturating_add(cell.load(Ordering::Relaxed));
                    let labels = braces(labels, Some(&bound));
                    let _ = writeln!(out, "{name}_bucket{labels} {sum}");
                }
                let total = seconds(histogram.0.sum_us.load(Ordering::Relaxed));
                writeln!(out, "{name}_sum{plain} {total}\n{name}_count{plain} {sum}")
            }
        };
    }
}

fn seconds(us: u64) -> String {
    let (whole, rest) = (us / 1_000_000, us % 1_000_000);
    format!("{whole}.{rest:06}")
}

fn braces(labels: &Labels, le: Option<&str>) -> String {
    let mut all: Vec<String> = labels
        .iter()
        .map(|(key, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{key}=\"{value}\"")
        })
        .collect();
    all.extend(le.map(|le| format!("le=\"{le}\"")));
    if all.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_read_as_prometheus_does() {
        let metrics = Metrics::new();
        let refused = metrics.counter("k_refused_total", "Refused.", &[("reason", "a\"b")]);
        refused.one();
        metrics
            .counter("k_refused_total", "Refused.", &[("reason", "a\"b")])
            .add(2);
        metrics.gauge("k_open", "Open.", &[]).set(7_u32);
        let took = metrics.histogram("k_call_seconds", "Calls.", &[]);
        for us in [100, 101, 60_000_000] {
            took.observe(Duration::from_micros(us));
        }
        let text = metrics.render();
        for want in [
            "# HELP k_refused_total Refused.\n# TYPE k_refused_total counter\n",
            "k_refused_total{reason=\"a\\\"b\"} 3\n",
            "k_open 7\n",
            "k_call_seconds_bucket{le=\"0.000100\"} 1\n",
            "k_call_seconds_bucket{le=\"0.000250\"} 2\n",
            "k_call_seconds_bucket{le=\"+Inf\"} 3\n",
            "k_call_seconds_sum 60.000201\n",
            "k_call_seconds_count 3\n",
        ] {
            assert!(text.contains(want), "{want} is not in:\n{text}");
        }
    }

    #[test]
    fn series_are_bounded() {
        let metrics = Metrics::new();
        for i in 0..1000 {
            metrics
                .counter("k_total", "Many.", &[("who", &i.to_string())])
                .one();
        }
        let text = metrics.render();
        assert_eq!(text.lines().count(), 2 + MAX_SERIES + 1, "invariant 2");
        assert!(
            text.contains("k_total{who=\"other\"} 488\n"),
            "invariant 2: {text}"
        );
    }
}
