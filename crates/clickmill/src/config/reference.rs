//! The reference of all options, as Markdown.

use std::fmt::Write;

use super::options::{Kind, OPTIONS, OptionSpec, SECTIONS};
use super::units::format_size;

const INTRODUCTION: &str = "\
# Configuration

Clickmill runs without any configuration. What is set comes from four places; each beats the one before:

1. the defaults below;
2. one TOML file: `clickmill serve --config clickmill.toml`, or `CLICKMILL_CONFIG`;
3. the environment: `CLICKMILL_WINDOW__GRACE=15m` sets `grace` in `[window]`;
4. flags, such as `--listen`.

A key that is not known is refused, wherever it is written. `clickmill config` takes the same flags as `clickmill serve`, checks
everything, and prints the effective configuration with the origin of each value. Passwords and keys are not shown.

A duration is a whole number with `ms`, `s`, `m`, `h` or `d`; a size is one with `B`, `KiB`, `MiB`, `GiB` or `TiB`.

```toml
[server]
listen = \"0.0.0.0:8080\"

[window]
size = \"5m\"
grace = \"15m\"
```

This page is made from the table of options in the code, and a test keeps the two the same.
";

/// The text of `docs/configuration.md`.
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    for (section, about) in SECTIONS {
        let _ = write!(out, "\n## [{section}]\n\n{about}\n");
        let mut options = OPTIONS.iter().filter(|option| option.section() == section).peekable();
        if options.peek().is_some() {
            out.push_str("\n| Key | Takes | Default | Meaning |\n|---|---|---|---|\n");
        }
        for option in options {
            let _ = writeln!(out, "| `{}` | {} | {} | {} |", option.name(), takes(option.kind), default(option), option.meaning);
        }
    }
    out
}

fn default(option: &OptionSpec) -> String {
    let Some(text) = option.default else { return "not set".to_owned() };
    if option.kind.is_bare(text) { format!("`{text}`") } else { format!("`\"{text}\"`") }
}

fn takes(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Name { max_length } => format!("up to {max_length} letters, digits, `.`, `_`, `-`"),
        Kind::Path => "directory".to_owned(),
        Kind::SocketAddress => "IP address and port".to_owned(),
        Kind::HostPort => "host and port".to_owned(),
        Kind::Integer { min, max } if min == max => format!("{min}"),
        Kind::Integer { min, max } => format!("{min} to {max}"),
        Kind::Number { min, max } => format!("number from {min} to {max}"),
        Kind::Threads => "1 to 1024, or `\"auto\"`".to_owned(),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Duration { zero: true } => "duration".to_owned(),
        Kind::Duration { zero: false } => "duration above zero".to_owned(),
        Kind::DurationOrOff => "duration, or `\"off\"`".to_owned(),
        Kind::Size { min } => format!("size, at least `{}`", format_size(min)),
        Kind::SizeOrOff => "size, or `\"off\"`".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" or "),
    }
}
