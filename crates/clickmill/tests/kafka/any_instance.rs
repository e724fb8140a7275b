//! Three instances: each answers for all of them, completely and equally, while clicks flow.

use serde_json::Value;

use crate::clicks::{Clicks, MINUTE_MS};
use crate::scenario::Scenario;
use crate::service::Service;
use crate::size;
use crate::{cluster, counts};

const INSTANCES: usize = 3;

#[test]
fn every_instance_answers_for_all_of_them_while_clicks_flow() {
    let clicks = Clicks::mixed(size::clicks(40_000, 400_000), size::seed());
    let ever = format!("from={}&to={}", clicks.start_ms - 60 * MINUTE_MS, clicks.start_ms + clicks.span_ms + 60 * MINUTE_MS);
    let scenario = Scenario::new("any-instance", cluster::shared().bootstrap_servers(), clicks);
    let mut instances: Vec<_> = (0..INSTANCES).map(|number| scenario.instance(number)).collect();
    instances.iter_mut().for_each(Service::start);
    instances.iter_mut().for_each(Service::wait_until_ready);
    instances[0]
        .wait_until("shared out", |service| service.try_get("/v1/cluster").is_some_and(|answer| each_has_tasks(&answer.json)));

    let writer = scenario.start_writing(10);
    let mut last = 0;
    for number in (0..INSTANCES).cycle().take(60) {
        let total = complete(&instances[number], &format!("/v1/clicks?{ever}"));
        let clicks = total["clicks"].as_u64().unwrap();
        assert!(clicks >= last, "instance {number} has {clicks} clicks, and another had {last} before");
        last = clicks;
        complete(&instances[number], &format!("/v1/ads/top?{ever}&limit=20"));
    }
    writer.finish();
    instances[0].wait_until_counted();

    let of_all = |path: &str| -> Vec<Value> {
        instances.iter().map(|instance| complete(instance, path)).map(without_completeness).collect()
    };
    let top = of_all(&format!("/v1/ads/top?{ever}&limit=20"));
    let ad = top[0]["ads"][0]["ad_id"].as_str().unwrap().to_owned();
    for answers in [top, of_all(&format!("/v1/clicks?{ever}")), of_all(&format!("/v1/ads/{ad}/clicks?{ever}"))] {
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
    counts::check(&scenario);
    instances.iter_mut().for_each(Service::stop);
}

fn each_has_tasks(cluster: &Value) -> bool {
    let instances = cluster["instances"].as_array().unwrap();
    let all_have = instances.iter().all(|instance| !instance["active_tasks"].as_array().unwrap().is_empty());
    instances.len() == INSTANCES && all_have && cluster["unassigned"].as_array().unwrap().is_empty()
}

fn complete(instance: &Service, path: &str) -> Value {
    let answer = instance.try_get(path).unwrap();
    assert_eq!((answer.status, &answer.json["completeness"]["complete"]), (200, &Value::Bool(true)), "{path}: {}", answer.json);
    answer.json
}

fn without_completeness(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("completeness");
    answer
}
