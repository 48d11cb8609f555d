//! Fields as ranges into the text they came in.

use std::ops::Range;

use super::{Known, Span};

/// One field of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
    pub(crate) known: Known,
    /// Taken out: hop-by-hop, or replaced by a field of ours.
    pub(crate) dropped: bool,
}

/// Fields in order, with the text they point into.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeaderList {
    text: Vec<u8>,
    fields: Vec<Field>,
}

impl HeaderList {
    #[inline]
    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    /// Appends text that no field owns (a start line, a whole head) and says where it is.
    pub(crate) fn append_text(&mut self, bytes: &[u8]) -> Span {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        Span { start, end: self.text.len() as u32 }
    }

    /// Adds a field whose name and value are already in the text.
    pub(crate) fn push_spans(&mut self, name: Span, value: Span) -> Known {
        let known = Known::of(name.of(&self.text));
        self.fields.push(Field { name, value, known, dropped: false });
        known
    }

    /// Adds a field, copying it to the end of the text.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) -> Known {
        let (known, _) = self.append(name, value);
        known
    }

    /// [`HeaderList::push`], saying where the value is.
    pub(crate) fn push_value(&mut self, name: &[u8], value: &[u8]) -> Span {
        let (_, span) = self.append(name, value);
        span
    }

    /// The text is laid out as a line, so that it can be written in one piece with its neighbours.
    fn append(&mut self, name: &[u8], value: &[u8]) -> (Known, Span) {
        self.text.reserve(name.len() + value.len() + 4);
        let name = self.append_text(name);
        self.text.extend_from_slice(b": ");
        let value = self.append_text(value);
        self.text.extend_from_slice(b"\r\n");
        (self.push_spans(name, value), value)
    }

    /// The fields still in the list, as (name, value).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.kept().map(|field| (field.name.of(&self.text), field.value.of(&self.text)))
    }

    /// The fields still in the list with what is known of them.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.dropped)
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The value of the first field of this name.
    pub(crate) fn get(&self, known: Known) -> Option<&[u8]> {
        self.kept().find(|field| field.known == known).map(|field| field.value.of(&self.text))
    }

    /// Where the value of the first field of this name is.
    pub(crate) fn find(&self, known: Known) -> Option<Span> {
        self.kept().find(|field| field.known == known).map(|field| field.value)
    }

    /// The fields of this name.
    pub(crate) fn iter_known(&self, known: Known) -> impl Iterator<Item = (&[u8], &[u8])> {
        let wanted = self.kept().filter(move |field| field.known == known);
        wanted.map(|field| (field.name.of(&self.text), field.value.of(&self.text)))
    }

    /// Takes out every field that `unwanted` picks.
    pub(crate) fn drop_where(&mut self, mut unwanted: impl FnMut(Known) -> bool) {
        for field in &mut self.fields {
            field.dropped |= unwanted(field.known);
        }
    }

    /// Takes out every field that `unwanted` picks when `_` in its name is read as `-`.
    pub(crate) fn drop_look_alikes(&mut self, unwanted: impl Fn(Known) -> bool) {
        for field in self.fields.iter_mut().filter(|field| field.known == Known::Other) {
            let name = field.name.of(&self.text);
            if memchr::memchr(b'_', name).is_some() {
                field.dropped |= unwanted(Known::of_look_alike(name));
            }
        }
    }

    /// Takes out what `Connection` nominates, then nothing else: the fixed hop-by-hop fields are the writer's affair.
    pub(crate) fn drop_nominated(&mut self) {
        for at in 0..self.fields.len() {
            if self.fields[at].known != Known::Connection {
                continue;
            }
            let value = self.fields[at].value;
            let mut start = value.start;
            while start < value.end {
                let rest = &self.text[start as usize..value.end as usize];
                let len = memchr::memchr(b',', rest).unwrap_or(rest.len());
                let nominated = rest[..len].trim_ascii();
                for field in &mut self.fields {
                    field.dropped |= !nominated.is_empty()
                        && !field.known.is_hop_by_hop()
                        && field.name.of(&self.text).eq_ignore_ascii_case(nominated);
                }
                start += len as u32 + 1;
            }
        }
    }

    /// Takes the cookies of this name out of the request, and shows their values. The others stay as they are and in
    /// their order; where none is left the field is gone.
    pub(crate) fn take_cookies(&mut self, name: &[u8], mut found: impl FnMut(&[u8])) {
        for at in 0..self.fields.len() {
            let Field { value, known, dropped, .. } = self.fields[at];
            if dropped || known != Known::Cookie || memchr::memmem::find(value.of(&self.text), name).is_none()
            {
                continue;
            }
            let kept_from = self.text.len();
            let mut taken = false;
            let mut start = value.start as usize;
            while start <= value.end as usize {
                let rest = &self.text[start..value.end as usize];
                let len = memchr::memchr(b';', rest).unwrap_or(rest.len());
                let pair = rest[..len].trim_ascii();
                if let Some(value) = pair.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
                    found(value);
                    taken = true;
                } else if !pair.is_empty() {
                    let from = start + (rest[..len].len() - rest[..len].trim_ascii_start().len());
                    let pair = from..from + pair.len();
                    if self.text.len() > kept_from {
                        self.text.extend_from_slice(b"; ");
                    }
                    self.text.extend_from_within(pair);
                }
                start += len + 1;
            }
            if !taken {
                self.text.truncate(kept_from);
                continue;
            }
            let field = &mut self.fields[at];
            field.value = Span { start: kept_from as u32, end: self.text.len() as u32 };
            field.dropped = self.text.len() == kept_from;
        }
    }

    /// Writes the fields that `wanted` picks as HTTP/1.1 lines. Neighbours that lie in the text as they are to be
    /// written go out in one piece.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>, wanted: impl Fn(Known) -> bool) {
        let mut run = 0..0;
        for field in self.kept().filter(|field| wanted(field.known)) {
            match self.line(field) {
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => out.extend_from_slice(&self.text[std::mem::replace(&mut run, line)]),
                None => {
                    out.extend_from_slice(&self.text[std::mem::take(&mut run)]);
                    write_line(out, field.name.of(&self.text), field.value.of(&self.text));
                }
            }
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// Where the field lies in the text as `name: value` and CRLF, if it does.
    fn line(&self, field: &Field) -> Option<Range<usize>> {
        let (name_end, end) = (field.name.end as usize, field.value.end as usize + 2);
        let verbatim = field.value.start as usize == name_end + 2
            && self.text[name_end..].starts_with(b": ")
            && self.text[end - 2..].starts_with(b"\r\n");
        verbatim.then_some(field.name.start as usize..end)
    }
}

/// Writes one field as an HTTP/1.1 line.
#[inline]
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> HeaderList {
        let mut list = HeaderList::default();
        let base = list.append_text(text.as_bytes()).start;
        let mut start = 0;
        for line in text.split_inclusive("\r\n") {
            let (name, value) = line.trim_end().split_once(':').unwrap();
            let offset = line.find(value.trim()).unwrap();
            let span = |from: usize, len: usize| Span {
                start: base + (start + from) as u32,
                end: base + (start + from + len) as u32,
            };
            list.push_spans(span(0, name.len()), span(offset, value.trim().len()));
            start += line.len();
        }
        list
    }

    fn written(list: &HeaderList) -> String {
        let mut out = Vec::new();
        list.write_lines(&mut out, |known| known != Known::Host);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_written_in_order_however_they_lie_in_the_text() {
        let mut list = list("A: 1\r\nB:2\r\nHost: h\r\nC: 3\r\nD:   4  \r\nE: 5\r\n");
        list.push(b"F", b"6");
        list.push(b"G", b"");
        assert_eq!(written(&list), "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: \r\n");
    }

    #[test]
    fn a_cookie_is_taken_out_and_the_others_stay() {
        let check = |cookie: &str, rest: &str, values: &[&str]| {
            let mut list = list(&format!("A: 1\r\nCookie: {cookie}\r\nB: 2\r\n"));
            let mut found = Vec::new();
            list.take_cookies(b"c", |value| found.push(String::from_utf8(value.to_vec()).unwrap()));
            assert_eq!(
                (written(&list).as_str(), found),
                (rest, values.iter().map(|v| v.to_string()).collect())
            );
        };
        check("c=1", "A: 1\r\nB: 2\r\n", &["1"]);
        check("a=x; c=1; b=y", "A: 1\r\nCookie: a=x; b=y\r\nB: 2\r\n", &["1"]);
        check("c=1;a=x;c=;", "A: 1\r\nCookie: a=x\r\nB: 2\r\n", &["1", ""]);
        // Nothing of ours: not a byte is touched.
        check("cc=1;  ac=2; C=3; c", "A: 1\r\nCookie: cc=1;  ac=2; C=3; c\r\nB: 2\r\n", &[]);
    }

    #[test]
    fn what_is_nominated_is_dropped_and_nothing_else() {
        let mut list = list("A: 1\r\nConnection: close, a,x-b\r\nX-B: 2\r\nX-Bc: 3\r\n");
        list.drop_nominated();
        assert_eq!(written(&list), "Connection: close, a,x-b\r\nX-Bc: 3\r\n");
    }
}
