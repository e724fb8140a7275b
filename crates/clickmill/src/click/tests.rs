use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn decoder() -> ClickDecoder {
    ClickDecoder::new(ClickFields::default(), TimestampSource::Field, Duration::from_secs(600))
}

fn decode(value: &str) -> Result<Click<'_>, Refusal> {
    decoder().decode(value.as_bytes(), NOW)
}

fn click(ad_id: &str, timestamp: i64, click_id: Option<&str>) -> Result<Click<'static>, Refusal> {
    let owned = |text: &str| Cow::Owned(text.to_owned());
    Ok(Click { ad_id: owned(ad_id), timestamp: Timestamp(timestamp), click_id: click_id.map(owned) })
}

#[test]
fn reads_the_three_fields_and_passes_the_rest() {
    assert_eq!(decode(r#"{"ad_id":"ad-1","timestamp":5,"click_id":"c"}"#), click("ad-1", 5, Some("c")));
    assert_eq!(decode(" {\t\"x\" : [1, {\"ad_id\": 2}], \"ad_id\" :\n\"a\" , \"timestamp\":\"7\"} \r\n"), click("a", 7, None));
    assert_eq!(decode(r#"{"ad_id":"a","timestamp":"2026-01-01T00:00:00+00:00"}"#), click("a", NOW.0, None));
    assert_eq!(decode(r#"{"ad_id":"a","timestamp":null,"click_id":null}"#), click("a", NOW.0, None));
    assert_eq!(decode(r#"{"ad_id":"first","ad_id":"last"}"#), click("last", NOW.0, None));
    assert_eq!(decode(r#"{"\u0061d_id":"\ud83d\ude00\n\/"}"#), click("😀\n/", NOW.0, None));
}

#[test]
fn borrows_what_has_no_escapes() {
    let read = decode(r#"{"ad_id":"ä-1","click_id":"c"}"#).unwrap();
    assert!(matches!((read.ad_id, read.click_id), (Cow::Borrowed("ä-1"), Some(Cow::Borrowed("c")))));
}

#[test]
fn refuses_with_the_reason() {
    let long = format!(r#"{{"ad_id":"{}"}}"#, "x".repeat(257));
    let deep = format!(r#"{{"ad_id":"a","x":{}1{}}}"#, "[".repeat(129), "]".repeat(129));
    let ahead = format!(r#"{{"ad_id":"a","timestamp":{}}}"#, NOW.0 + 600_001);
    let cases = [
        ("", Refusal::NotAnObject),
        ("[]", Refusal::NotAnObject),
        ("null", Refusal::NotAnObject),
        (r#"{"ad_id":"a"} x"#, Refusal::NotAnObject),
        (r#"{"ad_id":"a""#, Refusal::NotAnObject),
        (r#"{"ad_id":"a",}"#, Refusal::NotAnObject),
        (r#"{"ad_id":"a","x":01}"#, Refusal::NotAnObject),
        (r#"{"ad_id":"a","x":"\u12g4"}"#, Refusal::NotAnObject),
        ("{\"ad_id\":\"a\nb\"}", Refusal::NotAnObject),
        ("\u{feff}{\"ad_id\":\"a\"}", Refusal::NotAnObject),
        ("{}", Refusal::AdIdMissing),
        (r#"{"ad_id":null}"#, Refusal::AdIdMissing),
        (r#"{"ad_id":7}"#, Refusal::AdIdNotAString),
        (r#"{"ad_id":{"ad_id":"a"}}"#, Refusal::AdIdNotAString),
        (r#"{"ad_id":""}"#, Refusal::AdIdEmpty),
        (r#"{"ad_id":"\ud800"}"#, Refusal::AdIdNotUnicode),
        (long.as_str(), Refusal::AdIdTooLong),
        (deep.as_str(), Refusal::TooDeep),
        (r#"{"ad_id":"a","timestamp":true}"#, Refusal::TimestampUnreadable),
        (r#"{"ad_id":"a","timestamp":"yesterday"}"#, Refusal::TimestampUnreadable),
        (r#"{"ad_id":"a","timestamp":1.5}"#, Refusal::TimestampFraction),
        (r#"{"ad_id":"a","timestamp":-1}"#, Refusal::TimestampNegative),
        (r#"{"ad_id":"a","timestamp":"1969-12-31T23:59:59Z"}"#, Refusal::TimestampNegative),
        (r#"{"ad_id":"a","timestamp":99999999999999999999}"#, Refusal::TimestampOutOfRange),
        (ahead.as_str(), Refusal::TimestampAhead),
        (r#"{"ad_id":"a","click_id":1}"#, Refusal::ClickIdNotAString),
        (r#"{"ad_id":"a","click_id":"\udc00"}"#, Refusal::ClickIdNotUnicode),
    ];
    for (value, refusal) in cases {
        assert_eq!(decode(value), Err(refusal), "{value}");
    }
    assert_eq!(decoder().decode(b"{\"ad_id\":\"\xff\"}", NOW), Err(Refusal::NotUtf8));
    assert_eq!(decoder().decode_record(&Record::new(None, None, NOW)), Err(Refusal::NoValue));
    assert_eq!(decoder().decode(br#"{"ad_id":"a"}"#, Timestamp(-1)), Err(Refusal::NoRecordTimestamp));
}

#[test]
fn takes_what_lies_just_within_the_limits() {
    let longest = "x".repeat(256);
    assert_eq!(decode(&format!(r#"{{"ad_id":"{longest}"}}"#)), click(&longest, NOW.0, None));
    assert_eq!(decode(&format!(r#"{{"ad_id":"a","timestamp":{}}}"#, NOW.0 + 600_000)), click("a", NOW.0 + 600_000, None));
    assert!(decode(&format!(r#"{{"ad_id":"a","x":{}1{}}}"#, "[".repeat(128), "]".repeat(128))).is_ok());
}

#[test]
fn fields_and_the_source_of_time_are_configurable() {
    let fields = ClickFields { ad_id: "ad".into(), timestamp: "at".into(), click_id: "id".into() };
    let value = br#"{"ad":"a","at":9,"id":"c","ad_id":1}"#;
    let by_field = ClickDecoder::new(fields.clone(), TimestampSource::Field, Duration::ZERO);
    assert_eq!(by_field.decode(value, NOW), click("a", 9, Some("c")));
    let by_record = ClickDecoder::new(fields, TimestampSource::Record, Duration::ZERO);
    assert_eq!(by_record.decode(value, NOW), click("a", NOW.0, Some("c")));
    assert_eq!(by_record.decode(br#"{"ad":"a","at":[]}"#, NOW), click("a", NOW.0, None));
}

#[test]
fn a_deep_nest_costs_no_stack() {
    let nest = "[".repeat(10_000_000);
    assert_eq!(decode(&format!(r#"{{"ad_id":"a","x":{nest}"#)), Err(Refusal::TooDeep));
    assert_eq!(array_elements(&nest, usize::MAX), Err(JsonError::TooDeep));
}

#[test]
fn an_array_is_split_no_further_than_asked() {
    assert_eq!(array_elements("[1, [2],3 ]", 3), Ok(Some(vec!["1", "[2]", "3"])));
    assert_eq!(array_elements("[1, [2],3 ]", 2), Ok(Some(vec!["1", "[2]", "3"])));
    assert_eq!(array_elements("[1, [2],3 ]", 1), Ok(Some(vec!["1", "[2]"])));
    assert_eq!(array_elements("{}", 1), Ok(None));
}

/// What the codec must say, by way of serde_json. The value of each field as it is spelled, the last one of each name.
fn by_serde(value: &[u8]) -> Option<(String, i64)> {
    let fields: std::collections::HashMap<String, Box<RawValue>> = serde_json::from_slice(value).ok()?;
    let ad_id: String = serde_json::from_str(fields.get("ad_id")?.get()).ok()?;
    let timestamp = match fields.get("timestamp").map(|raw| serde_json::from_str(raw.get())) {
        None | Some(Ok(Json::Null)) => NOW.0,
        Some(Ok(Json::Number(number))) => {
            number.as_i64().or_else(|| number.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64))?
        }
        Some(Ok(Json::String(text))) => {
            text.parse().ok().or_else(|| text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond()))?
        }
        Some(_) => return None,
    };
    if let Some(raw) = fields.get("click_id") {
        serde_json::from_str::<Option<String>>(raw.get()).ok()?;
    }
    let fits = (1..=256).contains(&ad_id.len()) && (0..=NOW.0 + 600_000).contains(&timestamp);
    fits.then_some((ad_id, timestamp))
}

fn agrees(value: &[u8]) -> Result<(), TestCaseError> {
    let read = decoder().decode(value, NOW).ok().map(|click| (click.ad_id.into_owned(), click.timestamp.0));
    prop_assert_eq!(read, by_serde(value), "{}", String::from_utf8_lossy(value));
    Ok(())
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (0..NOW.0 * 2).prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,20}".prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("[a-d\"\\\\]{0,3}", inner), 0..4)
                .prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Json> {
    let name = prop_oneof![Just("ad_id".to_owned()), Just("timestamp".to_owned()), Just("click_id".to_owned()), "\\PC{0,6}"];
    let ad_id = prop_oneof![any_json(), "\\PC{1,30}".prop_map(Json::from)];
    let timestamp = prop_oneof![any_json(), (0..NOW.0).prop_map(|ms| json!(ms)), (0..NOW.0).prop_map(|ms| json!(ms.to_string()))];
    (ad_id, timestamp, prop::collection::vec((name, any_json()), 0..6)).prop_map(|(ad_id, timestamp, rest)| {
        let mut object = json!({"ad_id": ad_id, "timestamp": timestamp});
        object.as_object_mut().unwrap().extend(rest);
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn random_objects_are_read_as_serde_json_reads_them(object in any_object(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
        agrees(&text.unwrap())?;
    }

    #[test]
    fn damaged_objects_are_refused_as_serde_json_refuses_them(
        object in any_object(), at in any::<prop::sample::Index>(), with in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\u0-.eE \n"[..])],
        cut in any::<bool>(),
    ) {
        let mut text = serde_json::to_vec(&object).unwrap();
        let at = at.index(text.len());
        if cut { text.remove(at); } else { text[at] = with; }
        agrees(&text)?;
    }

    #[test]
    fn random_bytes_are_refused_as_serde_json_refuses_them(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        agrees(&bytes)?;
    }

    #[test]
    fn random_tokens_are_read_as_serde_json_reads_them(tokens in prop::collection::vec(prop::sample::select(&[
        "{", "}", "[", "]", ",", ":", "\"ad_id\"", "\"a\"", "\"\\u0041\"", "\"\\uD83D\\uDE00\"", "\"\\uD83D\"", "0", "-", "1e5", "2.5", "null", "true", "\"",
        " ", "\"timestamp\":7", "\"ad_id\":\"a\"", "\"x\":",
    ][..]), 0..12)) {
        agrees(format!("{{{}}}", tokens.concat()).as_bytes())?;
        agrees(tokens.concat().as_bytes())?;
    }

    #[test]
    fn an_array_is_split_as_serde_json_splits_it(elements in prop::collection::vec(any_json(), 0..5), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&elements) } else { serde_json::to_string(&elements) }.unwrap();
        let split: Vec<Json> = array_elements(&text, usize::MAX).unwrap().unwrap().into_iter().map(|e| serde_json::from_str(e).unwrap()).collect();
        let whole: Vec<Json> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn random_text_is_split_only_where_serde_json_would(text in prop_oneof!["\\PC{0,40}", "[\\[\\]{}\",:0-9a\\\\ ]{0,20}"]) {
        let valid = serde_json::from_str::<&RawValue>(&text).is_ok();
        prop_assert_eq!(array_elements(&text, usize::MAX).is_ok(), valid);
    }
}
