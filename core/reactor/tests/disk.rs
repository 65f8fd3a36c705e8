//! The real disk, as storage code uses it.

use std::{io, rc::Rc};
use tidemill_disk::{BLOCK_BYTES, Disk, DiskFile, Purpose, ReadAhead, WriteBehind};
use tidemill_reactor::{CoreContext, CoreError, ReactorOptions, StartError, run};

/// Runs one core on a fresh folder.
fn on_one_core<F, Fut>(change: impl FnOnce(&mut ReactorOptions), main: F) -> Result<(), StartError>
where
    F: Fn(CoreContext<()>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), CoreError>> + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    let mut options = ReactorOptions::new(1, folder.path());
    change(&mut options);
    run(options, main)
}

async fn write_and_read_back(context: &CoreContext<()>, name: &str, purpose: Purpose) -> Result<(), CoreError> {
    let disk = &context.disk;
    let file = disk.create(name, purpose).await?;
    assert_eq!(file.len().await?, 0);
    for block in 0..4u8 {
        let mut buf = file.alloc(2 * BLOCK_BYTES);
        buf.as_mut().fill(block + 1);
        let offset = u64::from(block) * 2 * BLOCK_BYTES as u64;
        let back =
            if block % 2 == 0 { file.write_at(buf, offset).await? } else { file.write_durable(buf, offset).await? };
        assert_eq!(back.as_ref(), vec![block + 1; 2 * BLOCK_BYTES], "the buffer comes back as it was written");
    }
    file.sync_data().await?;
    file.set_len(7 * BLOCK_BYTES as u64 + 100).await?;
    assert_eq!(file.len().await?, 7 * BLOCK_BYTES as u64 + 100);
    file.close().await?;

    let file = disk.open(name, purpose).await?;
    let mut middle = file.read_at(BLOCK_BYTES as u64, 2 * BLOCK_BYTES).await?;
    let expected = [vec![1; BLOCK_BYTES], vec![2; BLOCK_BYTES]].concat();
    assert_eq!(middle.as_ref(), expected);
    middle.as_mut()[0] = 99;
    assert_eq!((middle.as_ref()[0], middle.as_ref()[1]), (99, 1), "a read buffer can be written");
    let end = file.read_at(6 * BLOCK_BYTES as u64, 8 * BLOCK_BYTES).await?;
    assert_eq!(end.as_ref(), vec![4; BLOCK_BYTES + 100], "the end of the file cuts the read");
    assert!(file.read_at(64 * BLOCK_BYTES as u64, BLOCK_BYTES).await?.as_ref().is_empty());
    // What was read can be written as it is, which is how blocks are copied between files.
    let copy = disk.create(&format!("{name}.copy"), purpose).await?;
    let block = file.read_at(2 * BLOCK_BYTES as u64, BLOCK_BYTES).await?;
    copy.write_at(block, 0).await?;
    assert_eq!(copy.read_at(0, BLOCK_BYTES).await?.as_ref(), vec![2; BLOCK_BYTES]);
    copy.close().await?;
    file.close().await?;
    Ok(())
}

/// What files do between nodes: read ahead and written behind, by the executor's own buffers and without a copy but the
/// caller's.
async fn read_ahead_and_write_behind(context: &CoreContext<()>) -> Result<(), CoreError> {
    const PIECE: usize = 64 << 10;
    let length = 40 * PIECE + 77;
    let file = Rc::new(context.disk.create("behind", Purpose::Data).await?);
    let mut writing = WriteBehind::new(file.clone(), 0, PIECE, 3);
    let mut left = length;
    let mut byte = 0u8;
    while left > 0 {
        let room = writing.room();
        let count = room.len().min(left);
        byte = byte.wrapping_add(1);
        room[..count].fill(byte);
        writing.advance(count).await?;
        left -= count;
    }
    writing.flush().await?;
    drop(writing);
    file.set_len(length as u64).await?;
    file.sync_data().await?;
    let mut reading = ReadAhead::new(file, 0..length as u64, PIECE, 4);
    let (mut read, mut byte) = (0, 0u8);
    while let Some((buffer, bytes)) = reading.next().await? {
        byte = byte.wrapping_add(1);
        assert!(buffer.as_ref()[bytes.clone()].iter().all(|found| *found == byte), "at {read}");
        read += bytes.len();
    }
    assert_eq!(read, length);
    assert_eq!(context.metrics.buffer_bytes_copied.value(), 0);
    Ok(())
}

#[test]
fn files_are_read_ahead_and_written_behind_without_a_copy() {
    on_one_core(|_| (), |context| async move { read_ahead_and_write_behind(&context).await }).unwrap();
}

/// A commit writes the filled part of a buffer and gets the whole buffer back.
async fn write_prefixes(context: &CoreContext<()>, name: &str, purpose: Purpose) -> Result<(), CoreError> {
    let file = context.disk.create(name, purpose).await?;
    let mut buf = file.alloc(4 * BLOCK_BYTES);
    buf.as_mut().fill(7);
    let buf = file.write_prefix_durable(buf, BLOCK_BYTES, 0).await?;
    assert_eq!((buf.as_ref().len(), file.len().await?), (4 * BLOCK_BYTES, BLOCK_BYTES as u64));
    let buf = file.write_prefix_at(buf, 2 * BLOCK_BYTES, BLOCK_BYTES as u64).await?;
    assert_eq!((buf.as_ref(), file.len().await?), (&[7; 4 * BLOCK_BYTES][..], 3 * BLOCK_BYTES as u64));
    assert_eq!(file.read_at(0, 4 * BLOCK_BYTES).await?.as_ref(), [7; 3 * BLOCK_BYTES]);
    file.close().await?;
    Ok(())
}

async fn exercise(context: CoreContext<()>) -> Result<(), CoreError> {
    write_prefixes(&context, "prefix.log", Purpose::Log).await?;
    write_prefixes(&context, "prefix.data", Purpose::Data).await?;
    write_and_read_back(&context, "log", Purpose::Log).await?;
    write_and_read_back(&context, "data", Purpose::Data).await
}

#[test]
fn files_keep_what_is_written() {
    on_one_core(|_| {}, exercise).unwrap();
}

#[test]
fn files_keep_what_is_written_with_dsync() {
    on_one_core(|options| options.dsync = true, exercise).unwrap();
}

#[test]
fn long_reads_and_writes_beyond_the_registered_memory() {
    on_one_core(
        |options| options.io_memory_bytes = 64 << 10,
        |context| async move {
            for purpose in [Purpose::Data, Purpose::Log] {
                let name = format!("{purpose:?}");
                let file = context.disk.create(&name, purpose).await?;
                let mut buf = file.alloc(5 << 20);
                assert!(buf.as_ref().iter().all(|byte| *byte == 0), "a buffer shows no bytes of others");
                for (index, block) in buf.as_mut().chunks_mut(BLOCK_BYTES).enumerate() {
                    block.fill(index as u8);
                }
                file.write_at(buf, 0).await?;
                let back = file.read_at(0, 8 << 20).await?;
                assert_eq!(back.as_ref().len(), 5 << 20);
                assert!(
                    back.as_ref().chunks(BLOCK_BYTES).enumerate().all(|(i, block)| block.iter().all(|b| *b == i as u8))
                );
                file.close().await?;
            }
            Ok(())
        },
    )
    .unwrap();
}

#[test]
fn folders_names_and_publishing() {
    on_one_core(
        |_| {},
        |context| async move {
            let disk = &context.disk;
            assert!(disk.list("").await?.is_empty(), "the start's own files are not shown");
            assert!(disk.list("nowhere/at/all").await?.is_empty());
            disk.create_dir("a/b/c").await?;
            disk.create_dir("a/b/c").await?;
            let file = disk.create("a/b/c/x.tmp", Purpose::Data).await?;
            file.write_at(file.alloc(BLOCK_BYTES), 0).await?;
            disk.publish(file, "a/b/c/x.tmp", "a/x").await?;
            assert_eq!(disk.list("a").await?, ["b", "x"]);
            assert!(disk.list("a/b/c").await?.is_empty());
            let again = disk.create("a/x", Purpose::Data).await.err().unwrap();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            assert!(again.to_string().contains("create a/x"), "{again}");
            disk.rename("a/x", "a/y").await?;
            disk.sync_dir("a").await?;
            disk.remove("a/y").await?;
            let absent = disk.open("a/y", Purpose::Log).await.err().unwrap();
            assert_eq!(absent.kind(), io::ErrorKind::NotFound);
            assert_eq!(disk.remove("a/y").await.unwrap_err().kind(), io::ErrorKind::NotFound);
            Ok(())
        },
    )
    .unwrap();
}

#[test]
fn a_publish_that_cannot_rename_says_so_and_poisons() {
    on_one_core(
        |_| {},
        |context| async move {
            let disk = &context.disk;
            let file = disk.create("x.tmp", Purpose::Data).await?;
            file.write_at(file.alloc(BLOCK_BYTES), 0).await?;
            let failed = disk.publish(file, "not-the-name", "x").await.unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::NotFound, "{failed}");
            assert_eq!(disk.list("").await?, ["x.tmp"]);
            Ok(())
        },
    )
    .unwrap();
}

#[test]
fn paths_cannot_leave_the_folder() {
    on_one_core(
        |_| {},
        |context| async move {
            for path in ["../x", "a/../../x", "/etc/passwd", "", ".", "a/./..", "nul\0name"] {
                let error = context.disk.open(path, Purpose::Data).await.err().unwrap();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
                assert_eq!(context.disk.create_dir(path).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
                assert_eq!(context.disk.rename("x", path).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            }
            assert_eq!(context.disk.list("..").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            Ok(())
        },
    )
    .unwrap();
}

#[test]
fn more_files_are_open_than_there_are_descriptors() {
    const FILES: usize = 60;
    fn descriptors_of_data() -> usize {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let paths = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        paths.filter(|path| path.to_string_lossy().contains("/many-")).count()
    }
    let limit = |options: &mut ReactorOptions| options.open_files_max = Some(5);
    on_one_core(limit, |context| async move {
        let disk = &context.disk;
        let mut files = Vec::new();
        for number in 0..FILES {
            let name = format!("many-{number}");
            let file = disk.create(&name, Purpose::Data).await?;
            let mut buf = file.alloc(BLOCK_BYTES);
            buf.as_mut().fill(number as u8);
            file.write_at(buf, 0).await?;
            disk.publish(file, &name, &format!("many-{number}.done")).await?;
            files.push(disk.open(&format!("many-{number}.done"), Purpose::Data).await?);
        }
        // Descriptors are closed by the executor a little later.
        for _ in 0..1000 {
            if descriptors_of_data() <= 5 {
                break;
            }
            glommio::timer::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(descriptors_of_data() <= 5, "{} descriptors", descriptors_of_data());
        // Those whose names go, and one whose name becomes another file's, stay what they were.
        for number in 0..10 {
            disk.remove(&format!("many-{number}.done")).await?;
        }
        disk.rename("many-11.done", "many-10.done").await?;
        for step in 0..3 * FILES {
            let number = step * 7 % FILES;
            let read = files[number].read_at(0, BLOCK_BYTES).await?;
            assert_eq!(read.as_ref(), vec![number as u8; BLOCK_BYTES], "file {number}");
            assert_eq!(files[number].len().await?, BLOCK_BYTES as u64);
        }
        assert!(context.metrics.files_reopened.value() > 0);
        // A file that was opened by its name and is written then keeps the descriptor that would tell of a failure.
        let written = &files[20];
        let mut buf = written.alloc(BLOCK_BYTES);
        buf.as_mut().fill(200);
        written.write_at(buf, 0).await?;
        for file in &files {
            file.read_at(0, BLOCK_BYTES).await?;
        }
        written.sync_data().await?;
        assert_eq!(written.read_at(0, BLOCK_BYTES).await?.as_ref(), vec![200; BLOCK_BYTES]);
        for file in files {
            file.close().await?;
        }
        Ok(())
    })
    .unwrap();
}
