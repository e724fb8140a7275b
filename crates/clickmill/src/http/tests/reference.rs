//! `docs/http-api.md` names every problem, every reason and every metric.

use super::*;
use crate::click::Refusal;
use crate::http::problem::ProblemKind;
use crate::metrics::TextFormat;

const REFERENCE: &str = include_str!("../../../../../docs/http-api.md");

#[track_caller]
fn assert_row(row: &str) {
    assert!(REFERENCE.lines().any(|line| line.starts_with(row)), "docs/http-api.md has no row {row}");
}

#[test]
fn every_problem_has_its_row() {
    for kind in ProblemKind::ALL {
        let (uri, status, _) = kind.words();
        assert_row(&format!("| `/problems/{uri}` | {} |", status.as_u16()));
    }
}

#[test]
fn every_reason_has_its_row() {
    for refusal in Refusal::ALL {
        assert_row(&format!("| {} | `{}` |", refusal.text(), refusal.label()));
    }
}

#[test]
fn every_metric_has_its_row() {
    let metrics = Metrics::new(Arc::new(Idle));
    // A metric with labels is written once it has a value.
    metrics.click_rejected(Refusal::NotUtf8);
    metrics.request_took("/".into(), "GET", 200, Duration::ZERO);
    let text = metrics.render(TextFormat::Prometheus);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names: Vec<&str> = types.map(|(name, _)| name).collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        assert_row(&format!("| `{name}` |"));
    }
}
