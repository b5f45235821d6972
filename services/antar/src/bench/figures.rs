//! What is reported: one object with scenario, options and figures, as JSON or as a table.

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::BenchArgs;
use crate::exit::Outcome;
use crate::say;

/// Percentiles of a latency, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    mean: f64,
}

impl Latency {
    /// Of nanoseconds; `None` if there are none.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: f64| (ns / 100.0).round() / 10.0;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile) as f64);
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max() as f64),
            mean: us(histogram.mean()),
        })
    }
}

#[derive(Serialize)]
struct Report<'a, F> {
    scenario: super::Scenario,
    options: &'a BenchArgs,
    figures: &'a F,
}

/// Prints what was measured.
pub(crate) fn report(args: &BenchArgs, figures: &impl Serialize) -> Outcome {
    if args.json {
        return say::json(&Report { scenario: args.scenario, options: args, figures });
    }
    let mut rows = Vec::new();
    flatten("", &serde_json::to_value(figures)?, &mut rows);
    say::table(&rows)
}

/// An object as rows of a name and a value; what is nested gets a longer name.
fn flatten(prefix: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix} {name}") };
                flatten(&name, value, rows);
            }
        }
        Value::Null => {}
        Value::String(text) => rows.push(vec![prefix.replace('_', " "), text.clone()]),
        other => rows.push(vec![prefix.replace('_', " "), other.to_string()]),
    }
}

/// `value` with one digit behind the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_in_microseconds() {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        assert!(Latency::of(&histogram).is_none());
        (1..=1000).for_each(|us| histogram.record(us * 1000).unwrap());
        let latency = Latency::of(&histogram).unwrap();
        assert!((499.0..=501.0).contains(&latency.p50), "{latency:?}");
        assert!((989.0..=991.0).contains(&latency.p99), "{latency:?}");
    }

    #[test]
    fn nested_figures_become_rows() {
        let mut rows = Vec::new();
        flatten("", &serde_json::json!({"lost": 0, "latency_us": {"p50": 1.5}, "pid": null}), &mut rows);
        rows.sort();
        assert_eq!(rows, [["latency us p50", "1.5"], ["lost", "0"]]);
    }
}
