//! How long a click takes from JSON bytes to its fields: `cargo bench --workspace --bench click`.

use std::hint::black_box;
use std::time::Duration;

use clickmill::click::{ClickDecoder, ClickFields, TimestampSource};
use millstream::record::Timestamp;

fn main() {
    divan::main();
}

const NOW: Timestamp = Timestamp(1_767_225_600_000);

fn bench(bencher: divan::Bencher<'_, '_>, value: &'static [u8]) {
    let decoder = ClickDecoder::new(ClickFields::default(), TimestampSource::Field, Duration::from_secs(600));
    assert!(decoder.decode(value, NOW).is_ok());
    let bencher = bencher.counter(divan::counter::BytesCount::new(value.len())).counter(divan::counter::ItemsCount::new(1u32));
    bencher.bench_local(|| decoder.decode(black_box(value), NOW).is_ok());
}

#[divan::bench]
fn of_80_bytes(bencher: divan::Bencher<'_, '_>) {
    bench(bencher, br#"{"ad_id":"ad-123456","timestamp":1767225599123,"click_id":"0f8fad5b-d9cb-469f"}"#);
}

#[divan::bench]
fn of_200_bytes(bencher: divan::Bencher<'_, '_>) {
    bench(
        bencher,
        br#"{"ad_id":"ad-123456","timestamp":1767225599123,"click_id":"0f8fad5b-d9cb-469f-a165-70867728950e","campaign":4711,"user":"u-99120","country":"DE","device":"mobile","price":0.125,"page":"/a/b?c=1","x":1}"#,
    );
}

#[divan::bench]
fn of_200_bytes_with_rfc_3339(bencher: divan::Bencher<'_, '_>) {
    bench(
        bencher,
        br#"{"ad_id":"ad-123456","timestamp":"2025-12-31T23:59:59.123Z","click_id":"0f8fad5b-d9cb-469f-a165-7086772895","campaign":4711,"user":"u-99120","country":"DE","device":"mobile","price":0.125,"page":"/a"}"#,
    );
}
