//! The two text formats that Prometheus reads.

/// A text format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl TextFormat {
    /// OpenMetrics where one of the `Accept` headers names it, else Prometheus' own.
    pub fn asked_for<'h>(accept: impl Iterator<Item = &'h str>) -> Self {
        let mut media_types = accept.flat_map(|header| header.split(',')).filter_map(|range| range.split(';').next());
        let open = media_types.any(|name| name.trim().eq_ignore_ascii_case("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Prometheus' text for metrics in OpenMetrics text without units and exemplars. There a counter is described under the name that
/// its samples have, with `_total`, and nothing marks the end.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_described_under_its_samples_name() {
        let open_metrics =
            "# HELP c Clicks, # EOF.\n# TYPE c counter\nc_total{a=\"x # EOF\"} 1\n# HELP g Now.\n# TYPE g gauge\ng 2.0\n# EOF\n";
        let prometheus = "# HELP c_total Clicks, # EOF.\n# TYPE c_total counter\nc_total{a=\"x # EOF\"} 1\n# HELP g Now.\n# TYPE g gauge\ng 2.0\n";
        assert_eq!(to_prometheus(open_metrics), prometheus);
    }

    #[test]
    fn open_metrics_has_to_be_named() {
        let asked_for = |headers: &[&str]| TextFormat::asked_for(headers.iter().copied());
        assert_eq!(asked_for(&[]), TextFormat::Prometheus);
        assert_eq!(asked_for(&["*/*", "text/plain;version=0.0.4"]), TextFormat::Prometheus);
        assert_eq!(
            asked_for(&["text/plain", "text/html, Application/OpenMetrics-Text; version=1.0.0;q=0.5"]),
            TextFormat::OpenMetrics
        );
    }
}
