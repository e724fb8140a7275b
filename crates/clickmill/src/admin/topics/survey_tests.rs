use super::*;
use crate::config::{FlagValue, Sources};

fn config(key: &'static str, value: &str) -> Config {
    let flags = vec![FlagValue { key, flag: "--none", value: value.to_owned() }];
    Config::load(&Sources { flags, ..Sources::default() }).expect("a configuration")
}

/// The topics as this program creates them, but for what `change` changes.
fn surveyed(config: &Config, change: impl Fn(Role, &mut Option<u32>, &mut Found)) -> Survey {
    let clicks = Found::from([("max.message.bytes".to_owned(), "1048588".to_owned())]);
    let as_created = |topic: AppTopic| {
        let wanted = expected(&topic, config, Some(&clicks)).into_iter().map(|setting| (setting.name, setting.value));
        let mut found: Found = wanted.collect();
        if topic.role == Role::Clicks {
            found.extend(clicks.clone());
        }
        let mut partitions = Some(4);
        change(topic.role, &mut partitions, &mut found);
        Seen { settings: partitions.map(|_| found), topic, partitions }
    };
    survey_of(config, &topics_of(config).into_iter().map(as_created).collect::<Vec<_>>())
}

fn with(role: Role, name: &str, value: &str) -> Survey {
    surveyed(&config("clicks.topic", "clicks"), |its, _, found| {
        if its == role {
            found.insert(name.to_owned(), value.to_owned());
        }
    })
}

#[test]
fn topics_as_they_are_created_are_fine() {
    let survey = surveyed(&config("topics.late_retention", "1d"), |_, _, _| {});
    assert!(survey.is_fine(), "{survey:?}");
    survey.refuse_loss().expect("nothing is lost");
    assert_eq!(survey.warnings(), Vec::<String>::new());
    let late = survey.of(Role::Late).expect("there is one");
    let setting = |name: &str| late.settings.iter().find(|setting| setting.name == name).expect(name).wanted.clone();
    assert_eq!((setting("retention.ms"), setting("max.message.bytes")), ("86400000".to_owned(), "1114124".to_owned()));
}

#[test]
fn what_would_lose_state_is_refused_by_name() {
    for (role, name, value) in [
        (Role::Changelog, "retention.ms", "172800000"),
        (Role::Changelog, "retention.bytes", "1"),
        (Role::Repartition, "retention.ms", "604800000"),
        (Role::Repartition, "cleanup.policy", "compact"),
    ] {
        let survey = with(role, name, value);
        assert!(!survey.is_fine());
        let refused = survey.refuse_loss().expect_err("it loses state").to_string();
        for part in [&*format!("{name} = {value}"), "clickmill topics --fix", "clickmill-ad-clicks-store-"] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}

#[test]
fn what_differs_and_loses_nothing_is_told_and_not_refused() {
    for (role, name, value) in [
        (Role::Changelog, "cleanup.policy", "compact"),
        (Role::Late, "retention.ms", "1"),
        (Role::DeadLetter, "max.message.bytes", "1048588"),
        (Role::Repartition, "segment.bytes", "1073741824"),
        (Role::Repartition, "message.timestamp.before.max.ms", "86400000"),
        (Role::Changelog, "message.timestamp.before.max.ms", "86400000"),
        (Role::Late, "message.timestamp.difference.max.ms", "86400000"),
        (Role::Clicks, "cleanup.policy", "compact"),
    ] {
        let survey = with(role, name, value);
        assert!(!survey.is_fine(), "{name}");
        survey.refuse_loss().expect("nothing of the state is lost");
        assert!(survey.warnings()[0].contains(&format!("{name} = {value}, not ")), "{:?}", survey.warnings());
    }
}

#[test]
fn what_is_as_good_or_not_ours_is_fine() {
    for (role, name, value) in [
        (Role::Changelog, "cleanup.policy", "delete,compact"),
        (Role::Late, "max.message.bytes", "9999999"),
        (Role::Clicks, "message.timestamp.after.max.ms", "3600000"),
    ] {
        assert!(with(role, name, value).is_fine(), "{name}");
    }
}

#[test]
fn a_changelog_of_kafka_streams_is_told_of_and_not_refused() {
    let with_horizon = |horizon| {
        surveyed(&config("window.retention", horizon), |role, _, found| {
            if role == Role::Changelog {
                let theirs = [("retention.ms", "87600000"), ("message.timestamp.after.max.ms", "3600000")];
                found.extend(theirs.map(|(name, value)| (name.to_owned(), value.to_owned())));
            }
        })
    };
    let refused = with_horizon("2d").refuse_loss().expect_err("counts of yesterday would be lost").to_string();
    assert!(refused.contains("retention.ms = 87600000") && refused.contains("clickmill topics --fix"), "{refused}");
    let survey = with_horizon("1d");
    survey.refuse_loss().expect("an application is moved over as it stands");
    assert!(survey.warnings()[1].contains("retention.ms = 87600000, not -1: brokers delete counts"), "{:?}", survey.warnings());
    assert!(!survey.is_fine());
}

/// Retention deletes nothing of a topic that is compacted alone.
#[test]
fn a_finite_retention_without_the_policy_loses_nothing() {
    let survey = surveyed(&config("clicks.topic", "clicks"), |role, _, found| {
        if role == Role::Changelog {
            found.extend([("cleanup.policy".to_owned(), "compact".to_owned()), ("retention.ms".to_owned(), "1".to_owned())]);
        }
    });
    survey.refuse_loss().expect("nothing is lost");
    assert!(!survey.is_fine());
}

#[test]
fn partitions_that_do_not_go_together_come_with_the_way_out() {
    for role in [Role::Repartition, Role::Closed] {
        let survey = surveyed(&config("clicks.topic", "clicks"), |its, partitions, _| {
            if its == role {
                *partitions = Some(3);
            }
        });
        let problem = &survey.of(role).expect("there is one").problems[0];
        assert!(problem.contains("3 partitions") && problem.contains("delete the"), "{problem}");
        assert!(!survey.is_fine());
    }
    let survey = surveyed(&config("clicks.keyed_by_ad", "true"), |role, partitions, _| {
        if role == Role::Clicks {
            *partitions = Some(8);
        }
    });
    assert!(survey.of(Role::Repartition).is_none(), "nothing is shuffled");
    assert!(survey.of(Role::Changelog).expect("there is one").problems[0].contains("clickmill reset"));
}

#[test]
fn a_missing_clicks_topic_names_the_command() {
    let survey = surveyed(&config("clicks.topic", "clicks"), |_, partitions, _| *partitions = None);
    assert!(!survey.is_fine());
    let refused = survey.clicks_partitions().expect_err("there is none").to_string();
    assert!(refused.starts_with("topic clicks does not exist: clickmill topics --create-clicks-topic"), "{refused}");
}
