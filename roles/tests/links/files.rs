//! Files of partitions between nodes.

use crate::harness::{FOLDER, pair, pattern, pause, run, until};
use std::rc::Rc;
use tidemill::{
    links::{Links, read_file},
    replica::FilePart,
};
use tidemill_disk::{
    BLOCK_BYTES, Disk, DiskFile, Purpose, WriteBehind,
    sim::{Fault, Operation, SimDisk},
};
use tidemill_raft::{GroupId, NodeId};

const GROUP: GroupId = GroupId(4);
const PIECE: usize = 512 << 10;

async fn fetch(links: &Rc<Links>, name: &str, size: u64) -> Result<Vec<u8>, String> {
    fetch_part(links, FilePart::head(name, size)).await
}

async fn fetch_part(links: &Rc<Links>, part: FilePart) -> Result<Vec<u8>, String> {
    let mut inflow = links.sources().open(NodeId(2), GROUP, part).await?;
    let mut bytes = Vec::new();
    loop {
        let mut block = vec![0; PIECE];
        let count = inflow.fill(&mut block).await?;
        bytes.extend_from_slice(&block[..count]);
        if count < PIECE {
            break;
        }
    }
    assert_eq!(inflow.fill(&mut [0; 9]).await, Ok(0), "the end stays the end");
    Ok(bytes)
}

#[test]
fn files_of_all_lengths_arrive_whole() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        for length in [0, 1, 4096, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 7 * PIECE + 77] {
            let content = pattern(length as u64, length);
            let name = format!("g3/{length}.tsm");
            two.seen.disk.plant(&format!("{FOLDER}/{name}"), content.to_vec());
            let fetched = fetch(&one.links, &name, length as u64).await;
            assert!(fetched.as_ref() == Ok(&content.to_vec()), "{length} bytes: {:?}", fetched.err());
        }
        // A file that has grown meanwhile: what was promised of it.
        two.seen.disk.plant(&format!("{FOLDER}/longer"), pattern(1, PIECE + 50).to_vec());
        assert!(fetch(&one.links, "longer", PIECE as u64).await.unwrap() == pattern(1, PIECE));
        assert_eq!((one.links.metrics().files_asked, two.links.metrics().files_refused), (9, 0));
    });
}

#[test]
fn parts_of_files_begin_and_end_at_any_byte() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let content = pattern(5, 3 * PIECE + 100);
        two.seen.disk.plant(&format!("{FOLDER}/f"), content.to_vec());
        let size = content.len();
        for (start, end) in [(0, 0), (size, size), (1, 2), (4095, 4097), (PIECE - 1, 2 * PIECE + 1), (size - 1, size)] {
            let part = FilePart { name: "f".into(), offset: start as u64, length: (end - start) as u64 };
            let fetched = fetch_part(&one.links, part).await.unwrap();
            assert!(fetched == content[start..end], "{start}..{end}");
        }
    });
}

#[test]
fn a_file_is_copied_once_on_its_way_by_the_receiver() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let content = pattern(5, 6 * PIECE + 100);
        let size = content.len() as u64;
        two.seen.disk.plant(&format!("{FOLDER}/f"), content.to_vec());
        let to = SimDisk::new(9);
        let file = Rc::new(to.create("f", Purpose::Data).await.unwrap());
        let mut inflow = one.links.sources().open(NodeId(2), GROUP, FilePart::head("f", size)).await.unwrap();
        let mut writing = WriteBehind::new(file.clone(), 0, PIECE, 2);
        loop {
            let count = inflow.fill(writing.room()).await.unwrap();
            writing.advance(count).await.unwrap();
            if count < PIECE {
                break;
            }
        }
        writing.flush().await.unwrap();
        file.set_len(size).await.unwrap();
        assert!(to.content("f").unwrap() == content);
        let (sent, received) = (two.links.metrics().peer.unwrap(), one.links.metrics().peer.unwrap());
        assert_eq!((sent.file_bytes_sent, sent.file_bytes_copied_out), (size, 0));
        assert_eq!((received.file_bytes_received, received.file_bytes_copied_in), (size, size));
    });
}

#[test]
fn what_is_sent_stands_where_it_was_read_to() {
    run(|| async {
        let disk = SimDisk::new(1);
        disk.plant(&format!("{FOLDER}/f"), pattern(5, 3 * PIECE).to_vec());
        let mut pieces = read_file(disk, FOLDER.into(), FilePart::head("f", 3 * PIECE as u64)).await.unwrap();
        let mut held = Vec::new();
        while let Some(piece) = pieces.next().await.unwrap() {
            // Only memory of the disk begins on a block, piece after piece.
            assert_eq!(piece.as_ptr() as usize % BLOCK_BYTES, 0);
            held.push(piece);
        }
        assert_eq!(held.concat(), pattern(5, 3 * PIECE));
    });
}

#[test]
fn several_files_arrive_at_a_time() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let names: Vec<String> = (0..12).map(|number| format!("f{number}")).collect();
        for (seed, name) in names.iter().enumerate() {
            two.seen.disk.plant(&format!("{FOLDER}/{name}"), pattern(seed as u64, 3 * PIECE + seed).to_vec());
        }
        let fetching: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(seed, name)| {
                let (links, name) = (one.links.clone(), name.clone());
                glommio::spawn_local(async move { fetch(&links, &name, (3 * PIECE + seed) as u64).await })
            })
            .collect();
        for (seed, fetching) in fetching.into_iter().enumerate() {
            assert!(fetching.await.unwrap() == pattern(seed as u64, 3 * PIECE + seed), "file {seed}");
        }
    });
}

#[test]
fn bad_names_and_files_that_are_not_there_are_refused_with_the_reason() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.disk.plant("secret", b"key".to_vec());
        two.seen.disk.plant(&format!("{FOLDER}/short"), b"1234".to_vec());
        for name in ["../secret", "/secret", "g1/../../secret", ".hidden", "", "a/b/c"] {
            let refused = fetch(&one.links, name, 3).await.unwrap_err();
            assert!(refused.contains("is not the name of a file"), "{name:?}: {refused}");
        }
        let refused = fetch(&one.links, "short", 5).await.unwrap_err();
        assert!(refused.contains("4 bytes, not 5"), "{refused}");
        assert!(fetch(&one.links, "missing", 5).await.is_err());
        assert!(one.links.sources().open(NodeId(7), GROUP, FilePart::head("short", 4)).await.is_err());
        for (offset, length) in [(4, 1), (u64::MAX, 1), (2, u64::MAX - 1)] {
            let part = FilePart { name: "short".into(), offset, length };
            assert!(fetch_part(&one.links, part).await.is_err(), "{length} bytes from {offset}");
        }
        assert_eq!((two.links.metrics().files_refused, two.links.metrics().files_sent), (11, 0));
        assert_eq!(fetch(&one.links, "short", 4).await.unwrap(), b"1234");
    });
}

#[test]
fn a_file_that_breaks_off_is_an_error_and_never_short() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        two.seen.disk.plant(&format!("{FOLDER}/f"), pattern(6, 9 * PIECE).to_vec());
        two.seen.disk.fail_at(Some(Operation::Read), 6, Fault::Eio);
        let broken = fetch(&one.links, "f", 9 * PIECE as u64).await.unwrap_err();
        assert!(!broken.is_empty());
        // The other node ends in the midst of it.
        let part = FilePart::head("f", 9 * PIECE as u64);
        let mut inflow = one.links.sources().open(NodeId(2), GROUP, part).await.unwrap();
        let mut block = vec![0; PIECE];
        assert_eq!(inflow.fill(&mut block).await, Ok(PIECE));
        two.links.close().await;
        let mut got = PIECE;
        let broken = loop {
            match inflow.fill(&mut block).await {
                Ok(PIECE) => got += PIECE,
                Ok(count) => break (got + count < 9 * PIECE).then(String::new),
                Err(why) => break Some(why),
            }
        };
        assert!(broken.is_some() || got == 9 * PIECE, "{got} bytes were taken for the whole file");
    });
}

#[test]
fn a_file_that_nobody_takes_waits_and_is_given_up_with_its_reader() {
    run(|| async {
        let (_, one, two) = pair(GROUP).await;
        let size = 128 * PIECE;
        two.seen.disk.plant(&format!("{FOLDER}/f"), pattern(6, size).to_vec());
        let inflow = one.links.sources().open(NodeId(2), GROUP, FilePart::head("f", size as u64)).await.unwrap();
        let reads = || two.seen.disk.operations(Operation::Read);
        until("reading", || reads() > 0).await;
        let mut before = 0;
        while before < reads() {
            before = reads();
            pause(100).await;
        }
        // A stream's queue and its window.
        assert!(before < 60, "{before} pieces were read for nobody");
        drop(inflow);
        // Its place is free again.
        two.seen.disk.plant(&format!("{FOLDER}/g"), b"next".to_vec());
        for _ in 0..8 {
            assert_eq!(fetch(&one.links, "g", 4).await.unwrap(), b"next");
        }
    });
}
