//! The service: everything that `clickmill serve` runs in one process, and in which order it starts and stops.

mod appending;
mod click_log;
mod clock;
mod compatibility;
mod drain;
mod embedded;
mod engine;
mod evictions;
mod instance;
mod intake_trouble;
mod kafka;
mod lease;
mod mill;
mod stats;
mod threads;
mod topology;
mod twins;
mod unused_state;
mod waiting;

use std::future::IntoFuture;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use drain::{Drained, Draining, drain};
pub(crate) use topology::closed_topic;
pub use topology::{STORE, ad_clicks};

use crate::click::ClickDecoder;
use crate::config::Config;
use crate::http::{self, HttpOptions};
use crate::metrics::Metrics;
use crate::peers::{Identity, PeerSecret, Peers};
use click_log::ClickLog;
use embedded::EmbeddedLog;
use engine::Engine;
use kafka::KafkaLog;
use mill::EngineMill;
use stats::Totals;
use threads::Threads;
use waiting::Opening;

/// How long requests that are under way may take to end when the service stops.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// How long it may take in all from the signal to the end of the process. What is not committed by then, as where brokers do not answer, is
/// read again by the next start.
const STOP_TIME: Duration = Duration::from_secs(20);

/// How long other instances may take to go on with what they have copies of before this one stops.
const HAND_OVER_TIME: Duration = Duration::from_secs(3);

/// How long what still waits for brokers or disks may take to end where nothing can be lost with it. Then it ends with the process.
const GRACE: Duration = Duration::from_secs(1);

/// A configuration under which the service cannot go on from what it has kept. Nothing was taken in. One line with the way out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(pub(crate) String);

/// Runs the service until it is told to stop (SIGTERM, Ctrl-C), or cannot go on.
///
/// # Errors
/// What kept it from starting, or from going on. A configuration that does not fit is a [`Misconfigured`].
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let ended = match config.kafka {
        None => runtime.block_on(serve::<EmbeddedLog>(config)),
        Some(_) => runtime.block_on(serve::<KafkaLog>(config)),
    };
    runtime.shutdown_timeout(GRACE);
    ended
}

async fn serve<L: ClickLog>(config: Config) -> anyhow::Result<()> {
    allow_many_files();
    let mut signals = StopSignals::catch()?;
    let listen = config.server.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr().context("the listening socket has no address")?;
    let (peer_listener, config) = listen_for_peers::<L>(config).await?;
    let secret = config.server.peer_secret_file.as_deref().map(read_secret).transpose()?;
    let Some(engine) = open::<L>(config, &mut signals).await? else { return Ok(()) };
    let metrics = Arc::new(Metrics::new(Arc::new(Totals(engine.clone()))));
    let endpoint = engine.config.server.advertise.clone().unwrap_or_else(|| address.to_string());
    let mill = Arc::new(EngineMill::new(engine.clone(), endpoint));
    let identity = Identity {
        application_id: engine.config.engine.application_id.clone(),
        instance: engine.instance_id.as_str().into(),
        secret,
    };
    let peers = peer_listener.map(|listener| Peers::start(identity, listener, mill.clone()));
    let threads = engine.start(&metrics).context("cannot start the engine's threads")?;
    let (decoder, options) = (ClickDecoder::from(&engine.config.clicks), HttpOptions::from(&engine.config));
    if let Some(peers) = &peers {
        tokio::spawn(evictions::report_the_dead(peers.events(), engine.registry.clone()));
        tokio::spawn(evictions::report_the_silent(peers.words(), engine.registry.clone()));
        engine.lease.listen(peers.words());
        tokio::spawn(engine.lease.clone().keep_ticking());
    }
    let router = http::router(mill.clone(), peers.clone(), decoder, metrics, options);
    tracing::info!(%address, data = %engine.config.data.dir.display(), partitions = engine.clicks_topic().partitions, "Clickmill is up");

    let telling = tokio::spawn(waiting::tell_until_ready(engine.clone()));
    let (stop_http, http_stopped) = oneshot::channel();
    let mut http = tokio::spawn(serve_http(listener, router, http_stopped));
    let failure = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping: no more clicks are taken in");
            None
        }
        reason = threads.failure() => Some(reason),
        _ = &mut http => Some("the HTTP server has ended by itself".to_owned()),
    };
    let stop_by = Instant::now() + STOP_TIME - GRACE;
    telling.abort();
    tokio::spawn(end_at_once_at(signals));
    if failure.is_none() && L::SHARED {
        hand_over(&engine).await;
    }
    // Intake first, so that what was accepted is all there is; then what is under way; then a last commit.
    mill.close_intake();
    let _ = stop_http.send(());
    if !http.is_finished() && tokio::time::timeout(DRAIN_TIME, http).await.is_err() {
        tracing::warn!("some requests did not end in time and are cut off");
    }
    let failed = stop(threads, &engine, stop_by).await?;
    // Until it has left the group, the others are not to take it for dead.
    drop(peers);
    match failure.or(failed) {
        Some(reason) => Err(anyhow::anyhow!(reason)),
        None => Ok(()),
    }
}

/// Listens for other instances, where there may be any, and writes down how they reach this one.
async fn listen_for_peers<L: ClickLog>(mut config: Config) -> anyhow::Result<(Option<TcpListener>, Config)> {
    if !L::SHARED {
        return Ok((None, config));
    }
    let address = config.server.peer_listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for other instances"))?;
    let found = listener.local_addr().context("the listening socket has no address")?;
    config.server.advertise.get_or_insert_with(|| found.to_string());
    Ok((Some(listener), config))
}

/// The secret in a file.
fn read_secret(file: &Path) -> anyhow::Result<PeerSecret> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read server.peer_secret_file {}", file.display()))?;
    let unusable =
        || Misconfigured(format!("server.peer_secret_file {} holds no secret: one line of visible ASCII", file.display()));
    Ok(PeerSecret::new(&text).ok_or_else(unusable)?)
}

/// Opens the engine; none where a signal came first. Nothing was taken in then, and opening can take minutes: until brokers answer, until
/// transactions of a process before have ended, until RocksDB has read its logs.
async fn open<L: ClickLog>(config: Config, signals: &mut StopSignals) -> anyhow::Result<Option<Arc<Engine<L>>>> {
    let step = Opening::default();
    let opening = tokio::task::spawn_blocking({
        let step = step.clone();
        move || Engine::<L>::open(config, &step)
    });
    tokio::select! {
        opened = opening => Ok(Some(Arc::new(opened.context("opening panicked")??))),
        name = signals.next() => {
            tracing::info!(signal = name, "stopped while it opened: nothing was taken in");
            Ok(None)
        }
        never = step.tell() => never,
    }
}

/// Lets other instances go on with what they can go on with at once, while everything is still answered here.
async fn hand_over<L: ClickLog>(engine: &Engine<L>) {
    engine.registry.hand_over();
    let until = Instant::now() + HAND_OVER_TIME;
    while engine.has_running_tasks() && !engine.registry.has_handed_over() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets the threads commit and end, and gives the reason of the first that has failed. Where no task has run yet there is nothing to
/// commit, and what waits for brokers is not waited for; what has run is waited for until then.
async fn stop<L: ClickLog>(threads: Threads, engine: &Engine<L>, stop_by: Instant) -> anyhow::Result<Option<String>> {
    let has_run = engine.has_running_tasks();
    let nothing_to_commit = async {
        tokio::time::sleep(GRACE).await;
        if has_run || engine.has_running_tasks() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        failed = tokio::task::spawn_blocking(move || threads.stop()) => {
            tracing::info!("stopped");
            failed.context("stopping panicked")
        }
        () = nothing_to_commit => {
            tracing::info!("stopped before a task ran");
            Ok(None)
        }
        () = tokio::time::sleep_until(stop_by) => {
            tracing::warn!(
                "stopped without a last commit, for brokers or disks have not answered in time: what is not committed is read again \
                 by the next start"
            );
            Ok(None)
        }
    }
}

/// Connections are files too, and must not leave RocksDB without any: the usual limit of 1,024 is raised as far as this user may.
fn allow_many_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "how many files may be open"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

/// Whoever asks twice does not want to wait for requests or a last commit: what is not committed is counted at the next start.
async fn end_at_once_at(mut signals: StopSignals) {
    let name = signals.next().await;
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr(), "clickmill: {name} while stopping: ended at once");
    std::process::exit(1);
}

async fn serve_http(listener: TcpListener, router: Router, stopped: oneshot::Receiver<()>) {
    let until_stopped = async {
        let _ = stopped.await;
    };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(until_stopped).into_future().await {
        tracing::error!(%error, "the HTTP server has failed");
    }
}

/// The signals to stop. They are caught, and wait, from the moment that this is made.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn catch() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// Completes at the next of them, with its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
