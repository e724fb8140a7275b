//! `clickmill topics`: the application's topics on Kafka.

use std::io::{self, Write};

use anyhow::anyhow;
use clap::Args;

use crate::admin::cluster;
use crate::admin::topics::{self, SettingReport, Survey, TopicReport, Verdict};
use crate::config::Config;

use super::error::CommandError;
use super::serve::OptionArgs;
use super::table;

/// Show the topics on Kafka with their settings, and create or set right those of the application.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clickmill topics --kafka kafka:9092                        what there is, beside what there should be
  clickmill topics --kafka kafka:9092 --create-clicks-topic --create
  clickmill topics --config clickmill.toml --fix             set right what differs
  clickmill topics --config clickmill.toml --json

Ends with 0 where all topics exist and are as they should be, with 1 where not. The flags for options are those of
`clickmill serve`.")]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    options: OptionArgs,
    /// Create those of the application's own topics that are missing
    #[arg(long)]
    create: bool,
    /// Create the clicks topic if it is missing, with clicks.partitions
    #[arg(long)]
    create_clicks_topic: bool,
    /// Set right the settings of the application's own topics that differ
    #[arg(long)]
    fix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: TopicsArgs) -> Result<(), CommandError> {
    let TopicsArgs { options, create, create_clicks_topic, fix, json } = args;
    let config = Config::load(&options.into_sources(std::env::vars_os()))?;
    let broker = cluster(&config, "the embedded broker keeps its topics as the configuration says by itself")?;
    let mut survey = topics::survey(&broker, &config)?;
    if create_clicks_topic {
        tell(topics::create_clicks_topic(&broker, &config, &survey)?)?;
        survey = topics::survey(&broker, &config)?;
    }
    if create {
        tell(topics::create_missing(&broker, &survey)?)?;
    }
    if fix {
        tell(topics::fix(&broker, &survey)?)?;
    }
    if create || fix {
        survey = topics::survey(&broker, &config)?;
    }
    if json {
        let text = serde_json::to_string_pretty(&survey).map_err(anyhow::Error::from)?;
        writeln!(io::stdout(), "{text}")?;
    } else {
        writeln!(io::stdout(), "{}", picture(&survey))?;
    }
    if survey.is_fine() { Ok(()) } else { Err(anyhow!("{}", what_is_wrong(&survey)).into()) }
}

fn tell(done: Vec<String>) -> io::Result<()> {
    done.iter().try_for_each(|line| writeln!(io::stderr(), "{line}"))
}

fn picture(survey: &Survey) -> String {
    let mut table = table::table(&["topic", "is", "partitions", "setting", "value", "should be", "verdict"]);
    for topic in &survey.topics {
        let partitions = topic.partitions.map_or_else(|| "missing".to_owned(), |count| count.to_string());
        let row = |first: bool, setting: [String; 4]| {
            let about = |text: &str| if first { text.to_owned() } else { String::new() };
            let topic = [about(&topic.name), about(&topic.role.to_string()), about(&partitions)];
            topic.into_iter().chain(setting).map(|text| table::text(&text)).collect::<Vec<_>>()
        };
        if topic.settings.is_empty() {
            table
                .add_row(row(true, ["", "", "", if topic.partitions.is_some() { "fine" } else { "missing" }].map(str::to_owned)));
        }
        for (number, setting) in topic.settings.iter().enumerate() {
            table.add_row(row(number == 0, cells(setting)));
        }
    }
    let remarks: Vec<_> = survey.topics.iter().flat_map(remarks).collect();
    let separator = if remarks.is_empty() { "" } else { "\n\n" };
    format!("{table}{separator}{}", remarks.join("\n"))
}

fn cells(setting: &SettingReport) -> [String; 4] {
    let wanted = if setting.at_least { format!("at least {}", setting.wanted) } else { setting.wanted.clone() };
    let verdict = match setting.verdict {
        Verdict::Fine => "fine",
        Verdict::Differs if setting.loses_state => "differs: loses counts",
        Verdict::Differs => "differs",
        Verdict::Noted => "differs, the owner's business",
    };
    let found = setting.found.clone().unwrap_or_else(|| "unknown to the brokers".to_owned());
    [setting.name.clone(), found, wanted, verdict.to_owned()]
}

/// What each difference risks, and what cannot be set right here.
fn remarks(topic: &TopicReport) -> Vec<String> {
    let line = |setting: &SettingReport| Some(format!("{} {}: {}", topic.name, setting.name, setting.risk?));
    let remarks = topic.settings.iter().filter_map(line).chain(topic.problems.iter().cloned());
    remarks.map(|remark| table::printable(&remark)).collect()
}

/// One line, with the ways out.
fn what_is_wrong(survey: &Survey) -> String {
    let count = |is: fn(&TopicReport) -> bool| survey.topics.iter().filter(|topic| is(topic)).count();
    let (missing, differing) = (
        count(|topic| topic.partitions.is_none()),
        count(|topic| topic.settings.iter().any(|setting| setting.verdict == Verdict::Differs)),
    );
    let mut wrong = Vec::new();
    if survey.clicks_partitions().is_err() {
        wrong.push("the clicks topic is missing (--create-clicks-topic creates it)".to_owned());
    } else if missing > 0 {
        wrong.push(format!("{missing} topics are missing (--create creates them, and so does clickmill serve)"));
    }
    if differing > 0 {
        wrong.push(format!("{differing} topics differ from what they should be (--fix sets right the application's own)"));
    }
    if count(|topic| !topic.problems.is_empty()) > 0 {
        wrong.push("there is what no setting can put right: see above".to_owned());
    }
    wrong.join("; ")
}
