//! Lines of text with a limit.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The next line without its end. `None`: there is no more. Not cancel safe.
///
/// # Errors
/// As [`read_on`].
pub async fn read(input: &mut (impl AsyncBufRead + Unpin), limit: usize) -> io::Result<Option<String>> {
    read_on(input, &mut Vec::new(), limit).await
}

/// The next line without its end. `None`: there is no more. Cancel safe, when the same `partial` is given again.
///
/// # Errors
/// When it cannot be read, is longer than `limit`, or is no text.
pub async fn read_on(
    input: &mut (impl AsyncBufRead + Unpin),
    partial: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Option<String>> {
    loop {
        let available = input.fill_buf().await?;
        let has_ended = available.is_empty();
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        partial.extend_from_slice(&available[..taken]);
        input.consume(taken + usize::from(end.is_some()));
        if partial.len() > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line of more than {limit} bytes"),
            ));
        }
        if has_ended && partial.is_empty() {
            return Ok(None);
        }
        if has_ended || end.is_some() {
            let line = String::from_utf8(std::mem::take(partial));
            return line.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_one_by_one_and_the_last_needs_no_end() {
        let mut input = &b"one\n\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = read(&mut input, 10).await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "", "last"]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        read(&mut tokio::io::BufReader::new(tokio::io::repeat(b'x')), 1_000).await.unwrap_err();
        read(&mut &b"\xff\n"[..], 10).await.unwrap_err();
    }
}
