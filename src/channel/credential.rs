//! Whether plain bytes look like a credential: what belongs into `outbox/secrets/` is often sent as a text by mistake.
//!
//! Owns the formats, each as its vendor describes it, by a prefix or a shape that hardly anything else has. Knows no
//! channel and keeps nothing of what it looks at. No entropy is guessed at: hashes, commits and identifiers are what
//! agents send each other all day.
//!
//! A table of its own, because the rule sets that are kept as crates were tried and cannot be had in a process that
//! promises bounded memory: `secrets_scanner` 0.2.3 (the rules of gitleaks and kingfisher) takes 3.7 s and 660 MB to
//! start and a minute and a half to build, `ripsecrets` 0.1.11 searches files and prints.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

/// Most memory that a compiled format may take, in bytes.
const MAX_FORMAT: usize = 256 * 1024;

/// What a credential is called, and its shape: bytes, no Unicode classes.
const FORMATS: [(&str, &str); 44] = [
    // IAM identifiers: AKIA are keys of users, ASIA temporary ones; base 32.
    ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    (
        "an AWS secret access key",
        r#"(?i)aws_?secret_?(?:access_?)?key["']?\s{0,8}[:=]\s{0,8}["']?[a-z0-9/+]{40}\b"#,
    ),
    ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,251}\b"),
    ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
    ("a GitLab token", r"\bgl(?:agent|cbt|dt|ffct|ft|imt|oas|pat|ptt|rt|soat)-[A-Za-z0-9_-]{20,}"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("a Slack token", r"\bxapp-[0-9]-[A-Z0-9]{8,}-[0-9]{8,}-[a-f0-9]{32,}\b"),
    ("a Slack webhook", r"\bhooks\.slack\.com/(?:services|workflows)/[A-Z0-9]{8,}/[A-Za-z0-9/_-]{20,}"),
    ("a Stripe key", r"\b(?:[rs]k)_(?:live|test)_[A-Za-z0-9]{16,}\b"),
    ("a Stripe webhook secret", r"\bwhsec_[A-Za-z0-9+/=]{32,}"),
    ("an OpenAI key", r"\bsk-(?:admin|proj|svcacct)-[A-Za-z0-9_-]{40,}"),
    ("an OpenAI key", r"\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b"),
    ("an Anthropic key", r"\bsk-ant-[a-z]{2,8}[0-9]{2}-[A-Za-z0-9_-]{80,}"),
    ("an xAI key", r"\bxai-[A-Za-z0-9]{80}\b"),
    ("a Groq key", r"\bgsk_[A-Za-z0-9]{52}\b"),
    ("a Perplexity key", r"\bpplx-[A-Za-z0-9]{48}\b"),
    ("a Replicate token", r"\br8_[A-Za-z0-9]{37}\b"),
    ("a Hugging Face token", r"\bhf_[A-Za-z]{34}\b"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    ("a Google OAuth secret", r"\bGOCSPX-[A-Za-z0-9_-]{28}\b"),
    // Labels of RFC 7468, of OpenSSH and of OpenPGP's armour.
    ("a private key", r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    ("a PuTTY private key", r"\bPuTTY-User-Key-File-[23]: "),
    ("an age secret key", r"\bAGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]{58,}\b"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("an npm token", r"//[^\s/]{1,200}/[^\s]{0,200}:_authToken=[A-Za-z0-9_-]{16,}"),
    // `pypi-` and the base 64 of a macaroon of pypi.org.
    ("a PyPI token", r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    ("a RubyGems token", r"\brubygems_[a-f0-9]{48}\b"),
    ("a crates.io token", r"\bcio[A-Za-z0-9]{32}\b"),
    ("a Docker token", r"\bdckr_(?:oat|pat)_[A-Za-z0-9_-]{27,}"),
    ("a DigitalOcean token", r"\bdo[opr]_v1_[a-f0-9]{64}\b"),
    ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b"),
    ("a Vault token", r"\bhv[brs]\.[A-Za-z0-9_-]{24,}"),
    ("a Terraform token", r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,}"),
    ("an Azure storage key", r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
    ("a Databricks token", r"\bdapi[a-f0-9]{32}\b"),
    ("a Shopify token", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b"),
    ("a Telegram bot token", r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    ("a Tailscale key", r"\btskey-(?:api|auth|client|scim|webhook)-[A-Za-z0-9-]{16,}"),
    ("a Grafana token", r"\bglsa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8}\b"),
    ("a Sentry token", r"\bsntr(?:u_[a-f0-9]{64}|ys_eyJ[A-Za-z0-9_+/=-]{80,})"),
    ("a Linear key", r"\blin_api_[A-Za-z0-9]{40}\b"),
    ("a 1Password token", r"\bops_eyJ[A-Za-z0-9+/]{200,}"),
    // RFC 7519: header and payload are objects, `{"` in base 64.
    ("a JSON Web Token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}"),
    // RFC 3986, 3.2.1. Placeholders in brackets, `$NAME` and `USER:PASSWORD` are none.
    (
        "a URL with a password",
        r"\b(?:https?|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|rediss?|amqps?|ftps?)://[A-Za-z0-9._~%+-]{0,64}:[a-z0-9._~%+!*-][A-Za-z0-9._~%+!*-]{6,}@[A-Za-z0-9\[]",
    ),
];

/// Each by itself: nearly all begin with, or hold, a few bytes that hardly any text has, and what is left out by these is
/// not looked at again. All at once they would share no such bytes: 1.6 s for a mebibyte made for it, and 0.2 s for one of
/// base 64, against milliseconds.
static TABLE: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let compiled = FORMATS.iter().filter_map(|(name, shape)| match compile(shape) {
        Ok(shape) => Some((*name, shape)),
        Err(error) => {
            // Its test says so before.
            tracing::error!(%error, name, "a format of credentials cannot be used");
            None
        }
    });
    compiled.collect()
});

fn compile(shape: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(shape).unicode(false).size_limit(MAX_FORMAT).dfa_size_limit(MAX_FORMAT).build()
}

/// What these bytes look like, where they look like a credential. Never part of them.
pub(super) fn resembled(bytes: &[u8]) -> Option<&'static str> {
    TABLE.iter().find(|(_, shape)| shape.is_match(bytes)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same character so many times.
    fn x(times: usize) -> String {
        "x".repeat(times)
    }

    #[test]
    fn the_table_is_sound_and_bounded() {
        assert_eq!(TABLE.len(), FORMATS.len());
        for (name, _) in FORMATS {
            assert!(name.starts_with("a ") || name.starts_with("an "), "{name}");
        }
    }

    /// Made up, in the shape that its vendor describes; in pieces, so that no scanner takes this file for a leak.
    fn made_up() -> Vec<(&'static str, String)> {
        let (hex, upper) = ("0a1b2c3d4e5f6a7b".repeat(8), "ABCDEFGHJKLMNPQRSTUVWXYZ23456777".repeat(4));
        vec![
            ("an AWS access key", format!("AWS_ACCESS_KEY_ID={}{}", "AKIA", &upper[..16])),
            ("an AWS secret access key", format!("aws_secret_access_key = {}", &hex[..40])),
            ("a GitHub token", format!("token: {}_{}", "ghp", x(36))),
            ("a GitHub token", format!("{}_{}_{}", "github_pat", x(22), x(59))),
            ("a GitLab token", format!("{}-{}", "glpat", x(20))),
            ("a Slack token", format!("{}-{}", "xoxb", "1".repeat(30))),
            ("a Slack token", format!("{}-1-A0123456789-1234567890123-{}", "xapp", &hex[..64])),
            (
                "a Slack webhook",
                format!("https://{}/services/T01234567/B01234567/{}", "hooks.slack.com", x(24)),
            ),
            ("a Stripe key", format!("{}_live_{}", "sk", x(24))),
            ("a Stripe webhook secret", format!("{}_{}", "whsec", x(32))),
            ("an OpenAI key", format!("{}-proj-{}", "sk", x(48))),
            ("an OpenAI key", format!("{}-{}{}{}", "sk", x(20), "T3BlbkFJ", x(20))),
            ("an Anthropic key", format!("export ANTHROPIC_API_KEY={}-api03-{}", "sk-ant", x(95))),
            ("an xAI key", format!("{}-{}", "xai", x(80))),
            ("a Groq key", format!("{}_{}", "gsk", x(52))),
            ("a Perplexity key", format!("{}-{}", "pplx", x(48))),
            ("a Replicate token", format!("{}_{}", "r8", x(37))),
            ("a Hugging Face token", format!("{}_{}", "hf", x(34))),
            ("a Google API key", format!("{}{}", "AIza", x(35))),
            ("a Google OAuth secret", format!("{}-{}", "GOCSPX", x(28))),
            ("a private key", format!("{} RSA {}\nMII", "-----BEGIN", "PRIVATE KEY-----")),
            ("a private key", format!("{} PGP {}", "-----BEGIN", "PRIVATE KEY BLOCK-----")),
            ("a private key", format!("x\n{} {}", "-----BEGIN", "PRIVATE KEY-----")),
            ("a PuTTY private key", format!("{}-3: ssh-ed25519", "PuTTY-User-Key-File")),
            ("an age secret key", format!("{}-1{}", "AGE-SECRET-KEY", &upper[..58])),
            ("an npm token", format!("{}_{}", "npm", x(36))),
            ("an npm token", format!("//registry.example.org/:{}={}", "_authToken", x(36))),
            ("a PyPI token", format!("{}-AgEIcHlwaS5vcmc{}", "pypi", x(60))),
            ("a RubyGems token", format!("{}_{}", "rubygems", &hex[..48])),
            ("a crates.io token", format!("{}{}", "cio", x(32))),
            ("a Docker token", format!("{}_pat_{}", "dckr", x(27))),
            ("a DigitalOcean token", format!("{}_v1_{}", "dop", &hex[..64])),
            ("a SendGrid key", format!("{}.{}.{}", "SG", x(22), x(43))),
            ("a Vault token", format!("{}.{}", "hvs", x(90))),
            ("a Terraform token", format!("{}.{}.{}", x(14), "atlasv1", x(67))),
            ("an Azure storage key", format!("AccountName=a;{}={}==", "AccountKey", x(86))),
            ("a Databricks token", format!("{}{}", "dapi", &hex[..32])),
            ("a Shopify token", format!("{}_{}", "shpat", &hex[..32])),
            ("a Telegram bot token", format!("123456789:{}{}", "AA", x(33))),
            ("a Tailscale key", format!("{}-auth-{}", "tskey", x(20))),
            ("a Grafana token", format!("{}_{}_{}", "glsa", x(32), &hex[..8])),
            ("a Sentry token", format!("{}_{}", "sntru", &hex[..64])),
            ("a Linear key", format!("{}_{}", "lin_api", x(40))),
            ("a 1Password token", format!("{}_eyJ{}", "ops", x(220))),
            ("a JSON Web Token", format!("Bearer {}{}.{}{}.{}", "eyJ", x(20), "eyJ", x(20), x(43))),
            (
                "a URL with a password",
                format!("DATABASE_URL=postgres://app:{}@db.example.org/app", "s3cretpw"),
            ),
            ("a URL with a password", format!("redis://:{}@10.0.0.7:6379", "longpassword")),
        ]
    }

    #[test]
    fn each_format_is_found_wherever_it_stands() {
        let made_up = made_up();
        for (index, (name, shape)) in FORMATS.iter().enumerate() {
            let alone = compile(shape).unwrap();
            let of_it = made_up.iter().filter(|(_, text)| alone.is_match(text.as_bytes())).count();
            assert!(of_it > 0, "format {index}, {name}, has no example");
        }
        for (name, text) in &made_up {
            for around in [text.clone(), format!("a: \"{text}\"\n"), format!("\u{0}\u{ff}\n{text}\r\nmore")] {
                assert_eq!(resembled(around.as_bytes()), Some(*name), "{around:?}");
            }
        }
    }

    #[test]
    fn what_agents_send_each_other_all_day_is_not_found() {
        let hex = "4f2a9c1e8b7d6a5f4e3d2c1b0a9f8e7d6c5b4a39";
        for text in [
            "the build is green".to_owned(),
            format!("see commit {hex}"),
            format!("sha256:{hex}{}", &hex[..24]),
            "123e4567-e89b-12d3-a456-426614174000".to_owned(),
            "connect with 9471-cross-clock-marble".to_owned(),
            "agent-wormhole connect 40123-cross-clock-marble@192.0.2.7".to_owned(),
            "sk-learn, skip-me-please-and-this-too-it-is-long-enough-to-look-like-one".to_owned(),
            "git clone https://github.com/owner/repository.git && cd repository".to_owned(),
            "http://USER:PASSWORD@proxy.example.org:3128 and redis://:$PASSWORD@host and http://u:<pw>@h".to_owned(),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me".to_owned(),
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----".to_owned(),
            "-----BEGIN PUBLIC KEY-----".to_owned(),
            "const KEY: [u8; 32] = [0; 32]; password: hunter2".to_owned(),
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
                .to_owned(),
            "eyJhbGciOiJIUzI1NiJ9 is the header alone".to_owned(),
            String::new(),
        ] {
            assert_eq!(resembled(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_longest_text_is_looked_at_whole() {
        let mut text = vec![b' '; 1024 * 1024];
        let key = format!("{}{}", "AKIA", "A".repeat(16));
        text.extend_from_slice(key.as_bytes());
        assert_eq!(resembled(&text), Some("an AWS access key"));
    }
}
