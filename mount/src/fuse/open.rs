//! Opening and reading: what a reader is given, and that it was seen.

use std::time::Instant;

use fuser::{FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyOpen, Request};

use super::Adapter;
use super::translate::{code, is_writing};
use crate::files::Access;
use crate::readers;

impl Adapter {
    pub(super) fn opened(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let how = (is_writing(flags), flags.0 & libc::O_APPEND != 0, flags.0 & libc::O_TRUNC != 0);
        let caller = self.caller(request);
        // Looked up while nothing is locked, and only where it matters.
        let is_unread = self.shared.files().is_unread(inode.0);
        let counts = is_unread.then(|| readers::counts(request.pid()));
        let opened = self.shared.with(|files| {
            let mut opened = files.open(inode.0, how, caller, Instant::now())?;
            if let Some(counts) = counts {
                opened.cached &= files.read_by(opened.fh, counts, self.direct) == Access::Cached;
            }
            Ok((opened, files.is_of_the_outbox(inode.0)))
        });
        match opened {
            Ok((opened, of_the_outbox)) => {
                // A reader's close tells nothing: it must not wait for a process that is stopped, either.
                let closing = if how.0 { FopenFlags::empty() } else { FopenFlags::FOPEN_NOFLUSH };
                let flags = self.open_flags(opened.cached, of_the_outbox) | closing;
                reply.opened(FileHandle(opened.fh), flags);
            }
            Err(error) => reply.error(code(error)),
        }
    }

    /// Somebody asked for a part of a file.
    pub(super) fn saw(&self, fh: FileHandle, offset: u64, size: usize) {
        let counts = self.shared.files().is_reading(fh.0);
        if counts {
            self.shared.with(|files| files.has_read(fh.0, offset, size as u64, Instant::now()));
        }
    }
}
