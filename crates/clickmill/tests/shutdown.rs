//! SIGTERM and Ctrl-C under load: the service ends soon, with status 0, and every click was either counted or refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod service;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use service::{Service, pause};

const CLIENTS: u32 = 4;
const CLICKS_IN_A_REQUEST: u64 = 20;
const LONGEST: Duration = Duration::from_secs(8);

/// What one client has sent, by the answer.
#[derive(Default)]
struct Sent {
    acknowledged: u64,
    refused: u64,
    unanswered: Vec<String>,
}

#[test]
fn a_service_told_to_stop_ends_soon_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::new(dir.path(), "");
    service.start_and_wait();
    let mut expected = 0;
    for (round, signal) in ["TERM", "INT", "TERM"].into_iter().enumerate() {
        let (clients, took) = stop_under_load(&mut service, round, signal);
        let sum = |of: fn(&Sent) -> u64| clients.iter().map(of).sum::<u64>();
        let (acknowledged, refused) = (sum(|sent| sent.acknowledged), sum(|sent| sent.refused));
        let unanswered: Vec<&String> = clients.iter().flat_map(|sent| &sent.unanswered).collect();
        println!(
            "SIG{signal}: ended after {took:?}; requests acknowledged {acknowledged}, refused {refused}, unanswered {}",
            unanswered.len()
        );
        assert!(took < LONGEST, "SIG{signal} took {took:?}");
        assert!(acknowledged > 0);
        service.start_and_wait();
        service.wait_until_counted();
        let counted = total(&service);
        let acknowledged_at_least = expected + acknowledged * CLICKS_IN_A_REQUEST;
        let at_most = acknowledged_at_least + unanswered.len() as u64 * CLICKS_IN_A_REQUEST;
        assert!((acknowledged_at_least..=at_most).contains(&counted), "{acknowledged_at_least} ..= {at_most}, counted {counted}");
        // Whoever got no answer sends the same again, and then all is there once.
        for key in unanswered {
            assert_eq!(service.post(&clicks(), Some(key)).unwrap().status, 202);
        }
        service.wait_until_counted();
        assert_eq!(total(&service), at_most);
        expected = at_most;
    }
}

/// Stops the service while clients send, and gives what they have sent and how long the end took.
fn stop_under_load(service: &mut Service, round: usize, signal: &str) -> (Vec<Sent>, Duration) {
    let over = AtomicBool::new(false);
    let (sent, began) = std::thread::scope(|scope| {
        let (service, over) = (&*service, &over);
        let client = |number| scope.spawn(move || send(service, &format!("{round}-{number}"), over));
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        pause(Duration::from_millis(700));
        let began = Instant::now();
        service.signal(signal);
        while service.try_get("/healthz").is_some() && began.elapsed() < LONGEST {
            pause(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
        (clients.into_iter().map(|client| client.join().unwrap()).collect(), began)
    });
    let status = service.wait_for_end();
    assert_eq!(status.code(), Some(0), "{}", service.log());
    (sent, began.elapsed())
}

/// Sends until the service is gone.
fn send(service: &Service, client: &str, over: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    for number in 0.. {
        let key = format!("{client}-{number}");
        match service.post(&clicks(), Some(&key)) {
            Some(answer) if answer.status == 202 => sent.acknowledged += 1,
            Some(answer) => {
                assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{}", answer.json);
                sent.refused += 1;
            }
            None => sent.unanswered.push(key),
        }
        if over.load(Ordering::Relaxed) || sent.unanswered.len() == 3 {
            break;
        }
    }
    sent
}

fn clicks() -> String {
    (0..CLICKS_IN_A_REQUEST).map(|number| format!("{{\"ad_id\": \"ad-{number}\"}}\n")).collect()
}

fn total(service: &Service) -> u64 {
    service.query("/v1/clicks?from=-1h&to=now")["clicks"].as_u64().unwrap()
}
