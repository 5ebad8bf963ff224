//! stub
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
#[derive(Debug, Clone)]
pub struct Options {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub arg0: Option<OsString>,
}
pub struct Bell;
#[derive(Debug, thiserror::Error)]
pub enum BellError {
    #[error("{0}")]
    Errno(rustix::io::Errno),
    #[error("{0}")]
    Gone(io::Error),
    #[error("closed")]
    Closed,
}
type R = Result<(), BellError>;
impl Bell {
    pub fn start(_: Options, _: PathBuf, _: String) -> io::Result<Self> {
        todo!()
    }
    pub fn mounted(&self) -> R {
        todo!()
    }
    pub fn pid(&self) -> u32 {
        todo!()
    }
    pub fn place(&self, _: &str, _: &[String], _: &str) -> R {
        todo!()
    }
    pub fn make_dirs(&self, _: &[String]) -> R {
        todo!()
    }
    pub fn append(&self, _: &str, _: &[u8]) -> R {
        todo!()
    }
    pub fn truncate(&self, _: &str) -> R {
        todo!()
    }
    pub fn rename(&self, _: &str, _: &str) -> R {
        todo!()
    }
    pub fn unlink(&self, _: &str) -> R {
        todo!()
    }
    pub fn rmdir(&self, _: &str) -> R {
        todo!()
    }
    pub fn detach(&self) -> io::Result<()> {
        todo!()
    }
}
pub fn run() -> std::process::ExitCode {
    todo!()
}
