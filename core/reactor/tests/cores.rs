//! Starting, mailing and stopping cores.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tidemill_reactor::{CoreContext, CoreId, Pending, ReactorOptions, SendError, StartError, chunk_stream, run};

/// Two cores, where the machine has them.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(2))
}

fn options(folder: &tempfile::TempDir) -> ReactorOptions {
    let mut options = ReactorOptions::new(cores(), folder.path());
    options.io_memory_bytes = 1 << 20;
    options.stop_grace = Duration::from_secs(20);
    options
}

#[derive(Debug)]
enum Note {
    Question { token: tidemill_reactor::Token, number: u64 },
    Answer { token: tidemill_reactor::Token, number: u64 },
    Done,
}

/// Every core asks every core (itself too) many more questions than a queue holds; all are answered.
async fn ask_everyone(context: CoreContext<Note>) -> Result<(), tidemill_reactor::CoreError> {
    const QUESTIONS: u64 = 200;
    let pending = Pending::<u64>::new();
    let asker = {
        let (context, pending) = (context.clone(), pending.clone());
        context.clone().spawn(context.queues.latency, "ask", async move {
            let mut answers = Vec::new();
            for number in 0..QUESTIONS {
                for core in 0..context.cores {
                    let (token, answer) = pending.register();
                    context.mail.send_to(CoreId(core as u16), Note::Question { token, number }).await.unwrap();
                    answers.push((number, answer));
                }
            }
            for (number, answer) in answers {
                assert_eq!(answer.await, Ok(number * 2));
            }
            for core in 0..context.cores {
                context.mail.send_to(CoreId(core as u16), Note::Done).await.unwrap();
            }
        })
    };
    let mut done = 0;
    while done < context.cores {
        let (from, note) = context.mail.receive().await.expect("the others have not ended");
        match note {
            Note::Question { token, number } => {
                // Who reads the inbox does not wait for room: what cannot be sent at once is sent by a task.
                let answer = Note::Answer { token, number: number * 2 };
                if let Err(SendError::Full(answer)) = context.mail.try_send_to(from, answer) {
                    let mail = context.mail.clone();
                    let late = async move { mail.send_to(from, answer).await.unwrap() };
                    context.spawn(context.queues.latency, "answer", late).detach();
                }
            }
            Note::Answer { token, number } => assert_eq!(pending.complete(token, number), Ok(())),
            Note::Done => done += 1,
        }
    }
    asker.await;
    let metrics = &context.metrics;
    assert!(metrics.mail_waits.value() > 0, "queues of four mails are full now and then");
    assert!(metrics.mail_sent.value() >= QUESTIONS * 2 * context.cores as u64);
    Ok(())
}

#[test]
fn mail_reaches_every_core_through_full_queues_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder);
    options.mail_capacity = 4;
    run(options, ask_everyone).unwrap();
}

#[test]
fn a_failure_of_one_core_stops_the_others_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let last = CoreId(cores() as u16 - 1);
    let failure = run(options(&folder), move |context: CoreContext<()>| async move {
        if context.core == last {
            return Err("the tide is out".into());
        }
        context.shutdown.requested().await;
        Ok(())
    });
    let failure = failure.unwrap_err();
    assert!(matches!(&failure, StartError::CoreFailed { core, .. } if *core == last), "{failure}");
    assert!(failure.to_string().contains("the tide is out"));
}

#[test]
fn a_panic_in_a_task_of_one_core_stops_the_others_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let last = CoreId(cores() as u16 - 1);
    let failure = run(options(&folder), move |context: CoreContext<()>| async move {
        if context.core == last {
            context.spawn(context.queues.background, "doomed", async { panic!("mill wheel broken") }).await;
        }
        context.shutdown.requested().await;
        Ok(())
    });
    let failure = failure.unwrap_err();
    assert!(
        matches!(&failure, StartError::CorePanicked { core, message } if *core == last && message == "mill wheel broken"),
        "{failure}"
    );
}

#[test]
fn a_core_that_does_not_stop_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder);
    options.cores = 1;
    options.stop_grace = Duration::from_millis(100);
    let failure = run(options, |context: CoreContext<()>| async move {
        context.shutdown.request();
        std::future::pending::<()>().await;
        Ok(())
    });
    assert!(matches!(failure, Err(StartError::StopTimedOut { cores }) if cores == [CoreId(0)]));
}

#[test]
fn a_second_server_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_path_buf();
    let mut options = options(&folder);
    options.cores = 1;
    let again = options.clone();
    run(options, move |_: CoreContext<()>| {
        let again = again.clone();
        let path = path.clone();
        async move {
            let refused = std::thread::spawn(move || run(again, |_: CoreContext<()>| async { Ok(()) })).join().unwrap();
            let refused = refused.unwrap_err();
            assert!(matches!(&refused, StartError::DataFolderInUse { .. }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains(&std::process::id().to_string()) && text.contains(path.to_str().unwrap()), "{text}");
            Ok(())
        }
    })
    .unwrap();
}

#[test]
fn too_many_cores_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for cores in [0, 10_000] {
        let refused =
            run(ReactorOptions::new(cores, folder.path()), |_: CoreContext<()>| async { Ok(()) }).unwrap_err();
        assert!(refused.to_string().starts_with(&format!("--cores {cores} ")), "{refused}");
    }
}

#[test]
fn every_core_sees_a_stop_that_one_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let stopped = Arc::new(AtomicUsize::new(0));
    let count = stopped.clone();
    run(options(&folder), move |context: CoreContext<()>| {
        let count = count.clone();
        async move {
            if context.core == CoreId(0) {
                context.sleep(Duration::from_millis(5)).await;
                context.shutdown.request();
            }
            context.shutdown.requested().await;
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    })
    .unwrap();
    assert_eq!(stopped.load(Ordering::Relaxed), cores());
}

enum Job {
    Produce(tidemill_reactor::ChunkProducerEnd<u64>),
    Stop,
}

/// Core 0 pulls streams that the last core produces; one is read to its end, one is given up in the middle.
async fn pull_streams(context: CoreContext<Job>) -> Result<(), tidemill_reactor::CoreError> {
    const CHUNKS: u64 = 1_000;
    let worker = CoreId(context.cores as u16 - 1);
    let consumer = (context.core == CoreId(0)).then(|| {
        let context = context.clone();
        context.clone().spawn(context.queues.query, "consume", async move {
            let (producer, consumer) = chunk_stream(4);
            context.mail.send_to(worker, Job::Produce(producer)).await.ok().unwrap();
            let consumer = consumer.arrive().await;
            for expected in 0..CHUNKS {
                assert_eq!(consumer.next().await, Some(expected));
            }
            assert_eq!(consumer.next().await, None);

            let (producer, consumer) = chunk_stream(4);
            context.mail.send_to(worker, Job::Produce(producer)).await.ok().unwrap();
            let consumer = consumer.arrive().await;
            assert_eq!(consumer.next().await, Some(0));
            drop(consumer);

            let (producer, consumer) = chunk_stream::<u64>(4);
            drop(producer);
            assert_eq!(consumer.arrive().await.next().await, None, "a job that is lost ends its stream");
            for core in 0..context.cores {
                context.mail.send_to(CoreId(core as u16), Job::Stop).await.ok().unwrap();
            }
        })
    });
    let mut producers = Vec::new();
    while let Some((_, Job::Produce(end))) = context.mail.receive().await {
        let metrics = context.metrics.clone();
        producers.push(context.spawn(context.queues.query, "produce", async move {
            let producer = end.arrive(&metrics).await;
            for chunk in 0..CHUNKS {
                if producer.send(chunk).await.is_err() {
                    return chunk;
                }
            }
            CHUNKS
        }));
    }
    if context.core == worker {
        let (first, second) = (producers.remove(0).await, producers.remove(0).await);
        assert_eq!(first, CHUNKS);
        assert!(second < CHUNKS, "a producer whose consumer is gone stops");
    }
    if let Some(consumer) = consumer {
        consumer.await;
    }
    Ok(())
}

#[test]
fn streams_are_pulled_in_order_and_end_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    run(options(&folder), pull_streams).unwrap();
}

#[test]
fn streams_work_within_one_core() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&folder);
    options.cores = 1;
    run(options, pull_streams).unwrap();
}
