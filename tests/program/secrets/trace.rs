//! What `strace` noted: to what a process wrote, as far as the descriptors' own beginnings tell.
//!
//! Without its `-y`, which looks at paths: in a mount that the traced process serves, it would wait for itself.

use std::collections::HashMap;
use std::path::Path;

/// Calls that write.
const WRITES: [&str; 8] =
    ["write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg"];
/// Calls that make descriptors, and processes that inherit them.
const MAKES: &str = "open,openat,creat,memfd_create,socket,socketpair,accept,accept4,pipe,pipe2,dup,dup2,dup3,fcntl,clone,\
                     clone3,fork,vfork";

/// Calls that make processes and threads.
const FORKS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];

/// Arguments before the program.
pub fn arguments(trace: &Path) -> Vec<String> {
    let calls = format!("trace={},{MAKES}", WRITES.join(","));
    ["-f", "-qq", "-xx", "-s", "70000", "-e", &calls, "-o", trace.to_str().unwrap()]
        .map(str::to_owned)
        .to_vec()
}

/// Where bytes may pass from one process to another without resting in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Socket,
    Pipe,
    /// Opened under this name, in hex.
    File(String),
}

/// What a process has open.
type Open = HashMap<i64, Way>;

/// The processes of a trace, and what each has open.
struct Processes {
    /// Who made whom, and whether as a thread: a child is seen before its maker hears of it.
    made_by: HashMap<u32, (u32, bool)>,
    /// The process of each thread.
    groups: HashMap<u32, u32>,
    open: HashMap<u32, Open>,
}

impl Processes {
    fn of(calls: &[(u32, String)]) -> Self {
        let made_by = calls.iter().filter_map(|(maker, call)| {
            let (name, arguments) = call.split_once('(')?;
            let child = FORKS.contains(&name).then(|| result(arguments)).flatten()?;
            Some((u32::try_from(child).unwrap(), (*maker, arguments.contains("CLONE_THREAD"))))
        });
        Self { made_by: made_by.collect(), groups: HashMap::new(), open: HashMap::new() }
    }

    /// What the process of a thread has open. One that is new has what its maker has.
    fn open_of(&mut self, id: u32) -> &mut Open {
        if !self.groups.contains_key(&id) {
            let (group, inherited) = match self.made_by.get(&id).copied() {
                None => (id, Open::new()),
                Some((maker, is_thread)) => {
                    let inherited = self.open_of(maker).clone();
                    (if is_thread { self.groups[&maker] } else { id }, inherited)
                }
            };
            self.groups.insert(id, group);
            self.open.entry(group).or_insert(inherited);
        }
        self.open.entry(self.groups[&id]).or_default()
    }
}

/// Each call with its thread, whole; what is written stands where it began, as its end may never come.
fn calls(text: &str) -> Vec<(u32, String)> {
    let is_write = |start: &str| WRITES.iter().any(|name| start.starts_with(&format!("{name}(")));
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let (id, call) = line.split_once(' ').unwrap();
        let (id, call) = (id.parse().unwrap(), call.trim_start());
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(id, start.to_owned());
            calls.extend(is_write(start).then(|| (id, start.to_owned())));
        } else if call.starts_with("<... ") {
            let Some((_, end)) = call.split_once(" resumed>") else { continue };
            let start = begun.remove(&id).unwrap_or_default();
            calls.extend((!is_write(&start)).then(|| (id, start + end)));
        } else {
            calls.push((id, call.to_owned()));
        }
    }
    calls
}

/// Holds if nothing that `is_secret` says of was written but to sockets, pipes and the kernel's door for mounts; how often
/// it was to these. `is_secret` gets the call, its bytes as hex.
pub fn only_passed_on(text: &str, is_secret: impl Fn(&str) -> bool) -> usize {
    let calls = calls(text);
    let mut processes = Processes::of(&calls);
    let fuse = super::hex(b"/dev/fuse");
    let mut passed = 0;
    for (id, call) in &calls {
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let open = processes.open_of(*id);
        if WRITES.contains(&name) {
            if is_secret(&arguments.replace("\\x", "")) {
                let number: i64 = arguments.split([',', ')']).next().unwrap().parse().unwrap();
                let way = open.get(&number);
                let passes = match way {
                    Some(Way::Socket | Way::Pipe) => true,
                    Some(Way::File(name)) => *name == fuse,
                    None => false,
                };
                assert!(passes, "a secret is written to descriptor {number}: {way:?}");
                passed += 1;
            }
        } else if let Some(result) = result(arguments)
            && !FORKS.contains(&name)
        {
            made(open, (name, arguments), result);
        }
    }
    passed
}

/// What a call that succeeded returned.
fn result(arguments: &str) -> Option<i64> {
    let (_, result) = arguments.rsplit_once(" = ")?;
    result.split(' ').next()?.parse().ok().filter(|result| *result >= 0)
}

/// Notes the descriptors that a call has made.
fn made(open: &mut Open, (name, arguments): (&str, &str), result: i64) {
    let pair = || -> Vec<i64> {
        let Some((_, list)) = arguments.split_once('[') else { return Vec::new() };
        list.split(']').next().unwrap().split(", ").filter_map(|number| number.parse().ok()).collect()
    };
    match name {
        "socket" | "accept" | "accept4" => drop(open.insert(result, Way::Socket)),
        "socketpair" => open.extend(pair().into_iter().map(|number| (number, Way::Socket))),
        "pipe" | "pipe2" => open.extend(pair().into_iter().map(|number| (number, Way::Pipe))),
        "dup" | "dup2" | "dup3" | "fcntl" => {
            let from: Option<i64> = arguments.split(',').next().and_then(|number| number.parse().ok());
            let copies = name != "fcntl" || arguments.contains("F_DUPFD");
            let way = from.and_then(|from| open.get(&from).cloned()).filter(|_| copies);
            if copies {
                open.remove(&result);
                open.extend(way.map(|way| (result, way)));
            }
        }
        _ => {
            let path = arguments.split('"').nth(1).unwrap_or_default().replace("\\x", "");
            open.insert(result, Way::File(path));
        }
    }
}

#[test]
fn what_a_trace_says_is_understood() {
    let secret = |bytes: &str| bytes.contains("736563726574");
    let value = r"\x73\x65\x63\x72\x65\x74";
    let socket = format!("7 socket(AF_UNIX, SOCK_STREAM, 0) = 4\n7 write(4, \"{value}\", 6) = 6\n");
    assert_eq!(only_passed_on(&socket, secret), 1);
    let unfinished = format!(
        "7 pipe2([5, 6], O_CLOEXEC) = 0\n7 write(6, \"{value}\", 6 <unfinished ...>\n7 <... write resumed>) = 6\n"
    );
    assert_eq!(only_passed_on(&unfinished, secret), 1);
    let file = format!("7 openat(AT_FDCWD, \"\\x2f\\x78\", O_RDWR) = 4\n7 write(4, \"{value}\", 6) = 6\n");
    let inherited = format!(
        "7 socket(AF_UNIX, 1, 0) = 4\n7 clone(child_stack=NULL, flags=SIGCHLD) = 8\n8 openat(AT_FDCWD, \"\\x78\", O_WRONLY) = 4\n\
         8 write(4, \"{value}\", 6) = 6\n"
    );
    let early = format!(
        "7 openat(AT_FDCWD, \"\\x78\", O_RDONLY) = 3\n7 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>\n\
         8 pipe2([3, 4], 0) = 0\n8 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>\n9 dup2(4, 1) = 1\n\
         9 write(1, \"{value}\", 6) = 6\n8 <... clone resumed>) = 9\n7 <... clone resumed>) = 8\n"
    );
    assert_eq!(only_passed_on(&early, secret), 1, "a child that is seen before its makers hear of it");
    for text in [file, inherited, format!("7 write(1, \"{value}\", 6) = 6\n")] {
        assert!(std::panic::catch_unwind(|| only_passed_on(&text, secret)).is_err(), "{text}");
    }
}
