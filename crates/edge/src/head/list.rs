//! Fields as ranges into the text they came in.

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
        let name = self.append_text(name);
        let value = self.append_text(value);
        self.push_spans(name, value)
    }

    /// [`HeaderList::push`], saying where the value is.
    pub(crate) fn push_value(&mut self, name: &[u8], value: &[u8]) -> Span {
        let name = self.append_text(name);
        let value = self.append_text(value);
        self.push_spans(name, value);
        value
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

    /// Writes the fields as HTTP/1.1 lines.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            write_line(out, name, value);
        }
    }
}

/// Writes one field as an HTTP/1.1 line.
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
