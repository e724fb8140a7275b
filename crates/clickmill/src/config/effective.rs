//! The effective configuration, each value with its origin.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::options::{self, Kind, OPTIONS, SECTIONS};
use super::secrets::shown;
use super::settings::{Setting, Settings};

/// The settings as a TOML file that makes the same configuration, the origin of each value as a comment. Secrets are not shown.
pub fn to_toml(settings: &Settings) -> String {
    let mut out = String::new();
    for (section, _) in SECTIONS {
        let entries = entries(settings, section);
        if entries.is_empty() {
            continue;
        }
        let lines: Vec<_> = entries.iter().map(|(name, setting)| (toml_line(section, name, setting), setting)).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
        let separator = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{separator}[{section}]");
        for (line, setting) in lines {
            let _ = writeln!(out, "{line:width$}  # {}", setting.origin);
        }
    }
    out
}

/// The settings as JSON: for each section and key the value and its origin. Secrets are not shown.
pub fn to_json(settings: &Settings) -> Value {
    let section = |section: &str| -> Map<String, Value> {
        let entry = |(name, setting): (String, &Setting)| {
            let value = shown(&name, &setting.text);
            (name, json!({"value": value, "origin": setting.origin.to_string()}))
        };
        entries(settings, section).into_iter().map(entry).collect()
    };
    let sections = SECTIONS.iter().map(|(name, _)| ((*name).to_owned(), Value::Object(section(name))));
    Value::Object(sections.filter(|(_, entries)| entries.as_object().is_some_and(|map| !map.is_empty())).collect())
}

/// The values of a section: those of the table in its order, then those by a name of their own.
fn entries<'s>(settings: &'s Settings, section: &str) -> Vec<(String, &'s Setting)> {
    let listed = OPTIONS.iter().filter(|option| option.section() == section);
    let listed = listed.filter_map(|option| Some((option.name().to_owned(), settings.get(option.key)?)));
    let free = settings.section(section).filter(|(name, _)| options::find(&format!("{section}.{name}")).is_none());
    listed.chain(free.map(|(name, setting)| (name.to_owned(), setting))).collect()
}

fn toml_line(section: &str, name: &str, setting: &Setting) -> String {
    let kind = options::find(&format!("{section}.{name}")).map_or(Kind::Text, |option| option.kind);
    let text = shown(name, &setting.text);
    let value = if kind.is_bare(text) { text.to_owned() } else { toml::Value::from(text).to_string() };
    format!("{name} = {value}")
}
