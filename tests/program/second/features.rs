//! What both ends name in `features`: secrets, questions, and what was opened. And an end that names nothing, or only some.

use agent_wormhole::item::ItemKind::{Answer, Ask, Secret};

use super::*;
use crate::fixture::hostile::Hostile;

/// A mount tells what was opened; a real directory cannot.
const OURS: [&str; 2] = ["--mount", "fuse"];
/// In no event until its user asks for it.
const VALUE: &str = "sk-a-value-of-the-second-implementation";

impl Meeting<'_> {
    /// Sends it and waits until our end has stored it; its number.
    fn stores(&mut self, command: &Value) -> Value {
        let item = self.second.send(command);
        self.second.delivered(&item);
        item
    }

    /// Sends what our end refuses, for this reason.
    fn is_refused(&mut self, command: &Value, reason: &str) {
        let item = self.second.send(command);
        let told =
            self.second.until("its refusal", |event| event["event"] == "refused" && event["item"] == item);
        assert_eq!(told["reason"], reason, "{command}");
    }

    /// Reads a file of our inbox, as its owner does.
    fn cat(&self, name: &str) -> String {
        let ended =
            Process::spawn(self.world.command_of("cat", &[self.ours.inbox(name).to_str().unwrap()])).finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out.join("\n")
    }

    /// The second implementation hears that an item of its own was opened, at a time of this century.
    fn hears_opened(&mut self, item: &Value) {
        let told = self
            .second
            .until("it to be opened", |event| event["event"] == "opened" && event["item"] == *item);
        assert!(told["at"].as_u64().unwrap() > 1_700_000_000_000, "{told}");
    }

    /// The second implementation has read an item, and `status --json` of our end says so.
    fn reads(&mut self, item: &Value, name: &str) {
        self.second.ask(&json!({"do": "read", "item": item}));
        self.is_opened(name);
    }

    fn is_opened(&self, name: &str) {
        let opened = |state: &Value| sent(state, name).is_some_and(|item| item["opened"].is_string());
        self.ours.until_state(name, opened);
        let lines = self.world.run(&["status", self.dir(), "--json"]).out;
        let row: Value = serde_json::from_str(&lines[0]).unwrap();
        assert!(opened(&row["status"]), "{row}");
    }

    fn dir(&self) -> &str {
        self.ours.dir.to_str().unwrap()
    }

    fn send_secret(&self, name: &str) -> Ended {
        let command = self.world.command(&["send", self.dir(), "--secret", name, "--wait"]);
        Process::spawn_with(command, VALUE.as_bytes()).finish()
    }
}

/// What a status says of an item that was sent and stored.
fn sent<'a>(state: &'a Value, name: &str) -> Option<&'a Value> {
    state["sent"].as_array()?.iter().find(|item| item["name"] == name)
}

/// A question from each end under one name is answered, and only once.
fn questions(meeting: &mut Meeting<'_>) {
    meeting.ours.put("ask/port", "which port?");
    let asked = meeting.second.event("ask");
    assert_eq!((&asked["name"], &asked["body"]), (&"port".into(), &"which port?".into()));
    meeting.reads(&asked["item"], "ask/port");
    let long = "8443, and this is why\n".repeat(3_000);
    let item = meeting.stores(&json!({"do": "answer", "name": "port", "body": long}));
    meeting.ours.until("the answer", |event| event["type"] == "answer" && event["name"] == "port");
    assert_eq!(fs::read_to_string(meeting.ours.inbox("answer/port")).unwrap(), long);
    meeting.cat("answer/port");
    meeting.hears_opened(&item);

    let item = meeting.stores(&json!({"do": "ask", "name": "port", "body": "und welcher für grüße?"}));
    let asked = meeting.ours.until("the question", |event| event["type"] == "ask");
    assert_eq!((&asked["name"], &asked["body"]), (&"port".into(), &"und welcher für grüße?".into()));
    assert_eq!(meeting.cat("ask/port"), "und welcher für grüße?");
    meeting.hears_opened(&item);
    meeting.ours.put("answer/port", "9443");
    let answered = meeting.second.event("answer");
    assert_eq!((&answered["name"], &answered["body"]), (&"port".into(), &"9443".into()));
    meeting.reads(&answered["item"], "answer/port");

    for (command, reason) in [
        (json!({"do": "ask", "name": "port", "body": "again?"}), "name used"),
        (json!({"do": "answer", "name": "port", "body": "again"}), "name used"),
        (json!({"do": "answer", "name": "nothing", "body": "to nothing"}), "not asked"),
        (json!({"do": "ask", "name": "../port", "body": "?"}), "bad name"),
        (json!({"do": "ask", "name": "ключ", "body": "?"}), "bad name"),
        (json!({"do": "ask", "name": "long", "body": "?".repeat((1 << 20) + 1)}), "bad text"),
    ] {
        meeting.is_refused(&command, reason);
    }
    // What was refused took no name.
    meeting.stores(&json!({"do": "ask", "name": "long", "body": ""}));
}

/// A secret each way, into nothing but what asks for it.
fn secrets(meeting: &mut Meeting<'_>) {
    let ended = meeting.send_secret("API_KEY");
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    let arrived = meeting.second.event("secret");
    assert_eq!(arrived["name"], "API_KEY");
    assert!(
        sent(&meeting.ours.until_state("its receipt", |state| sent(state, "API_KEY").is_some()), "API_KEY")
            .unwrap()["opened"]
            .is_null()
    );
    assert!(
        !Value::from(meeting.second.events.clone()).to_string().contains(VALUE),
        "{:?}",
        meeting.second.events
    );
    meeting.second.ask(&json!({"do": "use", "name": "API_KEY"}));
    assert_eq!(meeting.second.event("used")["value"], VALUE);
    meeting.is_opened("API_KEY");

    let token = format!("{VALUE}-too");
    meeting.stores(&json!({"do": "secret", "name": "TOKEN", "value": "replaced before it was used"}));
    let item = meeting.stores(&json!({"do": "secret", "name": "TOKEN", "value": token}));
    let arrived = meeting.ours.until("the secret", |event| event["type"] == "secret");
    assert!(!arrived.to_string().contains("value"), "{arrived}");
    let script = "printf %s \"$TOKEN\" | sha256sum; echo \"<$TOKEN>\"";
    let ended = meeting.world.run(&["run", meeting.dir(), "--secret", "TOKEN", "--", "sh", "-c", script]);
    assert_eq!(
        ended.out,
        [format!("{}  -", hash(token.as_bytes())), "<[secret TOKEN]>".to_owned()],
        "{ended:?}"
    );
    meeting.hears_opened(&item);
    for (name, value, reason) in
        [("EMPTY", "", "wrong size"), ("1", VALUE, "bad name"), ("a/b", VALUE, "bad name")]
    {
        meeting.is_refused(&json!({"do": "secret", "name": name, "value": value}), reason);
    }
}

/// A file each way is seen to be read.
fn files(meeting: &mut Meeting<'_>) {
    let path = meeting.source("second.txt", b"several words");
    let item = meeting.stores(&json!({"do": "file", "name": "second.txt", "path": path}));
    assert_eq!(meeting.cat("second.txt"), "several words");
    meeting.hears_opened(&item);
    meeting.ours.put("ours.txt", "others");
    let told = meeting.second.until("the file", |event| event["event"] == "file");
    meeting.reads(&told["item"], "ours.txt");
}

fn named(case: Case) {
    let world = World::new();
    let mut meeting = Meeting::telling(&world, case, Told { ours: &OURS, second: &[] });
    questions(&mut meeting);
    secrets(&mut meeting);
    files(&mut meeting);
    let state = meeting.ours.until_state("the peer", |state| state["peer"]["opened"].is_string());
    assert_eq!(state["peer"]["tells_opened"], true, "{state}");
    let (_, events) = meeting.close(case.ours_hosts);
    assert!(!Value::from(events.clone()).to_string().contains(VALUE), "{events:?}");
}

#[test]
fn questions_secrets_and_what_was_opened_go_both_ways_directly() {
    named(CASES[0]);
    named(CASES[1]);
}

#[test]
fn questions_secrets_and_what_was_opened_go_both_ways_through_a_relay() {
    named(CASES[2]);
    named(CASES[3]);
}

/// Our end says that the other one cannot take it, to whoever asks.
fn cannot_be_sent(meeting: &mut Meeting<'_>, name: &str) {
    let told = meeting.ours.until(name, |event| event["event"] == "refused" && event["name"] == name);
    assert_eq!(told["detail"], "the other end's version cannot take it", "{told}");
}

/// With an end that names nothing our end refuses at home, tells no reading, and sends all else.
fn nothing_named(case: Case) {
    let world = World::new();
    let mut meeting = Meeting::telling(&world, case, Told { ours: &OURS, second: &["--features", ""] });
    assert_eq!(meeting.second.event("connected")["features"], json!([]));
    meeting.ours.put("ask/port", "which port?");
    cannot_be_sent(&mut meeting, "ask/port");
    let waited = world.run(&["wait", meeting.dir(), "--for", "answer:port", "--timeout", "30s"]);
    assert_eq!(waited.code, Some(6), "{waited:?}");
    assert!(waited.err.contains("the other end's version cannot take it"), "{waited:?}");
    let ended = meeting.send_secret("API_KEY");
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.err.contains("secrets/API_KEY (the other end's version cannot take it)"), "{ended:?}");
    cannot_be_sent(&mut meeting, "API_KEY");
    fs::remove_file(meeting.ours.outbox("ask/port")).unwrap();
    fs::remove_file(meeting.ours.outbox("secrets/API_KEY")).unwrap();
    // The other way.
    for (word, content) in [("ask", "body"), ("answer", "body"), ("secret", "value")] {
        meeting.second.ask(&json!({"do": word, "name": word, content: VALUE}));
        let told = meeting.second.until(word, |event| event["event"] == "refused" && event["name"] == word);
        assert_eq!((&told["reason"], &told["item"]), (&"unsupported".into(), &Value::Null));
    }
    // What was read is told neither way, and all else goes.
    let path = meeting.source("second.txt", b"several words");
    meeting.stores(&json!({"do": "file", "name": "second.txt", "path": path}));
    assert_eq!(meeting.cat("second.txt"), "several words");
    meeting.ours.put("ours.txt", "others");
    let told = meeting.second.until("the file", |event| event["event"] == "file");
    meeting.second.ask(&json!({"do": "read", "item": told["item"]}));
    meeting.stores(&json!({"do": "text", "body": "the last word"}));
    meeting.ours.put("last.msg", "ours, too");
    meeting.second.event("text");
    let state = meeting.ours.until_state("its receipt", |state| sent(state, "ours.txt").is_some());
    assert_eq!((&state["peer"]["tells_opened"], &state["peer"]["opened"]), (&false.into(), &Value::Null));
    let sheet = world.run(&["status", meeting.dir()]).out.join("\n");
    assert!(sheet.contains("the other end does not tell whether it was opened"), "{sheet}");
    let (second, events) = meeting.close(case.ours_hosts);
    assert!(!second.events.iter().any(|event| event["event"] == "opened"), "{:?}", second.events);
    let kinds = ["secret", "ask", "answer"];
    assert!(!events.iter().any(|event| kinds.contains(&text(event, "type"))), "{events:?}");
}

#[test]
fn to_an_end_that_names_nothing_it_is_said_directly() {
    nothing_named(CASES[0]);
    nothing_named(CASES[1]);
}

#[test]
fn to_an_end_that_names_nothing_it_is_said_through_a_relay() {
    nothing_named(CASES[2]);
    nothing_named(CASES[3]);
}

#[test]
fn of_what_an_end_names_nothing_but_that_is_sent() {
    let world = World::new();
    let told = Told { ours: &OURS, second: &["--features", "later,questions"] };
    let mut meeting = Meeting::telling(&world, CASES[0], told);
    meeting.ours.put("ask/port", "which port?");
    let asked = meeting.second.event("ask");
    meeting.second.ask(&json!({"do": "read", "item": asked["item"]}));
    meeting.stores(&json!({"do": "answer", "name": "port", "body": "8443"}));
    let ended = meeting.send_secret("API_KEY");
    assert_eq!(ended.code, Some(6), "{ended:?}");
    cannot_be_sent(&mut meeting, "API_KEY");
    fs::remove_file(meeting.ours.outbox("secrets/API_KEY")).unwrap();
    let state = meeting.ours.until_state("its receipt", |state| sent(state, "ask/port").is_some());
    assert!(sent(&state, "ask/port").unwrap()["opened"].is_null(), "{state}");
    meeting.close(true);
}

/// Our own mailbox would refuse most of it at home; so the session speaks alone.
#[test]
fn the_second_implementation_refuses_by_name_what_the_document_refuses() {
    let world = World::new();
    let mut second = Second::start(&world, &["host", "--direct", "127.0.0.1"]);
    let mut ours = Hostile::enter(text(&second.event("code"), "code"));
    second.event("connected");
    second.send(&json!({"do": "ask", "name": "own", "body": "?"}));
    let (longest, long) = ("n".repeat(64), "n".repeat(65));
    let too_long = vec![b'?'; (1 << 20) + 1];
    for (kind, name, content, refused) in [
        (Ask, "q", &b"?"[..], None),
        (Ask, "q", b"?", Some("name used")),
        (Ask, &longest, b"", None),
        (Ask, &long, b"?", Some("bad name")),
        (Ask, "", b"?", Some("bad name")),
        (Ask, "bytes", b"\xff", Some("bad text")),
        (Ask, "bytes", &too_long, Some("bad text")),
        (Ask, "bytes", &too_long[1..], None),
        (Answer, "q", b"!", Some("not asked")),
        (Answer, "own", b"\xff", Some("bad text")),
        (Answer, "own", b"!", None),
        (Answer, "own", b"!", Some("name used")),
        (Secret, "K", b"", Some("wrong size")),
        (Secret, "K", b"\xff\0", None),
        (Secret, "k/../K", b"v", Some("bad name")),
    ] {
        let before = second.events.iter().filter(|event| event["event"] == "not_taken").count();
        assert_eq!(ours.send(kind, name, content), refused.is_none(), "{kind:?} {name}");
        if let Some(reason) = refused {
            let told = second.nth(before, "a refusal", |event| event["event"] == "not_taken");
            assert_eq!((text(&told, "reason"), text(&told, "name")), (reason, name));
        }
    }
    // So many wait, and one of them is replaced.
    assert!((1..64).all(|n| ours.send(Secret, &format!("K{n}"), b"v")));
    assert!(!ours.send(Secret, "K64", b"v") && ours.send(Secret, "K", b"\xfe"));
    second.ask(&json!({"do": "use", "name": "K"}));
    assert_eq!(second.event("used")["hex"], "fe");
    assert!(ours.send(Secret, "K64", b"v"));
}
