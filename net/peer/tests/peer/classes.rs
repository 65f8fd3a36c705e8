//! Messages, heartbeats, requests, files: what is sent is what arrives.

use crate::harness::{options, pair, pattern, pause, peer, run, until};
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;
use tidemill_peer::{Options, SendError, StreamError};

#[test]
fn messages_of_a_group_arrive_in_order_and_once() {
    run(|| async {
        let (one, two) = pair(options()).await;
        for number in 0..500u64 {
            let length = [0, 10, 5_000, 100_000][number as usize % 4];
            one.peers.send_when_room(two.id, number % 7, pattern(number, length)).await.unwrap();
        }
        let mut next = [0, 1, 2, 3, 4, 5, 6];
        for _ in 0..500 {
            let message = two.message().await;
            let number = next[message.group as usize];
            next[message.group as usize] += 7;
            assert_eq!(message.from, one.id);
            assert_eq!(message.payload, pattern(number, [0, 10, 5_000, 100_000][number as usize % 4]));
        }
        pause(20).await;
        assert!(two.seen.messages.borrow().is_empty());
        let metrics = two.peers.metrics();
        assert_eq!((metrics.messages_received, metrics.inbox_bytes, metrics.violations), (500, 0, 0));
        one.peers.close().await;
        two.peers.close().await;
    });
}

#[test]
fn heartbeats_of_many_groups_are_one_message_and_the_newest_wins() {
    run(|| async {
        let (one, two) = pair(options()).await;
        for round in 0..3u8 {
            for group in 0..1000 {
                one.peers.send_heartbeat(two.id, group, Bytes::from(vec![round; 8])).unwrap();
            }
        }
        until("heartbeats", || two.seen.beats.borrow().iter().map(Vec::len).sum::<usize>() >= 1000).await;
        let beats = two.seen.beats.borrow();
        assert_eq!(beats.len(), 1);
        assert!(beats[0].iter().enumerate().all(|(at, (group, payload))| *group == at as u64 && payload == &[2; 8]));
        assert_eq!(one.peers.send_heartbeat(two.id, 1, Bytes::from(vec![0; 2000])), Err(SendError::TooLong));
        assert_eq!(one.peers.metrics().heartbeat_messages_sent, 1);
    });
}

#[test]
fn a_full_queue_refuses_and_a_full_inbox_stops_the_sender() {
    run(|| async {
        let options = Options {
            raft_queue_bytes_max: 256 << 10,
            inbox_bytes_max: 128 << 10,
            stream_window_bytes: 64 << 10,
            raft_lanes: 1,
            ..options()
        };
        let (one, two) = pair(options).await;
        let mut sent = 0u64;
        let mut refused = 0;
        // The receiver holds on to everything, so that this must come to an end: inbox, window, queue.
        while refused < 200 {
            match one.peers.send(two.id, 5, pattern(sent, 8 << 10)) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => {
                    refused += 1;
                    pause(1).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!(sent * (8 << 10) < 640 << 10, "{sent} messages of 8 KiB were taken");
        assert!(two.peers.metrics().inbox_bytes < (128 << 10) + (80 << 10));
        assert_eq!(one.peers.send(two.id, 5, pattern(0, 17 << 20)), Err(SendError::TooLong));
        let waiting = glommio::spawn_local({
            let (peers, to) = (one.peers.clone(), two.id);
            async move { peers.send_when_room(to, 5, pattern(sent, 8 << 10)).await }
        });
        for number in 0..=sent {
            assert_eq!(two.message().await.payload, pattern(number, 8 << 10), "message {number}");
        }
        waiting.await.unwrap();
        assert_eq!(two.peers.metrics().inbox_bytes, 0);
    });
}

#[test]
fn requests_are_answered_in_pieces() {
    run(|| async {
        let (one, two) = pair(options()).await;
        let mut request = one.peers.request(two.id, 3, Bytes::from_static(b"how many?")).await.unwrap();
        let inquiry = two.inquiry().await;
        assert_eq!((inquiry.from, inquiry.group, &inquiry.payload[..]), (one.id, 3, &b"how many?"[..]));
        glommio::spawn_local(async move {
            for number in 0..40 {
                inquiry.reply(pattern(number, 300_000)).await.unwrap();
            }
            inquiry.finish_with(Bytes::from_static(b"that is all")).await.unwrap();
        })
        .detach();
        for number in 0..40 {
            assert_eq!(request.next().await.unwrap().unwrap(), pattern(number, 300_000), "piece {number}");
        }
        assert_eq!(request.next().await, Ok(Some(Bytes::from_static(b"that is all"))));
        assert_eq!(request.next().await, Ok(None));
        assert_eq!(request.next().await, Ok(None));
    });
}

#[test]
fn more_requests_than_are_allowed_wait_for_their_turn() {
    run(|| async {
        let (one, two) = pair(Options { requests_max: 4, ..options() }).await;
        let done = Rc::new(Cell::new(0));
        for number in 0..30u64 {
            let (peers, to, done) = (one.peers.clone(), two.id, done.clone());
            glommio::spawn_local(async move {
                let mut request = peers.request(to, number, Bytes::from(number.to_string())).await.unwrap();
                assert_eq!(request.next().await, Ok(Some(Bytes::from(number.to_string()))));
                assert_eq!(request.next().await, Ok(None));
                done.set(done.get() + 1);
            })
            .detach();
        }
        until("four requests", || two.seen.inquiries.borrow().len() == 4).await;
        pause(30).await;
        assert_eq!(two.seen.inquiries.borrow().len(), 4);
        while done.get() < 30 {
            let Some(inquiry) = two.seen.inquiries.borrow_mut().pop_front() else {
                pause(1).await;
                continue;
            };
            let payload = inquiry.payload.clone();
            inquiry.finish_with(payload).await.unwrap();
        }
    });
}

#[test]
fn either_side_may_give_up_a_request() {
    run(|| async {
        let (one, two) = pair(options()).await;
        // The asking side: the answering one learns of it, while it waits and when it replies.
        let request = one.peers.request(two.id, 0, Bytes::new()).await.unwrap();
        let inquiry = two.inquiry().await;
        drop(request);
        inquiry.given_up().await;
        assert_eq!(inquiry.reply(Bytes::from_static(b"late")).await, Err(StreamError::GivenUp));
        drop(inquiry);
        // The answering side, at once and in the midst of its answer.
        for pieces in [0u64, 2] {
            let mut request = one.peers.request(two.id, 0, Bytes::new()).await.unwrap();
            let inquiry = two.inquiry().await;
            for number in 0..pieces {
                inquiry.reply(pattern(number, 100)).await.unwrap();
                assert_eq!(request.next().await, Ok(Some(pattern(number, 100))));
            }
            drop(inquiry);
            assert_eq!(request.next().await, Err(StreamError::GivenUp));
        }
        // A connection that goes away is an error, never the end of an answer.
        let mut request = one.peers.request(two.id, 0, Bytes::new()).await.unwrap();
        let inquiry = two.inquiry().await;
        inquiry.reply(Bytes::from_static(b"half")).await.unwrap();
        assert_eq!(request.next().await, Ok(Some(Bytes::from_static(b"half"))));
        two.peers.close().await;
        assert_eq!(request.next().await, Err(StreamError::Lost));
        assert_eq!(one.peers.request(peer(9), 0, Bytes::new()).await.err(), Some(SendError::NotConnected));
    });
}

async fn receive(two: &crate::harness::Node, block_bytes: usize) -> Result<(Bytes, Vec<u8>), StreamError> {
    let mut file = two.file().await;
    let mut all = Vec::new();
    let mut block = vec![0; block_bytes];
    loop {
        let filled = file.fill(&mut block).await?;
        all.extend_from_slice(&block[..filled]);
        if filled < block.len() {
            assert_eq!(file.fill(&mut block).await, Ok(0), "after the end");
            return Ok((file.description.clone(), all));
        }
    }
}

#[test]
fn files_arrive_whole_with_one_copy() {
    run(|| async {
        let (one, two) = pair(options()).await;
        let mut expected = 0;
        for (number, length) in [0usize, 1, 4096, 65_536, 1 << 20, 9_000_001].into_iter().enumerate() {
            let content = pattern(number as u64, length);
            let mut sender = one.peers.send_file(two.id, 8, b"file", length as u64).await.unwrap();
            let sending = glommio::spawn_local({
                let content = content.clone();
                async move {
                    for at in (0..length).step_by(256 << 10) {
                        sender.write(content.slice(at..(at + (256 << 10)).min(length))).await?;
                    }
                    sender.finish().await
                }
            });
            let (description, received) = receive(&two, 64 << 10).await.unwrap();
            assert_eq!(&description[..], b"file");
            assert!(received == content, "file of {length} bytes");
            sending.await.unwrap();
            expected += length as u64;
        }
        let (sent, received) = (one.peers.metrics(), two.peers.metrics());
        assert_eq!((sent.file_bytes_sent, received.file_bytes_received), (expected, expected));
        // Payload of files is copied once, by the receiver.
        assert_eq!((sent.file_bytes_copied_out, received.file_bytes_copied_in), (0, expected));
        // Descriptions, checksums and Hello are copied too.
        assert!(sent.bytes_copied_out < 1000, "{}", sent.bytes_copied_out);
        assert!(received.bytes_copied_in - expected < 1000, "{}", received.bytes_copied_in - expected);
    });
}

#[test]
fn a_file_that_is_given_up_is_never_whole() {
    run(|| async {
        let (one, two) = pair(options()).await;
        // The sender gives up.
        let mut sender = one.peers.send_file(two.id, 0, b"", 1 << 20).await.unwrap();
        sender.write(pattern(1, 1000)).await.unwrap();
        pause(20).await;
        drop(sender);
        assert_eq!(receive(&two, 4096).await, Err(StreamError::GivenUp));
        // It may not end early nor late.
        let mut sender = one.peers.send_file(two.id, 0, b"", 1000).await.unwrap();
        assert_eq!(sender.write(pattern(1, 1001)).await, Err(StreamError::Length));
        pause(20).await;
        assert_eq!(sender.finish().await, Err(StreamError::Truncated));
        assert_eq!(receive(&two, 4096).await, Err(StreamError::GivenUp));
        // The receiver refuses.
        let mut sender = one.peers.send_file(two.id, 0, b"", 1 << 30).await.unwrap();
        drop(two.file().await);
        let mut written = 0;
        let error = loop {
            match sender.write(pattern(2, 1 << 20)).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, StreamError::GivenUp);
        assert!(written < 64);
    });
}

#[test]
fn a_file_that_is_not_read_does_not_hold_up_messages() {
    run(|| async {
        let (one, two) = pair(Options { stream_window_bytes: 256 << 10, ..options() }).await;
        let mut senders = Vec::new();
        for _ in 0..4 {
            let mut sender = one.peers.send_file(two.id, 0, b"", 64 << 20).await.unwrap();
            senders.push(glommio::spawn_local(async move {
                for number in 0..64 {
                    if sender.write(pattern(number, 1 << 20)).await.is_err() {
                        return;
                    }
                }
            }));
        }
        until("files", || two.seen.files.borrow().len() == 4).await;
        for number in 0..200 {
            one.peers.send_when_room(two.id, number, pattern(number, 10_000)).await.unwrap();
        }
        for _ in 0..200 {
            two.message().await;
        }
        let queued = one.peers.metrics().send_queue_bytes;
        assert!(queued <= 4 * (5 << 20), "{queued}");
        for sender in senders {
            sender.cancel().await;
        }
    });
}
