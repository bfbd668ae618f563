//! Tiled Cholesky factorisation: A = L L^T for a symmetric positive definite A, in place, tile by tile. The four kernels and their
//! dependencies are the textbook's (Buttari, Langou, Kurzak, Dongarra: A class of parallel tiled linear algebra algorithms, 2009).

use std::sync::Mutex;

use pointsman_core::net::Clock;
use pointsman_core::peer::Functions;
use pointsman_policies::Rng;
use std::sync::Arc;

/// One task.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    /// The function that does it.
    pub(super) kind: &'static str,
    /// `i j k` for the function.
    pub(super) argument: String,
    /// Names of the tasks it needs.
    pub(super) after: Vec<String>,
}

impl Step {
    /// Its work, in sixths of that of a product of two tiles: all four kernels do as many multiplications as their loops have turns.
    pub(super) fn sixths(&self) -> u64 {
        match self.kind {
            "potrf" => 1,
            "trsm" => 3,
            _ => 6,
        }
    }
}

/// Seconds that a product of two tiles takes on this machine now, the best of a few.
pub(super) fn product_s(rows: usize) -> f64 {
    let (a, mut c) = (vec![0.5; rows * rows], vec![0.0; rows * rows]);
    let times = (0..3).map(|_| {
        let clock = Clock::default();
        subtract_product(&a, &a, &mut c, rows);
        clock.now().as_secs_f64()
    });
    let best = times.fold(f64::INFINITY, f64::min);
    std::hint::black_box(c);
    best
}

/// The tasks for a matrix of `tiles` by `tiles`. A task needs whoever wrote the tiles it reads, and its own tile, last.
///
/// ```text
/// potrf(k) -> trsm(i,k) -> syrk(i,k) -> potrf(i)       diagonal tiles
///                      \-> gemm(i,j,k) -> trsm(i,j)    the others
/// ```
pub(super) fn plan(tiles: usize) -> Vec<Step> {
    let mut last_writer = vec![vec![None::<String>; tiles]; tiles];
    let mut steps = Vec::new();
    let mut add = |kind: &'static str, (i, j, k): (usize, usize, usize), reads: &[(usize, usize)], writes: (usize, usize)| {
        let name = format!("{kind}({i},{j},{k})");
        let touched = reads.iter().copied().chain([writes]);
        let mut after: Vec<String> = touched.filter_map(|(row, column)| last_writer[row][column].clone()).collect();
        after.sort();
        after.dedup();
        last_writer[writes.0][writes.1] = Some(name.clone());
        steps.push(Step { name, kind, argument: format!("{i} {j} {k}"), after });
    };
    for k in 0..tiles {
        add("potrf", (k, k, k), &[], (k, k));
        for i in k + 1..tiles {
            add("trsm", (i, k, k), &[(k, k)], (i, k));
        }
        for i in k + 1..tiles {
            add("syrk", (i, i, k), &[(i, k)], (i, i));
            for j in k + 1..i {
                add("gemm", (i, j, k), &[(i, k), (j, k)], (i, j));
            }
        }
    }
    steps
}

type Tile = Vec<f64>;

/// A matrix in tiles, shared by the engines of this process, and the copy to check against.
pub(super) struct Factorisation {
    tiles: usize,
    rows: usize,
    /// The lower half: tile (i, j) with j <= i at i * tiles + j.
    data: Vec<Mutex<Tile>>,
    original: Vec<Tile>,
}

impl Factorisation {
    /// A random symmetric matrix, made positive definite by a heavy diagonal.
    pub(super) fn new(tiles: usize, rows: usize, seed: u64) -> Self {
        let mut rng = Rng::stream(seed, "matrix");
        let order = (tiles * rows) as f64;
        let mut original = Vec::new();
        for i in 0..tiles {
            for j in 0..tiles {
                let mut tile: Tile = (0..rows * rows).map(|_| rng.unit() - 0.5).collect();
                if i == j {
                    for r in 0..rows {
                        for c in 0..r {
                            tile[c * rows + r] = tile[r * rows + c];
                        }
                        tile[r * rows + r] += order;
                    }
                }
                original.push(tile);
            }
        }
        let data = original.iter().cloned().map(Mutex::new).collect();
        Factorisation { tiles, rows, data, original }
    }

    /// The kernels as functions of an engine. Each returns the nanoseconds that it computed.
    pub(super) fn functions(self: &Arc<Self>) -> Functions {
        let mut functions = Functions::new();
        for kind in ["potrf", "trsm", "syrk", "gemm"] {
            let matrix = self.clone();
            functions.register(kind, move |argument| matrix.step(kind, argument));
        }
        functions
    }

    fn tile(&self, i: usize, j: usize) -> Result<Tile, String> {
        self.data[i * self.tiles + j].lock().map(|tile| tile.clone()).map_err(|_| "a tile was left half written".to_owned())
    }

    fn step(&self, kind: &str, argument: &[u8]) -> Result<Vec<u8>, String> {
        let text = std::str::from_utf8(argument).map_err(|error| error.to_string())?;
        let numbers: Option<Vec<usize>> = text.split(' ').map(|n| n.parse().ok().filter(|n| *n < self.tiles)).collect();
        let Some(&[i, j, k]) = numbers.as_deref() else { return Err(format!("'{text}' is not three tile numbers")) };
        let clock = Clock::default();
        let rows = self.rows;
        let (left, right) = match kind {
            "potrf" => (Vec::new(), Vec::new()),
            "trsm" => (self.tile(k, k)?, Vec::new()),
            "syrk" => (self.tile(i, k)?, self.tile(i, k)?),
            _ => (self.tile(i, k)?, self.tile(j, k)?),
        };
        let mut tile = self.data[i * self.tiles + j].lock().map_err(|_| "a tile was left half written".to_owned())?;
        match kind {
            "potrf" => potrf(&mut tile, rows)?,
            "trsm" => trsm(&left, &mut tile, rows),
            _ => subtract_product(&left, &right, &mut tile, rows),
        }
        Ok(clock.now().as_nanos().to_string().into_bytes())
    }

    /// How far `A x` and `L L^T x` are apart at most, for a few random x, relative to what A x may be. A wrong entry is seen unless its row
    /// happens to be orthogonal to all of them (Freivalds), and that costs O(rows^2) where the product costs O(rows^3).
    pub(super) fn largest_error(&self, seed: u64) -> f64 {
        let mut rng = Rng::stream(seed, "check");
        let order = self.tiles * self.rows;
        let mut worst = 0.0_f64;
        for _ in 0..4 {
            let x: Vec<f64> = (0..order).map(|_| rng.unit() - 0.5).collect();
            let (expected, seen) = (self.times_original(&x), self.times_factor(&self.times_transposed(&x)));
            let difference = expected.iter().zip(&seen).map(|(a, b)| (a - b).abs());
            // A NaN must not be lost in a maximum.
            worst = difference.fold(worst, |worst, error| if error <= worst { worst } else { error });
        }
        worst / order as f64
    }

    /// A x, of the lower half.
    fn times_original(&self, x: &[f64]) -> Vec<f64> {
        let mut result = vec![0.0; x.len()];
        for i in 0..self.tiles {
            for j in 0..=i {
                let tile = &self.original[i * self.tiles + j];
                add_product(tile, self.rows, (i, j), x, &mut result);
                if j < i {
                    add_transposed_product(tile, self.rows, (i, j), x, &mut result);
                }
            }
        }
        result
    }

    /// L x.
    fn times_factor(&self, x: &[f64]) -> Vec<f64> {
        let mut result = vec![0.0; x.len()];
        self.each_of_factor(|tile, place| add_product(tile, self.rows, place, x, &mut result));
        result
    }

    /// L^T x.
    fn times_transposed(&self, x: &[f64]) -> Vec<f64> {
        let mut result = vec![0.0; x.len()];
        self.each_of_factor(|tile, place| add_transposed_product(tile, self.rows, place, x, &mut result));
        result
    }

    /// The tiles of the factor, with their places: what stands above the diagonal is left over of A.
    fn each_of_factor(&self, mut visit: impl FnMut(&Tile, (usize, usize))) {
        let rows = self.rows;
        for i in 0..self.tiles {
            for j in 0..=i {
                let mut tile = self.tile(i, j).unwrap_or_default();
                tile.resize(rows * rows, f64::NAN);
                if i == j {
                    (0..rows).for_each(|r| tile[r * rows + r + 1..(r + 1) * rows].fill(0.0));
                }
                visit(&tile, (i, j));
            }
        }
    }
}

/// Adds tile (i, j) times its part of x.
fn add_product(tile: &Tile, rows: usize, (i, j): (usize, usize), x: &[f64], result: &mut [f64]) {
    let x = &x[j * rows..(j + 1) * rows];
    for (row, out) in tile.chunks_exact(rows).zip(&mut result[i * rows..]) {
        *out += row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
    }
}

/// Adds tile (i, j), transposed, times its part of x.
fn add_transposed_product(tile: &Tile, rows: usize, (i, j): (usize, usize), x: &[f64], result: &mut [f64]) {
    for (row, x) in tile.chunks_exact(rows).zip(&x[i * rows..]) {
        for (entry, out) in row.iter().zip(&mut result[j * rows..]) {
            *out += entry * x;
        }
    }
}

/// The Cholesky factor of one tile, into its lower half.
fn potrf(tile: &mut [f64], rows: usize) -> Result<(), String> {
    for c in 0..rows {
        for r in c..rows {
            let dot: f64 = (0..c).map(|k| tile[r * rows + k] * tile[c * rows + k]).sum();
            let rest = tile[r * rows + c] - dot;
            if r == c && rest <= 0.0 {
                return Err("the matrix is not positive definite".into());
            }
            tile[r * rows + c] = if r == c { rest.sqrt() } else { rest / tile[c * rows + c] };
        }
    }
    Ok(())
}

/// X of X L^T = A, in place of A.
fn trsm(lower: &[f64], tile: &mut [f64], rows: usize) {
    for r in 0..rows {
        for c in 0..rows {
            let dot: f64 = (0..c).map(|k| tile[r * rows + k] * lower[c * rows + k]).sum();
            tile[r * rows + c] = (tile[r * rows + c] - dot) / lower[c * rows + c];
        }
    }
}

/// C - A B^T, in place of C.
fn subtract_product(a: &[f64], b: &[f64], c: &mut [f64], rows: usize) {
    for (row, out) in a.chunks_exact(rows).zip(c.chunks_exact_mut(rows)) {
        for (column, entry) in b.chunks_exact(rows).zip(out) {
            *entry -= row.iter().zip(column).map(|(x, y)| x * y).sum::<f64>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_in_order_factorise_and_out_of_order_do_not() {
        let in_order = plan(4);
        assert_eq!(in_order.len(), 4 + 6 + 6 + 4);
        let matrix = Factorisation::new(4, 8, 3);
        for step in &in_order {
            matrix.step(step.kind, step.argument.as_bytes()).unwrap();
        }
        assert!(matrix.largest_error(1) < 1e-12, "{}", matrix.largest_error(1));
        // One wrong entry anywhere is enough.
        for (tile, entry) in [(0, 0), (5, 9), (12, 63), (15, 8)] {
            let right = std::mem::replace(&mut matrix.data[tile].lock().unwrap()[entry], 7.0);
            assert!(matrix.largest_error(1) > 1e-3, "{tile} {entry}: {}", matrix.largest_error(1));
            matrix.data[tile].lock().unwrap()[entry] = right;
        }
        matrix.data[4].lock().unwrap()[1] = f64::NAN;
        assert!(matrix.largest_error(1).is_nan() || matrix.largest_error(1) > 1e-9);
        let matrix = Factorisation::new(4, 8, 3);
        for step in in_order.iter().rev() {
            let _ = matrix.step(step.kind, step.argument.as_bytes());
        }
        assert!(matrix.largest_error(1) > 1e-6);
        assert!(matrix.step("gemm", b"9 9 9").is_err() && matrix.step("gemm", b"\xff").is_err());
    }
}
