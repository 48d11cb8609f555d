//! Several rounds of one figure.

use serde_json::{Value, json};

#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        let upper = self.0.get(middle)?;
        Some(if self.0.len() % 2 == 1 { *upper } else { (upper + self.0[middle - 1]) / 2.0 })
    }

    pub fn min(&self) -> Option<f64> {
        self.0.first().copied()
    }

    pub fn max(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// `20.2 (18.4–23.5)`, or a dash.
    pub fn text(&self, decimals: usize) -> String {
        match (self.median(), self.min(), self.max()) {
            (Some(median), Some(min), Some(max)) => {
                format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
            }
            _ => "-".to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        json!({ "median": self.median(), "min": self.min(), "max": self.max(), "rounds": self.0.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let mut figures = Figures::default();
        assert_eq!(figures.text(1), "-");
        for figure in [4.0, 1.0, 3.0, 10.0] {
            figures.add(figure);
        }
        assert_eq!(figures.text(1), "3.5 (1.0–10.0)");
    }
}
