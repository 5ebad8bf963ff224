//! Precedence, what a file may say, and what is printed.

use clap::Parser;

use super::*;
use crate::cli::RelayCommand;

/// The relay's own program.
#[derive(Debug, Parser)]
struct Own {
    #[command(flatten)]
    command: RelayCommand,
}

/// A program of which the relay is a command, beside another one.
#[derive(Debug, Parser)]
struct Whole {
    #[command(subcommand)]
    command: Choice,
}

#[derive(Debug, clap::Subcommand)]
enum Choice {
    Relay(Box<RelayCommand>),
    Host,
}

/// Flags of every kind, so that those of the relay need not have one of each.
#[derive(Debug, Parser)]
struct Kinds {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long)]
    loud: bool,
    #[arg(long)]
    allow: Vec<String>,
    #[arg(long)]
    store: Option<String>,
    // A name that a flag wins over, and that every process has.
    #[arg(long, env = "CARGO_PKG_NAME", default_value = "nobody")]
    name: String,
}

fn typed(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

/// A file with this text, and the words that name it.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.toml");
    std::fs::write(&path, text).expect("written");
    let flag = format!("--config {}", path.display());
    (dir, flag)
}

fn kinds(text: &str, flags: &str) -> Result<(Kinds, String), String> {
    let (_dir, config) = file(text);
    let line = format!("relay {config} {flags}");
    let parsed = parse::<Kinds>(typed(line.trim_end()), None).map_err(|error| error.to_string())?;
    Ok((parsed.program, parsed.settings.expect("settings").to_string()))
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let (_dir, config) = file("idle = 90\nmax_frame = \"1MiB\"\n");
    let parsed = parse::<Own>(typed(&format!("relay {config} --max-frame 2MiB")), None).expect("parsed");
    let relay = parsed.program.command.relay;
    assert_eq!((relay.idle.as_secs(), relay.max_frame, relay.messages_per_minute), (90, 2 << 20, 60));
    let printed = parsed.settings.expect("settings").to_string();
    for line in ["idle = 90 # file", "max-frame = \"2MiB\" # flag", "messages-per-minute = 60 # default"] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    // Set where tests run under cargo, and to the package's name.
    let here = std::env::var("CARGO_PKG_NAME").expect("cargo's variable");
    let (kinds_, printed) = kinds("name = \"file\"", "").expect("parsed");
    assert_eq!(kinds_.name, here);
    assert!(printed.contains(&format!("name = \"{here}\" # environment")), "{printed}");
    let (kinds_, _) = kinds("name = \"file\"", "--name flag").expect("parsed");
    assert_eq!(kinds_.name, "flag");
}

#[test]
fn lists_and_switches_are_keys_too() {
    let text =
        "loud = true\nallow = [\"192.0.2.0/24\", \"2001:db8::/32\"]\nstore = \"redis://u:secret@host/0\"";
    let (parsed, printed) = kinds(text, "").expect("parsed");
    assert!(parsed.loud);
    assert_eq!(parsed.allow, ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(parsed.store.as_deref(), Some("redis://u:secret@host/0"));
    assert!(printed.contains("loud = true # file"), "{printed}");
    assert!(printed.contains("allow = [\"192.0.2.0/24\", \"2001:db8::/32\"] # file"), "{printed}");
    assert!(printed.contains("store = \"redis://u:***@host/0\" # file"), "{printed}");
    assert!(!printed.contains("secret"));
    // One word for a list is a list of one; a flag replaces all of it.
    assert_eq!(kinds("allow = \"192.0.2.1\"", "").expect("parsed").0.allow, ["192.0.2.1"]);
    assert_eq!(kinds(text, "--allow 192.0.2.9").expect("parsed").0.allow, ["192.0.2.9"]);
}

#[test]
fn what_is_printed_can_be_fed_back() {
    let (_dir, config) = file("idle = \"30m\"\ndrain = 5\nmetrics-listen = \"127.0.0.1:9464\"");
    let first = parse::<Own>(typed(&format!("relay {config} --listen [::1]:1")), None).expect("parsed");
    let (_dir, config) = file(&first.settings.expect("settings").to_string());
    let second = parse::<Own>(typed(&format!("relay {config}")), None).expect("parsed");
    let config = first.program.command.relay.config.clone();
    assert_eq!(first.program.command.relay, crate::cli::RelayArgs { config, ..second.program.command.relay });
}

#[test]
fn what_is_wrong_is_named_with_its_file_and_key() {
    let wrong = [
        ("idel = 3", "`idel` is no setting"),
        ("config = \"other\"", "`config` is no setting"),
        ("idle = true", "`idle` is true or false; write a text or a whole number"),
        ("idle = [3]", "`idle` is a list"),
        ("idle = 1.5", "`idle` is a fraction"),
        ("idle = \"soon\"", "`idle`: \"soon\" is refused: a span"),
        ("listen = 8787", "`listen`: \"8787\" is refused: invalid socket address"),
        ("log_format = \"xml\"", "`log_format`: \"xml\" is refused: one of human, json"),
        ("messages-per-minute = -1", "`messages-per-minute`: \"-1\" is refused"),
        ("[limits]\nidle = 3", "`limits` is no setting"),
        ("max-frame = 1\nmax_frame = 2", "is set twice"),
        ("idle = 3\nlisten = secret", "line 2: "),
    ];
    for (text, want) in wrong {
        let (_dir, config) = file(text);
        let error = parse::<Own>(typed(&format!("relay {config}")), None).expect_err(text);
        let said = error.to_string();
        assert!(
            said.contains(want) && said.contains("relay.toml") && !said.contains("secret"),
            "{text}: {said}"
        );
        assert_eq!(error.exit_code(), 2);
    }
    let error = parse::<Own>(typed("relay --config /nonexistent/relay.toml"), None).expect_err("no file");
    assert!(error.to_string().contains("/nonexistent/relay.toml cannot be read"), "{error}");
    assert!(kinds("loud = 1", "").expect_err("a number").contains("write true or false"));
    assert!(kinds("allow = [true]", "").expect_err("a switch").contains("write a list of texts"));
}

#[test]
fn a_subcommand_has_the_same_file() {
    let (_dir, config) = file("idle = 90");
    let parsed = parse::<Whole>(typed(&format!("whole relay {config}")), Some("relay")).expect("parsed");
    assert!(parsed.settings.is_some_and(|settings| settings.to_string().contains("idle = 90 # file")));
    assert!(matches!(parsed.program.command, Choice::Relay(relay) if relay.relay.idle.as_secs() == 90));
    let other = parse::<Whole>(typed("whole host"), Some("relay")).expect("parsed");
    assert!(other.settings.is_none() && matches!(other.program.command, Choice::Host));
}

#[test]
fn a_healthcheck_asks_where_the_relay_is() {
    use crate::cli::Action;

    let url = |line: &str| {
        let command = parse::<Own>(typed(line), None).expect("parsed").program.command;
        let Some(Action::Healthcheck(args)) = command.action else { panic!("{line}") };
        let relay = |listen: &str, metrics: Option<&str>| crate::cli::RelayArgs {
            listen: listen.parse().expect("an address"),
            metrics_listen: metrics.map(|address| address.parse().expect("an address")),
            ..command.relay.clone()
        };
        [
            args.url(&relay("127.0.0.1:8787", None)),
            args.url(&relay("[::]:1", None)),
            args.url(&relay("0.0.0.0:1", Some("0.0.0.0:2"))),
        ]
    };
    let want = ["http://127.0.0.1:8787/ready", "http://[::1]:1/ready", "http://127.0.0.1:2/ready"];
    assert_eq!(url("relay healthcheck"), want);
    assert_eq!(url("relay healthcheck --url http://a:1/b"), ["http://a:1/b"; 3]);
    assert!(parse::<Own>(typed("relay --idle 3 healthcheck"), None).is_err());
}

#[test]
fn every_flag_is_printed_and_is_in_the_readme() {
    let readme = include_str!("../../README.md");
    let printed = parse::<Own>(typed("relay"), None).expect("parsed").settings.expect("settings").to_string();
    let command = Own::command();
    let mut seen = 0;
    for arg in command.get_arguments() {
        let Some(long) = arg.get_long() else { continue };
        let setting = !NOT_SETTINGS.contains(&long);
        let flag = match arg.get_value_names().filter(|_| !is_switch(arg)) {
            Some(names) => format!("`--{long} {}`", names.join(" ")),
            None => format!("`--{long}`"),
        };
        let or_none = |text: Option<String>| text.map_or("–".to_owned(), |text| format!("`{text}`"));
        let env = or_none(arg.get_env().map(|name| name.to_string_lossy().into_owned()));
        let key = or_none(setting.then(|| long.to_owned()));
        let row = format!("| {flag} | {env} | {key} |");
        assert!(readme.contains(&row), "README.md has no row {row}");
        let has = printed
            .lines()
            .any(|line| line.starts_with(&format!("{long} = ")) || line == format!("# {long} is not set"));
        assert_eq!(has, setting, "{long}: {printed}");
        seen += 1;
    }
    assert!(seen >= 14, "{seen}");
}
