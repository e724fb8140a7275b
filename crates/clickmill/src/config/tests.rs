use std::io::Write;

use proptest::prelude::*;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let file = file(text);
    Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
}

/// The message of the error, without the directory of the file.
fn refusal(text: &str) -> String {
    let message = from_file(text).expect_err(text).to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message.split_once(".toml:").map_or(message.clone(), |(_, rest)| format!("file:{rest}"))
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Config::load(&Sources::default()).expect("the defaults go together");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.engine.commit_interval, Duration::from_millis(100));
    assert_eq!(config.engine.commit_interval_backlog, Duration::from_secs(1));
    assert_eq!(config.engine.memory, 1 << 30);
    assert_eq!(config.engine.idle_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.clicks.topic, "click-events-topic");
    assert_eq!(config.clicks.partitions, 8);
    assert_eq!(config.clicks.max_ahead, Duration::from_secs(600));
    assert_eq!(config.clicks.timestamp_source, TimestampSource::Field);
    assert!(!config.clicks.keyed_by_ad);
    assert_eq!(config.window.size, Duration::from_secs(300));
    assert_eq!(config.window.grace, Duration::from_secs(900));
    assert_eq!(config.window.retention, Duration::from_secs(7 * 86_400));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = file("[server]\nlisten = \"127.0.0.1:1\"\n[window]\ngrace = \"1m\"\nsize = \"1m\"\n");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        environment: environment(&[
            ("CLICKMILL_SERVER__LISTEN", "127.0.0.1:2"),
            ("CLICKMILL_WINDOW__GRACE", "2m"),
            ("HOME", "/"),
        ]),
        flags: vec![FlagValue { key: "server.listen", flag: "--listen", value: "127.0.0.1:3".to_owned() }],
    };
    let settings = Settings::collect(&sources).expect("known keys");
    let config = Config::from_settings(&settings).expect("good values");
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.window.grace, Duration::from_secs(120));
    assert_eq!(config.window.size, Duration::from_secs(60));

    let origin = |key: &str| settings.get(key).expect("set").origin.clone();
    assert_eq!(origin("server.listen"), Origin::Flag("--listen"));
    assert_eq!(origin("window.grace"), Origin::Environment("CLICKMILL_WINDOW__GRACE".to_owned()));
    assert_eq!(origin("window.size"), Origin::File(file.path().to_owned(), 5));
    assert_eq!(origin("window.retention"), Origin::Default);
}

#[test]
fn unknown_keys_are_refused_by_name_and_line() {
    assert_eq!(
        refusal("[window]\n\ngraze = \"1m\"\n"),
        "file:3: unknown key window.graze; the keys of [window] are size, grace, retention"
    );
    assert!(refusal("[windows]\n").starts_with("file:1: unknown key windows; the sections are [server], "));
    assert!(refusal("listen = \"127.0.0.1:1\"\n").starts_with("file:1: unknown key listen; "));
    assert!(refusal("[window.size]\nms = 5\n").starts_with("file:2: unknown key window.size.ms; "));
    assert!(refusal("[window\nsize = 1\n").starts_with("file:1: not TOML: "));
}

#[test]
fn unknown_variables_are_refused_by_name() {
    for name in ["CLICKMILL_WINDOW__GRAZE", "CLICKMILL_GRACE", "CLICKMILL_WINDOW_GRACE"] {
        let sources = Sources { environment: environment(&[(name, "1m")]), ..Sources::default() };
        let message = Config::load(&sources).expect_err(name).to_string();
        assert!(message.starts_with(&format!("environment {name}: unknown key ")), "{message}");
    }
    let sources =
        Sources { environment: environment(&[("CLICKMILL_URL", "http://x"), ("CLICKMILL_CONFIG", "x")]), ..Sources::default() };
    Config::load(&sources).expect("these two belong to the command line");
}

#[test]
fn a_bad_value_is_refused_with_what_is_accepted() {
    assert_eq!(
        refusal("[window]\nsize = \"5 minutes\"\n"),
        "file:2: window.size = \"5 minutes\": accepted is a whole number with a unit: ms, s, m, h or d, such as 15m, more than zero"
    );
    assert_eq!(
        refusal("[clicks]\npartitions = 0\n"),
        "file:2: clicks.partitions = \"0\": accepted is a whole number from 1 to 1024"
    );
    assert_eq!(
        refusal("[engine]\nmemory = \"1GB\"\n"),
        "file:2: engine.memory = \"1GB\": accepted is a whole number with a unit: B, KiB, MiB, GiB or TiB, such as 64MiB, at least 256MiB"
    );
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let message = refusal("[window]\nretention = \"19m\"\n");
    assert!(message.contains("shorter than window.size + window.grace = 20m"), "{message}");
    from_file("[window]\nretention = \"20m\"\n").expect("just long enough");
    for (text, key) in [
        ("[clicks]\nclick_id_field = \"ad_id\"\n", "clicks.click_id_field"),
        ("[clicks]\ntopic = \"clickmill-late\"\n", "clicks.topic"),
        ("[engine]\ncommit_interval = \"2s\"\n", "engine.commit_interval_backlog"),
        ("[server]\nmax_query_period = \"1m\"\n", "server.max_query_period"),
        ("[engine]\nmemory = \"256MiB\"\n[server]\nmax_body = \"17MiB\"\n", "server.max_body"),
    ] {
        let message = from_file(text).expect_err(text).to_string();
        assert!(message.starts_with(&format!("{key} = ")), "{message}");
    }
}

#[test]
fn kafka_takes_librdkafkas_properties_but_for_those_of_the_engine() {
    let config = from_file("[kafka]\nbootstrap.servers = \"x:9092,y:9092\"\n\"fetch.min.bytes\" = 5\n").expect("both are known");
    let kafka = config.kafka.expect("there is a cluster");
    assert_eq!(kafka.bootstrap_servers, "x:9092,y:9092");
    assert_eq!(kafka.properties.into_iter().collect::<Vec<_>>(), [("fetch.min.bytes".to_owned(), "5".to_owned())]);

    for (line, key) in [
        ("isolation.level = \"read_uncommitted\"", "isolation.level"),
        ("fetch.min.bites = 5", "fetch.min.bites"),
        ("fetch.min.bytes = \"many\"", "fetch.min.bytes"),
    ] {
        let text = format!("[kafka]\nbootstrap.servers = \"x:9092\"\n{line}\n");
        let message = from_file(&text).expect_err(line).to_string();
        assert!(message.starts_with(&format!("kafka.{key} = ")) && !message.contains('\n'), "{message}");
    }
    let alone = from_file("[kafka]\nfetch.min.bytes = 5\n").expect_err("no server").to_string();
    assert!(alone.contains("kafka.bootstrap.servers does not name a broker"), "{alone}");
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = "[kafka]\nbootstrap.servers = \"x:9092\"\nsasl.password = \"hunter2\"\nssl.key.pem = \"hunter2\"\nsasl.username = \"bob\"\n";
    let mut written = tempfile::NamedTempFile::new().expect("a temporary file");
    written.write_all(file.as_bytes()).expect("written");
    let settings =
        Settings::collect(&Sources { file: Some(written.path().to_owned()), ..Sources::default() }).expect("known keys");
    for printed in [to_toml(&settings), to_json(&settings).to_string()] {
        assert!(!printed.contains("hunter2") && printed.contains("(not shown)") && printed.contains("bob"), "{printed}");
    }
    let message =
        from_file("[kafka]\nbootstrap.servers = \"x:9092\"\nssl.key.passwords = \"hunter2\"\n").expect_err("unknown").to_string();
    assert!(!message.contains("hunter2") && message.contains("kafka.ssl.key.passwords = (not shown)"), "{message}");
}

#[test]
fn rocksdb_takes_typed_options_and_its_own() {
    let config =
        from_file("[rocksdb]\nmax_background_jobs = 4\nbloom_bits_per_key = 9.5\nuse_fsync = true\nttl = 3600\n").expect("taken");
    assert_eq!(config.rocksdb.max_background_jobs, 4);
    assert_eq!(config.rocksdb.bloom_bits_per_key, 9.5);
    let named: Vec<_> = config.rocksdb.named.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(named, [("ttl", "3600"), ("use_fsync", "true")]);

    let message = from_file("[rocksdb]\nmax_open_fils = 4\n").expect_err("a name that RocksDB does not know").to_string();
    assert!(
        message.starts_with("rocksdb.max_open_fils = 4 (") && message.ends_with("): RocksDB has no such option"),
        "{message}"
    );
    let message = from_file("[rocksdb]\natomic_flush = false\n").expect_err("the store's own").to_string();
    assert!(message.contains("cannot be set: "), "{message}");
}

#[test]
fn the_defaults_of_rocksdb_are_those_of_the_store() {
    let config = Config::load(&Sources::default()).expect("the defaults");
    assert_eq!(config.rocksdb, RocksDbOptions::default());
}

/// What is printed is a file that makes the same configuration.
#[test]
fn the_effective_configuration_reads_back() {
    let sources = Sources {
        environment: environment(&[("CLICKMILL_ROCKSDB__USE_FSYNC", "true"), ("CLICKMILL_CLICKS__AD_ID_FIELD", "ad \"id\"")]),
        flags: vec![FlagValue { key: "data.dir", flag: "--data-dir", value: "C:\\data".to_owned() }],
        ..Sources::default()
    };
    let settings = Settings::collect(&sources).expect("known keys");
    let printed = to_toml(&settings);
    assert!(printed.contains("# flag --data-dir\n"), "{printed}");
    assert!(printed.contains("# environment CLICKMILL_ROCKSDB__USE_FSYNC\n"), "{printed}");
    assert_eq!(from_file(&printed).expect(&printed), Config::from_settings(&settings).expect("good values"));
}

/// Every option of the table is read and checked: none is documented only.
#[test]
fn every_option_refuses_nonsense_by_its_name() {
    for option in OPTIONS.iter().filter(|option| option.kind != Kind::Path) {
        let sources =
            Sources { flags: vec![FlagValue { key: option.key, flag: "--x", value: " ".to_owned() }], ..Sources::default() };
        let message = Config::load(&sources).expect_err(option.key).to_string();
        assert!(message.starts_with(&format!("flag --x: {} = \" \": accepted is ", option.key)), "{message}");
    }
}

#[test]
fn a_file_nested_without_end_is_refused() {
    for opening in ["[", "{a=", "[{a="] {
        from_file(&format!("[window]\nsize = {}", opening.repeat(100_000))).expect_err("refused");
    }
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "(\\[?[a-z_.\"]{0,12}\\]? ?=? ?[0-9a-z\"'\\[\\]{}.:-]{0,12}\n){0,6}".prop_map(String::into_bytes),
        "\\[(window|rocksdb|clicks|server)\\]\n(size|ttl|topic|listen) = \\PC{0,20}\n".prop_map(String::into_bytes),
    ]) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&bytes).expect("written");
        let loaded = Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() });
        prop_assert!(loaded.is_ok() || loaded.is_err_and(|error| !error.to_string().is_empty()));
    }

    #[test]
    fn any_environment_is_read_or_refused(
        option in prop::sample::select(OPTIONS), name in "CLICKMILL_[A-Z_]{0,20}", value in "\\PC{0,30}|[-+0-9.]{0,40}[a-zA-Z]{0,3}",
    ) {
        let known = format!("CLICKMILL_{}", option.key.to_uppercase().replace('.', "__"));
        for name in [&known, &name] {
            let sources = Sources { environment: environment(&[(name, &value)]), ..Sources::default() };
            let loaded = Config::load(&sources);
            prop_assert!(loaded.is_ok() || loaded.is_err_and(|error| !error.to_string().is_empty()));
        }
    }
}
