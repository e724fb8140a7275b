use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_examples() {
    for command in Cli::command().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Examples:\n  "), "{}: {help}", command.get_name());
    }
}

#[test]
fn what_the_examples_show_is_accepted() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().expect("examples").to_string().replace("\\\n", " ");
        for line in help.lines().filter(|line| line.starts_with("  clickmill ")) {
            let line = line.trim_start().split("   ").next().unwrap_or_default();
            let line = line.split([';', '|', '>']).next().unwrap_or_default();
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}

#[test]
fn wrong_usage_is_refused() {
    for line in [
        "clickmill",
        "clickmill sevre",
        "clickmill serve --port 1",
        "clickmill serve extra",
        "clickmill top --limit 0",
        "clickmill top --limit 1001",
        "clickmill top --watch --json",
        "clickmill ad",
        "clickmill load",
        "clickmill load x --block-size 0B",
        "clickmill generate --rate 0",
        "clickmill generate --rate -1",
        "clickmill generate --span 1h",
        "clickmill generate --out x --url http://y",
        "clickmill generate --disorder 5",
        "clickmill topics extra",
        "clickmill reset --to-latest --to-earliest",
        "clickmill reset --to-latest --to-datetime 2026-01-01T00:00:00Z",
        "clickmill reset --to-datetime yesterday",
        "clickmill reset --accept-gap --to-latest",
        "clickmill reset --dry-run --execute",
        "clickmill drain --to-latest",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr() || line == "clickmill", "{line}");
    }
}

#[test]
fn flags_become_settings() {
    let cli =
        parse("clickmill serve --listen [::1]:0 --data-dir d --topic t --application-id a --advertise h:1 --log-format json");
    let Command::Serve(args) = cli.expect("accepted").command else { panic!("serve") };
    let environment = [("CLICKMILL_CONFIG".into(), "from-environment.toml".into())];
    let sources = args.into_sources(environment);
    assert_eq!(sources.file.as_deref(), Some("from-environment.toml".as_ref()));
    let given: Vec<_> = sources.flags.iter().map(|flag| (flag.key, flag.flag, flag.value.as_str())).collect();
    assert_eq!(
        given,
        [
            ("server.listen", "--listen", "[::1]:0"),
            ("data.dir", "--data-dir", "d"),
            ("clicks.topic", "--topic", "t"),
            ("engine.application_id", "--application-id", "a"),
            ("server.advertise", "--advertise", "h:1"),
            ("log.format", "--log-format", "json"),
        ]
    );
}
