//! Reads what `/metrics` says, and holds the names that the tests rely on.

use std::collections::BTreeMap;

pub(crate) mod names {
    //! Those of docs/metrics.md.

    pub(crate) const PROPAGATION: &str = "sheave_propagation_seconds";
    pub(crate) const COMPILATIONS: &str = "sheave_upstream_compilations_total";
    pub(crate) const SYNCED: &str = "sheave_kubernetes_synced";
    pub(crate) const LAST_EVENT_AGE: &str = "sheave_kubernetes_last_event_age_seconds";
    pub(crate) const WATCH_ERRORS: &str = "sheave_kubernetes_watch_errors_total";
    pub(crate) const CONTROL_CPU: &str = "sheave_control_cpu_seconds_total";
    pub(crate) const RESIDENT: &str = "sheave_process_resident_memory_bytes";
    pub(crate) const RUNTIME: &str = "sheave_worker_runtime_info";
    pub(crate) const OUTCOMES: &str = "sheave_listener_connections_total";
    pub(crate) const PROBLEM: &str = "sheave_upstream_problem";
    pub(crate) const RETRIES: &str = "sheave_upstream_retries_total";
}

/// One scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(Sample::parse).collect())
    }

    /// The sum over all series of this name whose labels include these; none when there is no such series.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.with(name, labels).map(|sample| sample.value).peekable();
        found.peek().is_some().then(|| found.sum())
    }

    /// The largest of all series of this name; zero when there is none.
    pub(crate) fn max(&self, name: &str) -> f64 {
        self.with(name, &[]).map(|sample| sample.value).fold(0.0, f64::max)
    }

    /// As [`Self::sum`]; counters that have not counted yet are zero.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels).unwrap_or(0.0)
    }

    /// The values of a label, with the series' own values.
    pub(crate) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.with(name, &[]) {
            let value = sample.labels.get(label).cloned().unwrap_or_default();
            *sums.entry(value).or_default() += sample.value;
        }
        sums
    }

    pub(crate) fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let mut buckets = Buckets::default();
        for sample in self.with(&format!("{name}_bucket"), labels) {
            let bound: f64 = sample.labels["le"].parse().expect("a bound is a number");
            buckets.add(bound, sample.value);
        }
        buckets
    }

    /// Name, labels and value of each series.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, String>, f64)> {
        self.0.iter().map(|sample| (&*sample.name, &sample.labels, sample.value))
    }

    fn with(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|is| is == value);
            sample.name == name && labels.iter().all(has)
        })
    }
}

impl Sample {
    /// `name{key="value",...} 1.5 # exemplar`
    fn parse(line: &str) -> Option<Self> {
        let line = line.split(" # ").next()?;
        let (series, value) = line.rsplit_once(' ')?;
        let (name, inner) = series.split_once('{').unwrap_or((series, "}"));
        let mut labels = BTreeMap::new();
        let mut rest = inner.trim_end_matches('}');
        while let Some((key, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            labels.insert(key.trim_start_matches(',').to_owned(), value.to_owned());
            rest = after;
        }
        let value = value.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}

/// Counts of a histogram up to each bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn add(&mut self, bound: f64, count: f64) {
        match self.0.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((bound, count)),
        }
        self.0.sort_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// What was observed after `before` was scraped.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |bound: f64| before.0.iter().find(|(known, _)| known.total_cmp(&bound).is_eq());
        let counts =
            self.0.iter().map(|(bound, count)| (*bound, count - earlier(*bound).map_or(0.0, |(_, c)| *c)));
        Self(counts.collect())
    }

    pub(crate) fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// Interpolated within its bucket, as Prometheus does; infinite in the last.
    /// Not a number where nothing was observed, so that no bound holds for it.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        let wanted = self.count() * quantile;
        let mut below = (0.0, 0.0);
        for (bound, count) in &self.0 {
            if *count >= wanted && *count > below.1 {
                let share = (wanted - below.1) / (count - below.1);
                return if bound.is_finite() { below.0 + (bound - below.0) * share } else { *bound };
            }
            below = (*bound, *count);
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a counter\na_total{x=\"1\",y=\"p,q\"} 2\na_total{x=\"2\",y=\"p\"} 3 # {t=\"e\"} 1.0\n\
        b 1.5\nh_bucket{le=\"0.1\",f=\"c\"} 0\nh_bucket{le=\"0.2\",f=\"c\"} 8\nh_bucket{le=\"+Inf\",f=\"c\"} 10\n# EOF\n";

    #[test]
    fn series_are_summed_by_their_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.sum("a_total", &[]), Some(5.0));
        assert_eq!(metrics.sum("a_total", &[("y", "p,q")]), Some(2.0));
        assert_eq!(metrics.sum("b", &[]), Some(1.5));
        assert_eq!(metrics.sum("c", &[]), None);
        assert_eq!(metrics.by("a_total", "x")["2"], 3.0);
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let buckets = Metrics::parse(TEXT).buckets("h", &[("f", "c")]);
        assert!((buckets.quantile(0.4) - 0.15).abs() < 1e-9);
        assert!(buckets.quantile(0.99).is_infinite());
        assert_eq!(buckets.since(&buckets).count(), 0.0);
        assert!(buckets.since(&buckets).quantile(0.5).is_nan());
    }
}
