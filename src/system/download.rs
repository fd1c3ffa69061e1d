//! One HTTP request to another node, its answer taken as it comes. A client of our own because the
//! need is small: one question a connection, and certainty that an answer is all of it, which needs the
//! length or the chunks to be counted.

use super::tls;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A host that is there answers within milliseconds; one that is not must not hold up the next.
const CONNECT_AT_MOST: Duration = Duration::from_secs(3);
/// Until an answer begins: there was a connection, but a frozen machine gives one, too. A server's
/// recovery waits for this, file by file.
const HEAD_AT_MOST: Duration = Duration::from_secs(10);
/// Between two pieces of an answer. The other side may wait for its disk.
const SILENCE_AT_MOST: Duration = Duration::from_secs(30);
/// Of the status line and the headers.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// A node's word, or a status of a hundred nodes, is smaller.
const SHORT_BYTES_MAX: usize = 1 << 20;

/// A node's HTTP port, and how it is spoken to.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// By which name or address it is reached.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// It speaks TLS, as this node does with these files.
    pub tls: Option<tls::Files<'a>>,
}

/// A connection, over TLS or not.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}
type Stream = BufReader<Box<dyn Wire>>;

/// An answer of which the head is there.
pub struct Answer {
    /// HTTP's status code.
    pub code: u16,
    headers: Vec<(String, String)>,
    stream: Stream,
    rest: Rest,
}

/// How much is still to come.
enum Rest {
    Bytes(u64),
    /// Chunks, and so many bytes of the present one.
    Chunks(u64),
    /// As much as comes: such an answer may be cut off unnoticed.
    Unknown,
    Nothing,
}

/// Asks `node` for `path`, showing `token`.
pub async fn get(node: Node<'_>, path: &str, token: &str) -> io::Result<Answer> {
    ask("GET", node, path, Some(token)).await
}

/// A short answer.
#[derive(Clone, Debug)]
pub struct Said {
    /// HTTP's status code.
    pub code: u16,
    /// Its body.
    pub text: String,
    /// The header [`PROOF`].
    pub proof: Option<String>,
}

/// Where a node shows that it is a member.
pub const PROOF: &str = "pgherd-proof";

/// The whole answer to a question that is answered from memory, within `at_most`.
pub async fn ask_soon(
    method: &str,
    node: Node<'_>,
    path: &str,
    token: Option<&str>,
    at_most: Duration,
) -> io::Result<Said> {
    let asked = async {
        let answer = ask(method, node, path, token).await?;
        let (code, proof) = (answer.code, answer.header(PROOF).map(str::to_owned));
        Ok(Said { code, proof, text: answer.text(SHORT_BYTES_MAX).await? })
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    timeout(at_most, asked).await.map_err(|_| late())?
}

async fn ask(
    method: &str,
    Node { host, port, tls }: Node<'_>,
    path: &str,
    token: Option<&str>,
) -> io::Result<Answer> {
    let stream = within(CONNECT_AT_MOST, TcpStream::connect((host, port))).await?;
    let stream: Box<dyn Wire> = match tls {
        Some(files) => Box::new(within(CONNECT_AT_MOST, tls::connect(files, host, stream)).await?),
        None => Box::new(stream),
    };
    let named = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    };
    let shown = token.map(|token| format!("Authorization: Bearer {}\r\n", token.trim()));
    let shown = shown.unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {named}:{port}\r\n{shown}Content-Length: 0\r\n\
         Connection: close\r\n\r\n"
    );
    let mut stream = BufReader::new(stream);
    let sent = async {
        stream.get_mut().write_all(request.as_bytes()).await?;
        stream.get_mut().flush().await
    };
    within(SILENCE_AT_MOST, sent).await?;
    let (code, headers) = within(HEAD_AT_MOST, head(&mut stream)).await?;
    let mut answer = Answer { code, headers, stream, rest: Rest::Unknown };
    let chunked = answer.header("transfer-encoding").is_some_and(|how| how == "chunked");
    answer.rest = match answer.header("content-length").map(str::parse) {
        _ if chunked => Rest::Chunks(0),
        Some(Ok(length)) => Rest::Bytes(length),
        Some(Err(_)) => return Err(malformed("its length is no number")),
        None => Rest::Unknown,
    };
    Ok(answer)
}

async fn head(stream: &mut Stream) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut limited = stream.take(HEAD_BYTES_MAX);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line).await? == 0 {
            return Err(malformed("it has no end of headers"));
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines.first().and_then(|line| line.strip_prefix("HTTP/1."));
    let code = status.and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let code = code.ok_or_else(|| malformed("it has no status"))?;
    let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Ok((code, headers.collect()))
}

impl Answer {
    /// The value of the header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The next bytes of the body; 0 at its end. An answer that was cut off is an error.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Rest::Chunks(0) = self.rest {
            let length = within(SILENCE_AT_MOST, chunk_length(&mut self.stream)).await?;
            self.rest = if length == 0 { Rest::Nothing } else { Rest::Chunks(length) };
        }
        let wanted = match self.rest {
            Rest::Nothing | Rest::Bytes(0) => return Ok(0),
            Rest::Bytes(left) | Rest::Chunks(left) => {
                usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len())
            }
            Rest::Unknown => buffer.len(),
        };
        let count = within(SILENCE_AT_MOST, self.stream.read(&mut buffer[..wanted])).await?;
        let taken = count as u64;
        match &mut self.rest {
            Rest::Bytes(left) => *left -= taken,
            Rest::Chunks(left) => {
                *left -= taken;
                if *left == 0 {
                    let mut line_end = [0; 2];
                    let read = self.stream.read_exact(&mut line_end);
                    within(SILENCE_AT_MOST, read).await?;
                }
            }
            Rest::Unknown | Rest::Nothing => return Ok(count),
        }
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off"));
        }
        Ok(count)
    }

    /// All of a short body, as text.
    pub async fn text(mut self, bytes_max: usize) -> io::Result<String> {
        let mut buffer = vec![0; bytes_max];
        let mut length = 0;
        while length < bytes_max {
            match self.read(&mut buffer[length..]).await? {
                0 => break,
                count => length += count,
            }
        }
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

async fn chunk_length(stream: &mut Stream) -> io::Result<u64> {
    let mut line = String::new();
    stream.take(HEAD_BYTES_MAX).read_line(&mut line).await?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16).map_err(|_| match line.is_empty() {
        true => io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off"),
        false => malformed("a chunk has no length"),
    })
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP: {what}"))
}

async fn within<T>(at_most: Duration, act: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(at_most, act).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What is read of an answer that says `said` and ends there.
    fn read(said: &'static str) -> io::Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let port = listener.local_addr()?.port();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
            });
            let node = Node { host: "127.0.0.1", port, tls: None };
            get(node, "/", "x").await?.text(1000).await
        })
    }

    #[test]
    fn an_answer_that_was_cut_off_is_an_error_and_never_a_shorter_answer() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap(), "hello");
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let whole = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n";
        assert_eq!(read(whole).unwrap(), "hello");
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Le",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            chunks,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhe",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
        ] {
            read(cut).expect_err(cut);
        }
    }
}
