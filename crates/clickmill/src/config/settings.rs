//! What was set, by whom: the file, the environment and the flags, laid over the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::options::{self, KAFKA_SECTION, OPTIONS, OptionSpec, ROCKSDB_SECTION, SECTIONS};

/// What the names of our environment variables start with.
const ENVIRONMENT_PREFIX: &str = "CLICKMILL_";

/// Variables that belong to the command line, not to the configuration.
const COMMAND_LINE_VARIABLES: [&str; 2] = ["CLICKMILL_CONFIG", "CLICKMILL_URL"];

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment, as name and value. Variables without our prefix are ignored.
    pub environment: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Vec<FlagValue>,
}

/// A flag of the command line that sets an option.
#[derive(Debug, Clone)]
pub struct FlagValue {
    /// The option, such as `server.listen`.
    pub key: &'static str,
    /// The flag, such as `--listen`.
    pub flag: &'static str,
    /// The value as it was typed.
    pub value: String,
}

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody did.
    Default,
    /// A line of the configuration file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value, without quotes.
    pub text: String,
    /// Who set it.
    pub origin: Origin,
}

/// The values in effect by key, defaults included. Every key is a known option, or lies in `[kafka]` or `[rocksdb]`.
#[derive(Debug, Clone)]
pub struct Settings(BTreeMap<String, Setting>);

impl Settings {
    /// Lays the sources over one another: defaults, file, environment, flags.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML, or a key is not known.
    pub fn collect(sources: &Sources) -> Result<Self, ConfigError> {
        let mut settings = Self(OPTIONS.iter().filter_map(default_setting).collect());
        if let Some(path) = &sources.file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            settings.add_file(path, &text)?;
        }
        settings.add_environment(&sources.environment)?;
        for flag in &sources.flags {
            settings.set(flag.key.to_owned(), flag.value.clone(), Origin::Flag(flag.flag))?;
        }
        Ok(settings)
    }

    /// The value of an option, if it has one.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.0.get(key)
    }

    /// All values of a section in the order of their names.
    pub fn section(&self, section: &str) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().filter_map(move |(key, setting)| {
            let name = key.strip_prefix(section)?.strip_prefix('.')?;
            Some((name, setting))
        })
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let origin = |at: usize| Origin::File(path.to_owned(), line_of(text, at));
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: origin(error.span().map_or(0, |span| span.start)),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })?;
        for (name, _) in table.get_ref() {
            if SECTIONS.iter().all(|(section, _)| section != name.get_ref()) {
                let (key, origin) = (name.get_ref().to_string(), origin(name.span().start));
                return Err(ConfigError::UnknownKey { key, origin, known: known_names("") });
            }
        }
        let mut found = Vec::new();
        flatten("", table.get_ref(), &mut found);
        for (key, value, at) in found {
            let text = scalar(value).ok_or_else(|| ConfigError::Invalid {
                key: key.clone(),
                value: value.type_str().to_owned(),
                origin: origin(at),
                reason: "a string, a number or a boolean is accepted".to_owned(),
            })?;
            self.set(key, text, origin(at))?;
        }
        Ok(())
    }

    fn add_environment(&mut self, environment: &[(String, String)]) -> Result<(), ConfigError> {
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if COMMAND_LINE_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            let origin = Origin::Environment(variable.clone());
            let Some((section, key)) = name.split_once("__") else {
                let known = format!("write {ENVIRONMENT_PREFIX}SECTION__KEY, such as {ENVIRONMENT_PREFIX}WINDOW__GRACE");
                return Err(ConfigError::UnknownKey { key: variable.clone(), origin, known });
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            // librdkafka's names have dots, which a variable's name cannot have.
            let key = if section == KAFKA_SECTION { key.replace('_', ".") } else { key };
            self.set(format!("{section}.{key}"), value.clone(), origin)?;
        }
        Ok(())
    }

    fn set(&mut self, key: String, text: String, origin: Origin) -> Result<(), ConfigError> {
        let (section, name) = key.split_once('.').unwrap_or(("", &key));
        let free = !name.is_empty() && [KAFKA_SECTION, ROCKSDB_SECTION].contains(&section);
        if !free && options::find(&key).is_none() {
            let known = known_names(section);
            return Err(ConfigError::UnknownKey { key, origin, known });
        }
        self.0.insert(key, Setting { text, origin });
        Ok(())
    }
}

fn default_setting(option: &OptionSpec) -> Option<(String, Setting)> {
    let text = option.default?.to_owned();
    Some((option.key.to_owned(), Setting { text, origin: Origin::Default }))
}

fn known_names(section: &str) -> String {
    let names: Vec<_> = OPTIONS.iter().filter(|option| option.section() == section).map(OptionSpec::name).collect();
    if names.is_empty() {
        let sections: Vec<_> = SECTIONS.iter().map(|(name, _)| format!("[{name}]")).collect();
        return format!("the sections are {}", sections.join(", "));
    }
    format!("the keys of [{section}] are {}", names.join(", "))
}

/// Every value with its dotted key and the place of the key.
fn flatten<'t>(prefix: &str, table: &'t DeTable<'t>, found: &mut Vec<(String, &'t DeValue<'t>, usize)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&key, inner, found),
            other => found.push((key, other, name.span().start)),
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i128::from_str_radix(number.as_str(), number.radix());
            Some(parsed.map_or_else(|_| number.to_string(), |n| n.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}
