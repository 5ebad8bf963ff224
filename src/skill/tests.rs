//! The skill on disk: every place, whatever lies there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::*;

/// A home and a project in it of their own.
struct User {
    place: tempfile::TempDir,
    variables: Vec<(&'static str, PathBuf)>,
}

impl User {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let user = Self { variables: vec![("HOME", place.path().join("home"))], place };
        for dir in ["home", "project"] {
            fs::create_dir(user.path(dir)).unwrap();
        }
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn around(&self) -> Surroundings {
        let variable = |name: &str| {
            self.variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, path)| path.clone().into_os_string())
        };
        Surroundings::of(&self.path("project"), variable)
    }

    fn target(&self, harness: Harness, scope: Scope) -> Target {
        self.around().targets(&[harness], scope).unwrap().remove(0)
    }

    /// Every place that there is.
    fn all(&self) -> Vec<Target> {
        [Scope::User, Scope::Project]
            .into_iter()
            .flat_map(|scope| self.around().targets(&Harness::ALL, scope).unwrap())
            .collect()
    }

    /// Everything below it, directories included.
    fn tree(&self) -> Vec<PathBuf> {
        let mut open = vec![self.path("home"), self.path("project")];
        let mut found = Vec::new();
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    open.push(path.clone());
                }
                found.push(path);
            }
        }
        found
    }
}

fn changes(done: &[Done]) -> Vec<Change> {
    done.iter().map(|done| done.change).collect()
}

fn of_version(version: &str) -> String {
    stamp::stamp(
        &TEXT.replace(
            &format!("version: \"{}\"", env!("CARGO_PKG_VERSION")),
            &format!("version: \"{version}\""),
        ),
    )
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn what_is_installed_is_current_and_removing_it_leaves_nothing() {
    let user = User::new();
    for target in user.all() {
        assert_eq!(target.state().unwrap(), State::Missing);
        assert!(
            changes(&target.install().unwrap()).iter().all(|change| *change == Change::Created),
            "{target:?}"
        );
        assert_eq!(target.state().unwrap(), State::Current, "{target:?}");
        let again = target.install().unwrap();
        assert!(changes(&again).iter().all(|change| *change == Change::Unchanged), "{again:?}");
        let read = fs::read_to_string(&target.path).unwrap();
        assert!(read.contains("agent-wormhole"), "{read}");
        let removed = target.remove().unwrap();
        assert!(changes(&removed).iter().all(|change| *change == Change::Removed), "{removed:?}");
        assert_eq!(user.tree(), Vec::<PathBuf>::new(), "{target:?}");
        assert!(changes(&target.remove().unwrap()).iter().all(|change| *change == Change::Absent));
    }
}

#[test]
fn claude_has_a_link_to_the_copy_and_a_project_has_files() {
    let mut user = User::new();
    user.variables.push(("CLAUDE_CONFIG_DIR", user.path("home/claude")));
    user.variables.push(("XDG_DATA_HOME", user.path("home/data")));
    user.target(Harness::Claude, Scope::User).install().unwrap();
    let link = user.path("home/claude/skills/agent-wormhole/SKILL.md");
    assert_eq!(fs::read_link(&link).unwrap(), user.path("home/data/agent-wormhole/skill/SKILL.md"));
    assert_eq!(fs::read_to_string(link).unwrap(), stamp::stamped());
    user.target(Harness::Claude, Scope::Project).install().unwrap();
    let file = user.path("project/.claude/skills/agent-wormhole/SKILL.md");
    assert!(file.symlink_metadata().unwrap().is_file());
    // Three agents read one file.
    let shared = user.around().targets(&Harness::ALL, Scope::User).unwrap().remove(1);
    assert_eq!(shared.readers, [Harness::Codex, Harness::Gemini, Harness::Cursor]);
    assert_eq!(shared.path, user.path("home/.agents/skills/agent-wormhole/SKILL.md"));
    // A directory that was there before stays, and so does what others put there.
    write(&user.path("home/claude/skills/other/SKILL.md"), "x");
    user.target(Harness::Claude, Scope::User).remove().unwrap();
    assert!(user.path("home/claude/skills/other/SKILL.md").exists());
    assert!(!user.path("home/claude/skills/agent-wormhole").exists());
}

#[test]
fn what_others_put_there_is_left_and_named_and_nothing_else_is_written() {
    let user = User::new();
    for target in user.all().into_iter().filter(|target| target.readers != [Harness::AgentsMd]) {
        let lay: [fn(&Path); 4] = [
            |path| fs::write(path, "---\nname: agent-wormhole\n---\nmine\n").unwrap(),
            |path| fs::create_dir(path).unwrap(),
            |path| symlink("/usr/lib/python3/site-packages/agent_wormhole/SKILL.md", path).unwrap(),
            |path| fs::write(path, b"\xff\xfe").unwrap(),
        ];
        for lay in lay {
            fs::create_dir_all(target.path.parent().unwrap()).unwrap();
            lay(&target.path);
            let before = user.tree();
            assert!(matches!(target.state().unwrap(), State::Foreign { .. }));
            for refused in [target.install(), target.remove()] {
                let error = refused.unwrap_err();
                assert!(matches!(error, SkillError::Foreign { .. }) && error.is_usage(), "{error}");
            }
            assert_eq!(user.tree(), before);
            let _ = fs::remove_file(&target.path).or_else(|_| fs::remove_dir(&target.path));
        }
    }
}

#[test]
fn what_was_changed_by_hand_is_left() {
    let user = User::new();
    for target in user.all() {
        target.install().unwrap();
        let changed = fs::read_to_string(&target.path)
            .unwrap()
            .replace("never consent", "consent")
            .replace("never", "always");
        // Through the link, as an editor does.
        fs::write(&target.path, &changed).unwrap();
        assert_eq!(target.state().unwrap(), State::Edited, "{target:?}");
        let error = target.install().unwrap_err();
        assert!(matches!(error, SkillError::Edited { .. }) && error.is_usage(), "{error}");
        assert_eq!(fs::read_to_string(&target.path).unwrap(), changed);
        assert!(target.remove().is_err(), "{target:?}");
        assert_eq!(fs::read_to_string(&target.path).unwrap(), changed);
        let _ = fs::remove_file(&target.path);
        let _ = fs::remove_dir_all(user.path("home/.local"));
    }
}

#[test]
fn what_is_old_is_brought_up_to_date_and_what_is_newer_is_left() {
    let user = User::new();
    for target in user.all().into_iter().filter(|target| target.readers != [Harness::AgentsMd]) {
        target.install().unwrap();
        fs::write(&target.path, of_version("0.1.9")).unwrap();
        assert_eq!(target.state().unwrap(), State::Old { version: "0.1.9".into() });
        assert!(changes(&target.install().unwrap()).contains(&Change::Updated));
        assert_eq!(target.state().unwrap(), State::Current);
        fs::write(&target.path, of_version("99.0.0")).unwrap();
        assert_eq!(target.state().unwrap(), State::Newer { version: "99.0.0".into() });
        assert!(changes(&target.install().unwrap()).iter().all(|change| *change == Change::Unchanged));
        target.remove().unwrap();
    }
    // A file of ours where the link should be becomes the link.
    let claude = user.target(Harness::Claude, Scope::User);
    write(&claude.path, &stamp::stamped());
    assert_eq!(changes(&claude.install().unwrap()), [Change::Created, Change::Updated]);
    assert!(claude.path.is_symlink());
    // A link that leads nowhere is mended.
    fs::remove_dir_all(user.path("home/.local")).unwrap();
    assert_eq!(claude.state().unwrap(), State::Dangling);
    assert_eq!(changes(&claude.install().unwrap()), [Change::Created, Change::Unchanged]);
    assert_eq!(claude.state().unwrap(), State::Current);
}

#[test]
fn any_run_of_a_newer_program_refreshes_what_is_there_old_and_untouched() {
    let user = User::new();
    refresh(&user.around());
    assert_eq!(user.tree(), Vec::<PathBuf>::new());
    let kept = [
        user.path("home/.local/share/agent-wormhole/skill/SKILL.md"),
        user.path("home/.agents/skills/agent-wormhole/SKILL.md"),
    ];
    let old = of_version("0.1.9");
    let edited = old.replace("never consent", "consent");
    assert_ne!(edited, old);
    for path in &kept {
        for (found, after) in [
            (old.as_str(), stamp::stamped()),
            (&edited, edited.clone()),
            (&of_version("99.0.0"), of_version("99.0.0")),
            ("mine", "mine".to_owned()),
            ("---\n  version: \"0.1.0\"\n---\n", "---\n  version: \"0.1.0\"\n---\n".to_owned()),
        ] {
            write(path, found);
            refresh(&user.around());
            assert_eq!(fs::read_to_string(path).unwrap(), after);
        }
        // Nothing is read or written through a link.
        let elsewhere = user.path("elsewhere");
        fs::write(&elsewhere, &old).unwrap();
        fs::remove_file(path).unwrap();
        symlink(&elsewhere, path).unwrap();
        refresh(&user.around());
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), old);
        assert!(path.is_symlink());
    }
    // A project's files are its own.
    let project = user.path("project/.agents/skills/agent-wormhole/SKILL.md");
    write(&project, &old);
    refresh(&user.around());
    assert_eq!(fs::read_to_string(project).unwrap(), old);
}

#[test]
fn in_a_project_nothing_is_written_through_a_link() {
    let user = User::new();
    let elsewhere = user.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for harness in [Harness::Claude, Harness::Codex] {
        let target = user.target(harness, Scope::Project);
        let skill = target.path.parent().unwrap();
        let skills = skill.parent().unwrap();
        for link in [skills.parent().unwrap(), skills, skill] {
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&elsewhere, link).unwrap();
            for refused in [target.install(), target.remove()] {
                let error = refused.unwrap_err();
                assert!(matches!(&error, SkillError::Link { path } if path == link), "{error}");
            }
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
            fs::remove_file(link).unwrap();
        }
    }
    let victim = user.path("victim");
    fs::write(&victim, "x\n").unwrap();
    symlink(&victim, user.path("project/AGENTS.md")).unwrap();
    let target = user.target(Harness::AgentsMd, Scope::Project);
    assert!(matches!(target.install().unwrap_err(), SkillError::Link { .. }));
    assert_eq!(fs::read_to_string(victim).unwrap(), "x\n");
}

#[test]
fn a_home_may_keep_its_directories_elsewhere() {
    let user = User::new();
    fs::create_dir(user.path("home/dotfiles")).unwrap();
    symlink("dotfiles", user.path("home/.claude")).unwrap();
    let target = user.target(Harness::Claude, Scope::User);
    target.install().unwrap();
    assert!(user.path("home/dotfiles/skills/agent-wormhole/SKILL.md").is_symlink());
    assert_eq!(target.state().unwrap(), State::Current);
    target.remove().unwrap();
    assert!(user.path("home/.claude").is_symlink() && user.path("home/dotfiles").is_dir());
    assert!(!user.path("home/dotfiles/skills").exists());
    // A link that leads nowhere, and a file where a directory should be.
    fs::remove_dir(user.path("home/dotfiles")).unwrap();
    assert!(matches!(target.install().unwrap_err(), SkillError::NotADirectory { .. }));
    fs::write(user.path("home/.agents"), "x").unwrap();
    let error = user.target(Harness::Codex, Scope::User).install().unwrap_err();
    assert!(matches!(error, SkillError::NotADirectory { .. }), "{error}");
}

#[test]
fn agents_md_keeps_its_mode_and_what_others_wrote() {
    let user = User::new();
    let path = user.path("project/AGENTS.md");
    fs::write(&path, "# Rules\n\nBe kind.\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let target = user.target(Harness::AgentsMd, Scope::User);
    assert_eq!(changes(&target.install().unwrap()), [Change::Updated]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o664);
    let with = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{with}\nMore.\n")).unwrap();
    assert_eq!(target.state().unwrap(), State::Current);
    target.remove().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "# Rules\n\nBe kind.\n\nMore.\n");
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(target.install().unwrap_err(), SkillError::Foreign { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"\xff");
}

/// Who else may write to a project may have put a file there, and what is put in its place is the user's own.
#[test]
fn a_file_of_somebody_else_makes_none_that_runs_as_this_user() {
    let user = User::new();
    let path = user.path("project/AGENTS.md");
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6775)).unwrap();
    let target = user.target(Harness::AgentsMd, Scope::Project);
    target.install().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o775);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6775)).unwrap();
    target.remove().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o775);
}

#[test]
fn how_it_stands_is_told_for_each_agent_and_without_a_home_not_at_all() {
    let user = User::new();
    user.target(Harness::Gemini, Scope::User).install().unwrap();
    fs::write(user.path("home/.claude"), "x").unwrap();
    let told = standing(&user.around()).unwrap();
    let states: Vec<_> = told.iter().map(|one| (one.readers.len(), &one.state)).collect();
    assert_eq!(states[1], (3, &State::Current));
    assert!(matches!(states[0], (1, State::Foreign { .. })), "{states:?}");
    let homeless = Surroundings::of(&user.path("project"), |_| None);
    assert!(matches!(standing(&homeless), Err(SkillError::NoHome)));
    refresh(&homeless);
    // A project needs no home, and a path that is not whole is none.
    assert!(homeless.targets(&Harness::ALL, Scope::Project).is_ok());
    let relative = Surroundings::of(&user.path("project"), |_| Some("home".into()));
    assert!(matches!(standing(&relative), Err(SkillError::NoHome)));
}
