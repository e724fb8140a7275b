//! A question for counts, answered by this instance alone or by all of them together. Which one is asked for what is for the engine's router to say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream::query::{
    Answer, Ask, Cancellation, Next, PartialCounts, Parts, QueryError, Question, ReadOptions, Request, RequestId, Router,
    RouterLimits,
};
use millstream::record::Partition;
use millstream::task::TaskState;
use tokio::task::JoinSet;

use super::Service;
use super::limits::on_blocking_thread;
use super::problem::Problem;
use crate::peers::Peers;

/// What is left of a request's time to write its answer, at most.
const TO_ANSWER: Duration = Duration::from_secs(1);

/// The answer to a question.
pub(super) async fn answer(service: &Service, question: Question, read: ReadOptions) -> Result<Answer<PartialCounts>, Problem> {
    match service.peers() {
        None => alone(service, question, read).await,
        Some(peers) => together(service, peers, question, read).await,
    }
}

/// Whoever is alone has all there is.
async fn alone(service: &Service, question: Question, read: ReadOptions) -> Result<Answer<PartialCounts>, Problem> {
    let asked = service.clone();
    let is_top = matches!(question, Question::Top { .. });
    let work = move |cancellation: &Cancellation| asked.mill().queries().answer(question, read, cancellation);
    Ok(run(service, is_top, work).await??)
}

/// Runs work on the state, in the turn of its kind.
async fn run<T: Send + 'static>(
    service: &Service,
    is_top: bool,
    work: impl FnOnce(&Cancellation) -> T + Send + 'static,
) -> Result<T, Problem> {
    match is_top {
        true => service.limits().ranking(work).await,
        false => service.limits().query(move || work(&Cancellation::default())).await,
    }
}

/// Why an instance has not answered.
enum Unanswered {
    /// This one could not read its state.
    Here(QueryError),
    /// This one is not able to now.
    Problem(Problem),
    Elsewhere(String),
}

type Came = (RequestId, Result<Parts, Unanswered>);

async fn together(
    service: &Service,
    peers: &Arc<Peers>,
    question: Question,
    read: ReadOptions,
) -> Result<Answer<PartialCounts>, Problem> {
    let began = Instant::now();
    let (mill, options) = (service.mill(), service.options());
    let input = mill.application().store_input;
    let partitions = mill.queries().partitions_for(&question);
    let deadline = options.request_timeout.saturating_sub(TO_ANSWER.min(options.request_timeout / 8));
    let limits = RouterLimits { deadline, failover_wait: options.failover_wait };
    let mut router = Router::new(peers.me().clone(), question.clone(), partitions, read, limits);
    let hedge_after = |instance: &str| peers.hedge_after(instance, &question);
    // Dropping it ends what is under way.
    let (mut coming, mut failure) = (JoinSet::<Came>::new(), None);
    loop {
        let holders = peers.holders(&input, &mill.directory(), || mill.status());
        let Next::Wait { requests, until } = router.next(began.elapsed(), &holders, &hedge_after) else { break };
        for Request { id, instance, ask } in requests {
            let (service, peers) = (service.clone(), peers.clone());
            coming.spawn(async move { (id, ask_one(service, peers, &instance, ask).await) });
        }
        let came = tokio::time::timeout_at((began + until).into(), next_of(&mut coming)).await;
        let Ok((id, outcome)) = came else { continue };
        match outcome {
            Ok(parts) => router.answered(id, parts, began.elapsed()),
            Err(unanswered) => {
                router.failed(id, began.elapsed());
                match unanswered {
                    Unanswered::Elsewhere(reason) => tracing::debug!(reason, "another instance has not answered"),
                    here => failure = Some(here),
                }
            }
        }
    }
    drop(coming);
    let (asked, answers) = (router.asked().to_vec(), router.into_answers());
    let concluded = conclude(service, peers, question, asked, read, answers).await?;
    match (concluded, failure) {
        // What is missing lies here, and cannot be read.
        (Err(QueryError::Incomplete(_)), Some(Unanswered::Here(error))) => Err(error.into()),
        (Err(QueryError::Incomplete(_)), Some(Unanswered::Problem(problem))) => Err(problem),
        (concluded, _) => Ok(concluded?),
    }
}

/// The next answer; never where none is under way.
async fn next_of(coming: &mut JoinSet<Came>) -> Came {
    loop {
        match coming.join_next().await {
            Some(Ok(came)) => return came,
            // It panicked, and says so itself: the router goes on without it.
            Some(Err(error)) => tracing::error!(%error, "asking an instance has failed"),
            None => std::future::pending().await,
        }
    }
}

async fn ask_one(service: Service, peers: Arc<Peers>, instance: &Arc<str>, ask: Ask) -> Result<Parts, Unanswered> {
    if instance != peers.me() {
        return peers.ask(instance, &ask).await.map_err(|error| Unanswered::Elsewhere(error.to_string()));
    }
    let asked = service.clone();
    let is_top = matches!(ask.question, Question::Top { .. });
    let work = move |cancellation: &Cancellation| asked.mill().queries().parts(&ask, cancellation);
    run(&service, is_top, work).await.map_err(Unanswered::Problem)?.map_err(Unanswered::Here)
}

/// Makes one answer of all. The brokers may have to be asked, once.
async fn conclude(
    service: &Service,
    peers: &Arc<Peers>,
    question: Question,
    asked: Vec<Partition>,
    read: ReadOptions,
    answers: Vec<Parts>,
) -> Result<Result<Answer<PartialCounts>, QueryError>, Problem> {
    let (service, peers) = (service.clone(), peers.clone());
    on_blocking_thread(move || {
        let mill = service.mill();
        let mut answer = mill.queries().conclude(&question, &asked, read, answers)?;
        if answer.completeness.trouble.is_none() {
            answer.completeness.trouble = quarantine(&service, &peers, &asked);
        }
        Ok(answer)
    })
    .await
}

/// A task of another instance that an answer waits for, and that is in quarantine.
fn quarantine(service: &Service, peers: &Peers, asked: &[Partition]) -> Option<String> {
    let store_input = service.mill().application().store_input;
    let all = peers.heard();
    let mut quarantined =
        all.iter().filter_map(|(instance, heard)| Some((instance, heard.status.as_ref()?))).flat_map(|(instance, status)| {
            status.tasks.iter().filter(|task| task.state == TaskState::Quarantined).map(move |task| (instance, task))
        });
    // Every source partition has clicks of every ad.
    let (instance, task) =
        quarantined.find(|(_, task)| task.input.topic != store_input || asked.contains(&task.input.partition))?;
    let reason = task.trouble.as_deref().unwrap_or_default();
    Some(format!("task {} of instance {instance} is quarantined: {reason}", task.id))
}
