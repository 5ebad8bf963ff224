//! What is said over a stream's socket, and when it counts as whole.

use super::*;

#[test]
fn words_are_read_as_they_were_said() {
    for word in [
        Word::Go,
        Word::Whole,
        Word::Delivered,
        Word::Sent,
        Word::Refused("it is too large".to_owned()),
        Word::Cancelled,
        Word::Closed,
    ] {
        let line = word.line();
        assert_eq!(Word::parse(line.strip_suffix('\n').unwrap()), Some(word));
    }
    assert_eq!(Word::parse("refused"), Some(Word::Refused(String::new())));
    assert_eq!(Word::parse("whole of it"), None);
    assert_eq!(Word::parse("dance"), None);
    let long = Word::Refused("ä\n".repeat(MAX_LINE)).line();
    assert!(long.len() <= MAX_LINE && long.ends_with('\n') && long.matches('\n').count() == 1);
}

fn incoming() -> (UnixStream, Incoming) {
    let (writer, socket) = UnixStream::pair().unwrap();
    (writer, Incoming { socket: Arc::new(socket), left: 0, ended: false })
}

fn all(source: &mut Incoming) -> Result<Vec<u8>, SourceError> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 7]);
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

#[test]
fn a_stream_is_whole_only_where_its_writer_says_so() {
    let (mut writer, mut source) = incoming();
    writer.write_all(b"\0\0\0\x0ahelloworld\0\0\0\x01!\0\0\0\0").unwrap();
    assert_eq!(all(&mut source).unwrap(), b"helloworld!");
    assert_eq!(source.read(&mut [0; 9]).unwrap(), 0, "and it stays so");
    let mut said = [0; 6];
    writer.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"whole\n");
    for broken in
        [&b""[..], b"\0\0", b"\0\0\0\x05hell", b"\0\0\0\x05hello", b"\0\x01\0\x01", b"\xff\xff\xff\xff"]
    {
        let (mut writer, mut source) = incoming();
        writer.write_all(broken).unwrap();
        drop(writer);
        assert!(matches!(all(&mut source), Err(SourceError::BrokenOff)), "{broken:?}");
    }
}

#[test]
fn a_read_that_waits_for_its_writer_is_ended_from_elsewhere() {
    let (mut writer, mut source) = incoming();
    let hangup = source.hangup().unwrap();
    let reading = std::thread::spawn(move || source.read(&mut [0; 9]).is_err());
    hangup();
    assert!(reading.join().unwrap());
    assert!(writer.write_all(b"x").is_err(), "and the writer knows");
}

#[test]
fn a_last_word_is_said_once_and_the_end_of_the_mailbox_is_one() {
    let streams = Streams::default();
    let pairs: Vec<_> = (1..=2)
        .map(|id| {
            let (writer, socket) = UnixStream::pair().unwrap();
            streams.lock().open.insert(EntryId(id), Some(Arc::new(socket)));
            writer
        })
        .collect();
    streams.tell(EntryId(1), &Word::Delivered);
    streams.tell(EntryId(1), &Word::Cancelled);
    streams.end();
    for (mut writer, said) in pairs.into_iter().zip(["delivered\n", "closed\n"]) {
        let mut line = String::new();
        writer.read_to_string(&mut line).unwrap();
        assert_eq!(line, said);
    }
}
