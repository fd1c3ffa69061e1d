//! A program whose output, or input, is too much to keep: it is handed on as it comes.

use super::process::GroupKilledOnDrop;
use super::words::{Captured, Keep, LastWords};
use super::{Program, ProgramError, Spawned, succeeded};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};

/// A running program, and what it has written. Dropped, it is killed with all of its group.
pub struct Streamed {
    program: String,
    process: GroupKilledOnDrop,
    stdout: ChildStdout,
    stderr: Captured,
}

impl Program {
    /// Starts it and returns at once. Its standard output is the caller's to read.
    pub fn stream(self) -> Result<Streamed, ProgramError> {
        let program = self.name.clone();
        let Spawned { process, stdout, stderr, .. } = self.spawn()?;
        let (stderr, _reads_on) = Captured::start(stderr, Keep::Tail);
        Ok(Streamed { program, process: GroupKilledOnDrop(process), stdout, stderr })
    }
}

/// A running program, and what it reads. Dropped, it is killed with all of its group.
pub struct Fed {
    program: String,
    process: GroupKilledOnDrop,
    stdin: ChildStdin,
    stdout: Captured,
    stderr: Captured,
}

impl Program {
    /// Starts it and returns at once. Its standard input is the caller's to write.
    pub fn feed(mut self) -> Result<Fed, ProgramError> {
        self.is_fed = true;
        let program = self.name.clone();
        let Spawned { process, stdin, stdout, stderr } = self.spawn()?;
        let stdin = stdin.expect("piped above");
        let (stdout, _reads_on) = Captured::start(stdout, Keep::Head);
        let (stderr, _reads_on) = Captured::start(stderr, Keep::Tail);
        Ok(Fed { program, process: GroupKilledOnDrop(process), stdin, stdout, stderr })
    }
}

impl Fed {
    /// Gives it the next bytes. Fails if it has ended: then [`Fed::succeeded`] says why.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdin.write_all(bytes).await
    }

    /// Says that this was all, and waits for its end, which must be a success.
    pub async fn succeeded(self) -> Result<(), ProgramError> {
        drop(self.stdin);
        let status = self.process.0.ended().await;
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        succeeded(self.program, status, || LastWords::of(&stderr, &stdout))
    }
}

impl Streamed {
    /// The next bytes of its output; 0 at its end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stdout.read(buffer).await
    }

    /// Waits for its end, which must be a success: only then is what was read all there is.
    pub async fn succeeded(self) -> Result<(), ProgramError> {
        let status = self.process.0.ended().await;
        let stderr = self.stderr.take();
        succeeded(self.program, status, || LastWords::of(&stderr, &[]))
    }
}
