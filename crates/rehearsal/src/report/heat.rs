//! The latency heat map: how many answers took how long, column by column. It shows what percentiles hide, such as a
//! second group of slow answers beside the fast ones.

use serde::Serialize;

use crate::summary::Latencies;

/// Rows per decade of latency: each is a quarter longer than the one below.
const ROWS_PER_DECADE: f64 = 10.0;

/// Row `r` holds what took from 10^((first+r)/10) to 10^((first+r+1)/10) µs.
#[derive(Debug, Serialize)]
pub struct Heat {
    first: u32,
    rows: u32,
    /// In the fullest cell.
    most: u64,
    /// By column: row, count, row, count, and so on. Empty cells are left out.
    cells: Vec<Vec<u64>>,
}

impl Heat {
    /// `None`: nothing was answered.
    pub fn new(columns: &[Latencies]) -> Option<Heat> {
        let rows = || columns.iter().flat_map(filled).map(|(bound, _)| row(bound));
        let (first, last) = (rows().min()?, rows().max()?);
        let cells: Vec<Vec<u64>> = columns.iter().map(|column| cells(column, first)).collect();
        let counts = cells.iter().flat_map(|column| column.iter().skip(1).step_by(2));
        let most = counts.copied().max().unwrap_or(0);
        Some(Heat { first, rows: last - first + 1, most, cells })
    }
}

fn row(us: u64) -> u32 {
    ((us.max(1) as f64).log10() * ROWS_PER_DECADE) as u32
}

fn filled(column: &Latencies) -> impl Iterator<Item = (u64, u64)> {
    column.buckets().filter(|(_, n)| *n > 0)
}

fn cells(column: &Latencies, first: u32) -> Vec<u64> {
    let mut cells: Vec<u64> = Vec::new();
    // Buckets are in order, so that those of one row follow each other.
    for (bound, n) in filled(column) {
        let row = u64::from(row(bound) - first);
        match cells.len().checked_sub(2) {
            Some(last) if cells[last] == row => cells[last + 1] += n,
            _ => cells.extend([row, n]),
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(buckets: &[(u64, u32)]) -> Latencies {
        let mut column = Latencies::default();
        column.add(buckets);
        column
    }

    #[test]
    fn buckets_of_one_row_are_added_and_empty_cells_left_out() {
        let heat = Heat::new(&[
            column(&[(100, 3), (110, 4), (10_000, 1)]),
            column(&[]),
            column(&[(9, 0), (100, 9)]),
        ]);
        let heat = heat.unwrap();
        assert_eq!((heat.first, heat.rows, heat.most), (20, 21, 9));
        assert_eq!(heat.cells, [vec![0, 7, 20, 1], vec![], vec![0, 9]]);
    }

    #[test]
    fn where_nothing_was_answered_there_is_no_map() {
        assert!(Heat::new(&[column(&[]), column(&[])]).is_none());
    }
}
