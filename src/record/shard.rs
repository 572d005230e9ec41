//! Counters without locks or shared cache lines: each thread writes its own cell, a scrape adds the cells up.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType};

use super::names::{Kind, Metric};

/// A number that one thread writes and any thread may read.
#[derive(Clone, Debug, Default)]
pub struct Cell(Arc<AtomicU64>);

impl Cell {
    /// Not an atomic addition: only the thread that owns the cell may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// As `add`: for the owning thread only.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A histogram that one thread writes.
#[derive(Clone, Debug)]
pub struct Timer(Arc<TimerCells>);

#[derive(Debug)]
struct TimerCells {
    /// Upper bounds in nanoseconds.
    bounds: Box<[u64]>,
    /// One more than `bounds`: the last one is `+Inf`.
    buckets: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

impl Timer {
    fn new(bounds: &[f64]) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounds are small positive constants
        let bounds: Box<[u64]> = bounds.iter().map(|seconds| (seconds * 1e9).round() as u64).collect();
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(TimerCells { bounds, buckets, nanos: AtomicU64::new(0) }))
    }

    /// As `Cell::add`: for the owning thread only.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let cells = &*self.0;
        let at = cells.bounds.iter().position(|bound| nanos <= *bound).unwrap_or(cells.bounds.len());
        if let Some(bucket) = cells.buckets.get(at) {
            bucket.store(bucket.load(Relaxed).wrapping_add(1), Relaxed);
        }
        cells.nanos.store(cells.nanos.load(Relaxed).wrapping_add(nanos), Relaxed);
    }
}

/// The thread that writes a cell: a worker's number, or one of the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Writer(pub u32);

impl Writer {
    pub const OFFICE: Self = Self(u32::MAX);
    pub const LOG: Self = Self(u32::MAX - 1);
    pub const ROUNDS: Self = Self(u32::MAX - 2);
}

type Labels = Vec<String>;

/// One metric with all its label values.
pub struct Family {
    metric: &'static Metric,
    desc: Desc,
    cells: Mutex<HashMap<Labels, HashMap<Writer, Cell>>>,
    timers: Mutex<HashMap<Labels, HashMap<Writer, Timer>>>,
}

impl Family {
    pub(super) fn new(metric: &'static Metric) -> Result<Arc<Self>, prometheus::Error> {
        let desc = desc(metric)?;
        Ok(Arc::new(Self { metric, desc, cells: Mutex::default(), timers: Mutex::default() }))
    }

    /// The writer's own cell for these label values, made when there is none. Takes a lock: keep the cell.
    pub fn cell(&self, writer: Writer, labels: &[&str]) -> Cell {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let mut all = held(&self.cells);
        all.entry(owned(labels)).or_default().entry(writer).or_default().clone()
    }

    /// As `cell`, of a histogram.
    pub fn timer(&self, writer: Writer, labels: &[&str]) -> Timer {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let bounds = match self.metric.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let mut all = held(&self.timers);
        all.entry(owned(labels)).or_default().entry(writer).or_insert_with(|| Timer::new(bounds)).clone()
    }

    fn samples(&self) -> Vec<Sample> {
        if let Kind::Histogram(bounds) = self.metric.kind {
            let all = held(&self.timers);
            return all.iter().map(|(labels, timers)| histogram(self.metric, labels, bounds, timers.values())).collect();
        }
        let all = held(&self.cells);
        all.iter()
            .map(|(labels, cells)| {
                let total = cells.values().fold(0u64, |sum, cell| sum.wrapping_add(cell.read()));
                #[allow(clippy::cast_precision_loss, clippy::cast_possible_wrap)] // Prometheus counts in floating point
                let value = if self.metric.kind == Kind::Gauge { total as i64 as f64 } else { total as f64 };
                sample(self.metric, labels, value)
            })
            .collect()
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric.name)
    }
}

/// A metric whose values are computed when scraped.
pub(super) struct Scraped {
    pub metric: &'static Metric,
    pub desc: Desc,
    pub read: Box<dyn Fn() -> Vec<(Labels, f64)> + Send + Sync>,
}

impl Collector for Scraped {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let samples = (self.read)().iter().map(|(labels, value)| sample(self.metric, labels, *value)).collect();
        family(self.metric, samples)
    }
}

/// A family as the registry holds it.
pub(super) struct Shared(pub Arc<Family>);

impl Collector for Shared {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        family(self.0.metric, self.0.samples())
    }
}

pub(super) fn desc(metric: &Metric) -> Result<Desc, prometheus::Error> {
    let labels = metric.labels.iter().map(ToString::to_string).collect();
    Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
}

/// Nothing at all for a metric without samples: the text format refuses an empty family.
fn family(metric: &Metric, samples: Vec<Sample>) -> Vec<MetricFamily> {
    if samples.is_empty() {
        return Vec::new();
    }
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    family.set_metric(samples);
    vec![family]
}

fn sample(metric: &Metric, labels: &[String], value: f64) -> Sample {
    let mut sample = Sample::from_label(pairs(metric, labels));
    if metric.kind == Kind::Gauge {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        sample.set_gauge(gauge);
    } else {
        let mut counter = Counter::default();
        counter.set_value(value);
        sample.set_counter(counter);
    }
    sample
}

#[allow(clippy::cast_precision_loss)] // Prometheus counts in floating point
fn histogram<'a>(metric: &Metric, labels: &[String], bounds: &[f64], timers: impl Iterator<Item = &'a Timer> + Clone) -> Sample {
    let mut seen = 0u64;
    let mut buckets = Vec::with_capacity(bounds.len());
    let in_bucket = |at: usize| timers.clone().filter_map(|t| t.0.buckets.get(at)).map(|b| b.load(Relaxed)).sum::<u64>();
    for (at, bound) in bounds.iter().enumerate() {
        seen += in_bucket(at);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(seen);
        buckets.push(bucket);
    }
    seen += in_bucket(bounds.len());
    let nanos: u64 = timers.clone().map(|t| t.0.nanos.load(Relaxed)).sum();
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(seen);
    histogram.set_sample_sum(nanos as f64 / 1e9);
    let mut sample = Sample::from_label(pairs(metric, labels));
    sample.set_histogram(histogram);
    sample
}

fn pairs(metric: &Metric, labels: &[String]) -> Vec<LabelPair> {
    let pair = |(name, value): (&&str, &String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    metric.labels.iter().zip(labels).map(pair).collect()
}

fn owned(labels: &[&str]) -> Labels {
    labels.iter().map(ToString::to_string).collect()
}

/// A panic elsewhere leaves whole numbers behind: go on counting.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::names;

    #[test]
    fn cells_of_all_writers_add_up() {
        let family = Family::new(&names::REJECTED).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let cell = family.cell(Writer(n), &["x"]);
                std::thread::spawn(move || (0..1000).for_each(|_| cell.add(1)))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(family.samples()[0].get_counter().get_value(), 4000.0);
    }

    #[test]
    fn the_same_writer_and_labels_share_one_cell() {
        let family = Family::new(&names::REJECTED).unwrap();
        family.cell(Writer(0), &["x"]).add(1);
        family.cell(Writer(0), &["x"]).add(1);
        assert_eq!(family.samples().len(), 1);
        assert_eq!(family.samples()[0].get_counter().get_value(), 2.0);
    }

    #[test]
    fn a_gauge_may_fall_below_what_one_writer_added() {
        let family = Family::new(&names::CONNECTIONS).unwrap();
        family.cell(Writer(0), &["edge"]).add(1);
        family.cell(Writer(1), &["edge"]).sub(1);
        assert_eq!(family.samples()[0].get_gauge().get_value(), 0.0);
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_bounds_inclusive() {
        let family = Family::new(&names::UPSTREAM_DURATION).unwrap();
        let timer = family.timer(Writer(0), &["wiki"]);
        timer.observe(Duration::from_micros(500));
        timer.observe(Duration::from_millis(2));
        timer.observe(Duration::from_secs(3600));
        let samples = family.samples();
        let histogram = samples[0].get_histogram();
        assert_eq!(histogram.get_sample_count(), 3);
        assert_eq!(histogram.get_bucket()[0].cumulative_count(), 1);
        assert_eq!(histogram.get_bucket()[2].cumulative_count(), 2);
        assert_eq!(histogram.get_bucket().last().unwrap().cumulative_count(), 2);
        assert!((histogram.get_sample_sum() - 3600.0025).abs() < 1e-9);
    }
}
