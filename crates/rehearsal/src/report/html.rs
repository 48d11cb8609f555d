//! Text in a page. What we did not write ourselves goes in through [`Html::text`] or [`Html::data`], and comes out as text.

use serde::Serialize;

use super::Table;
use super::words::shortened;

/// Of a table in a page. The JSON has all.
const MOST_ROWS: usize = 200;
/// Characters of a cell, of which some are names that a stranger chose.
const MOST_CELL: usize = 240;

#[derive(Default)]
pub struct Html(String);

impl Html {
    /// What we wrote ourselves.
    pub fn markup(&mut self, markup: &str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Html {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                _ => self.0.push(c),
            }
        }
        self
    }

    /// `<p class="note">text</p>` of `p class="note"`.
    pub fn element(&mut self, start: &str, text: &str) -> &mut Html {
        let name = start.split(' ').next().unwrap_or(start);
        self.markup("<").markup(start).markup(">").text(text).markup("</").markup(name).markup(">\n")
    }

    /// Values for the script, in a block that is not run. Nothing in it can end the block, nor is a line's end to a
    /// script of another age.
    pub fn data(&mut self, id: &str, value: &impl Serialize) -> &mut Html {
        let json = serde_json::to_string(value).expect("what is drawn has no keys but words");
        self.markup("<script type=\"application/json\" id=\"").markup(id).markup("\">");
        for c in json.chars() {
            match c {
                // Of these JSON has none outside its strings, so that the escape is always one within a string.
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    self.0.push_str(&format!("\\u{:04x}", u32::from(c)))
                }
                _ => self.0.push(c),
            }
        }
        self.markup("</script>\n")
    }

    pub fn table(&mut self, table: &Table) -> &mut Html {
        let numeric: Vec<bool> = (0..table.head.len()).map(|column| is_numeric(table, column)).collect();
        let class = |column: usize| if numeric.get(column) == Some(&true) { " class=\"n\"" } else { "" };
        self.markup("<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"").text(&table.title);
        self.markup("\"><table>\n").element("caption", &table.title).markup("<thead><tr>");
        for (column, name) in table.head.iter().enumerate() {
            self.markup("<th scope=\"col\"").markup(class(column)).markup(">").text(name).markup("</th>");
        }
        self.markup("</tr></thead>\n<tbody>\n");
        for row in table.rows.iter().take(MOST_ROWS) {
            self.markup("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let (start, end) =
                    if column == 0 { ("<th scope=\"row\"", "</th>") } else { ("<td", "</td>") };
                let cell = shortened(cell, MOST_CELL);
                self.markup(start).markup(class(column)).markup(">").text(&cell).markup(end);
            }
            self.markup("</tr>\n");
        }
        self.markup("</tbody></table></div>\n");
        if let Some(more) = table.rows.len().checked_sub(MOST_ROWS).filter(|more| *more > 0) {
            self.element("p class=\"note\"", &format!("And {more} rows more, which stand in the JSON."));
        }
        if let Some(note) = &table.note {
            self.element("p class=\"note\"", note);
        }
        self
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

/// Figures stand under each other by their ends. The first column names its row.
fn is_numeric(table: &Table, column: usize) -> bool {
    let cells = || table.rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty());
    column > 0 && cells().next().is_some() && cells().all(|cell| is_figure(cell))
}

/// A number, perhaps with a unit: `< 0.01 %`, `12 ms`, a dash, and not `4 web, 1 primary`.
fn is_figure(cell: &str) -> bool {
    let figure = cell.trim_start_matches(['<', '>', ' ']);
    figure.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '–' | '-'))
        && figure.split(' ').count() <= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_named_stays_text() {
        let mut html = Html::default();
        html.element("p class=\"note\"", "<b onclick='x'>&\"");
        assert_eq!(html.into_text(), "<p class=\"note\">&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;</p>\n");
    }

    #[test]
    fn nothing_in_the_data_ends_its_block_and_it_reads_as_it_was() {
        let name = "</script><script>alert(1)</script><!--&\u{2028}\u{2029}\\u003c";
        let mut html = Html::default();
        html.data("data", &[name]);
        let text = html.into_text();
        let json = text.strip_prefix("<script type=\"application/json\" id=\"data\">").unwrap();
        let json = json.strip_suffix("</script>\n").unwrap();
        assert!(!json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(json).unwrap(), [name]);
    }

    #[test]
    fn figures_are_told_from_words_that_begin_with_one() {
        assert!(["12 ms", "< 0.01 %", "1,234", "–", "2.0 x"].into_iter().all(is_figure));
        assert!(!["4 web, 1 primary", "web", "", "3 read replicas"].into_iter().any(is_figure));
    }

    #[test]
    fn a_table_is_no_longer_than_a_page_can_carry_and_says_so() {
        let rows = (0..MOST_ROWS + 5).map(|n| vec!["x".repeat(1_000), n.to_string()]).collect();
        let head = ["name", "n"].map(str::to_owned).to_vec();
        let mut html = Html::default();
        html.table(&Table { title: "Long".into(), head, rows, note: Some("Why.".into()) });
        let text = html.into_text();
        assert_eq!(text.matches("<tr>").count(), MOST_ROWS + 1);
        assert!(text.contains("And 5 rows more") && text.ends_with("<p class=\"note\">Why.</p>\n"), "{text}");
        assert!(text.contains("<td class=\"n\">0</td>") && !text.contains(&"x".repeat(MOST_CELL + 1)));
    }
}
