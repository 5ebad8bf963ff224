//! The sections with several machines: shells in one network namespace, where names and addresses are as in the README.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::blocks;
use crate::fixture::blocks::{fenced, shell};
use crate::fixture::end::{End, text};
use crate::fixture::network::{Network, with_network};
use crate::fixture::process::Process;
use crate::fixture::tls::Authority;
use crate::fixture::world::{Pair, World};

/// Gives the namespace the address of the README.
const ADDRESS: &str = r#"PATH="$PATH:/usr/sbin:/sbin" ip address add 192.0.2.7/32 dev lo"#;
/// Who has which name there.
const HOSTS: &str = "127.0.0.1 localhost\n192.0.2.7 relay.example.org\n";

/// A network with the names of the README.
struct Machines<'a> {
    world: &'a World,
    network: Network,
    hosts: PathBuf,
}

impl<'a> Machines<'a> {
    fn new(world: &'a World, network: Network) -> Self {
        let hosts = world.path("tmp/hosts");
        fs::write(&hosts, HOSTS).unwrap();
        let up = network.run(|| Command::new("sh").args(["-c", ADDRESS]).status().unwrap());
        assert!(up.success(), "iproute2 is needed: make needs");
        Self { world, network, hosts }
    }

    /// What runs a line in `at`. The names are in a mount namespace, in which a mount of ours would not be seen from here.
    fn line(&self, at: &str, line: &str) -> Command {
        let script = format!("mount --bind \"$HOSTS\" /etc/hosts\nexec {line}");
        let inner = shell(self.world, &self.world.path(at), &script);
        let mut command = self.world.command_of("unshare", &["--mount", "sh"]);
        command.args(inner.get_args()).current_dir(self.world.path(at)).env("HOSTS", &self.hosts);
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.env("AGENT_WORMHOLE_MOUNT", "dir");
        command
    }

    fn end(&self, at: &str, line: &str) -> End {
        let command = self.line(at, line);
        self.network.run(move || End::start(command))
    }

    fn process(&self, command: Command) -> Process {
        self.network.run(move || Process::spawn(command))
    }

    /// A relay, once it listens.
    fn relay(&self, line: &str) -> Process {
        let mut relay = self.process(self.line("home", line));
        while !relay.error_line().contains("listening on") {}
        relay
    }
}

#[test]
fn two_machines() {
    with_network("readme::networked::two_machines", |network| {
        let world = World::new();
        let machines = Machines::new(&world, network);
        let [direct, relayed] = &blocks("Two machines")[..] else { panic!("a block without a test") };
        let laptop = machines.end("host", &direct.typed("laptop$")[0]);
        let direct = direct.with(&[("40123-cross-clock-marble", &laptop.code())]);
        let server = machines.end("peer", &direct.typed("server$")[0]);
        assert_eq!((direct.text.lines().count(), direct.typed("server$").len()), (2, 1));
        let mut pair = Pair { host: laptop, peer: server, relay: None };
        pair.connected();
        assert_eq!(pair.peer.status("connected")["transport"], "direct");
        pair.close();
        // The other machine types what stands in `connect`.
        let [relay] = &relayed.typed("relay$")[..] else { panic!("{relayed:#?}") };
        let _relay = machines.relay(relay);
        let laptop = machines.end("host", &relayed.typed("laptop$")[0]);
        assert_eq!(relayed.text.lines().count(), 2);
        let server = machines.end("peer", text(&laptop.events[0], "connect"));
        let mut pair = Pair { host: laptop, peer: server, relay: None };
        pair.connected();
        pair.close();
        // The relay's own README shows the same line.
        let own = fenced(include_str!("../../../relay/README.md"));
        let lines: Vec<&str> = own.iter().map(|block| block.text.trim()).collect();
        assert_eq!(lines, [relay.as_str()]);
    });
}

#[test]
fn doctor() {
    with_network("readme::networked::doctor", |network| {
        let world = World::new();
        let machines = Machines::new(&world, network);
        let authority = Authority::new();
        let [pem, certificate, key] =
            ["authority.pem", "relay.pem", "relay.key"].map(|name| world.path("tmp").join(name));
        fs::write(&pem, authority.pem()).unwrap();
        let relay = authority.certificate("relay.example.org");
        fs::write(&certificate, relay.0).unwrap();
        fs::write(&key, relay.1).unwrap();
        let line = format!(
            "agent-wormhole relay --listen 0.0.0.0:443 --tls-cert {} --tls-key {}",
            certificate.display(),
            key.display()
        );
        let _relay = machines.relay(&line);
        let [block] = &blocks("Doctor")[..] else { panic!("a block without a test") };
        let lines = block.typed("$");
        assert_eq!(block.text.lines().count(), lines.len(), "{block:#?}");
        for line in lines {
            let mut command = machines.line("host", &line);
            command.env("AGENT_WORMHOLE_CA", &pem);
            let ended = machines.process(command).finish();
            assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{line}: {ended:?}");
            assert_eq!(
                line.contains("--loop"),
                ended.out.iter().any(|line| line.contains("handshake")),
                "{ended:?}"
            );
        }
        world.is_clean();
    });
}
