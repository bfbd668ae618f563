//! Graphs of known shapes: those of textbooks and of dense linear algebra. Times are drawn by whoever asks.

use pointsman_policies::Rng;
use serde::{Deserialize, Serialize};

use super::{Dag, DagError, Edge};
use crate::lab::draw::from_spelling;

/// A shape. Written `forkjoin[width=16,depth=3]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Shape {
    /// One task, `width` beside each other, one task, and so on `depth` times.
    ForkJoin {
        /// Tasks beside each other.
        width: usize,
        /// How often.
        #[serde(default = "once")]
        depth: usize,
    },
    /// Layers of random widths up to twice `width`; each task needs one of the layer before, and each other one with this probability.
    Layered {
        /// Tasks.
        tasks: usize,
        /// Mean width.
        width: usize,
        /// Probability of an edge between neighbouring layers.
        density: f64,
    },
    /// From one task to `degree` each, so many levels deep.
    OutTree {
        /// Children of each.
        degree: usize,
        /// Levels.
        depth: usize,
    },
    /// The reverse: a reduction.
    InTree {
        /// Parents of each.
        degree: usize,
        /// Levels.
        depth: usize,
    },
    /// LU factorisation of so many tiles in each direction.
    Lu {
        /// Tiles.
        tiles: usize,
    },
    /// Cholesky factorisation of so many tiles in each direction.
    Cholesky {
        /// Tiles.
        tiles: usize,
    },
    /// Butterflies over two to the power of `stages` points.
    Fft {
        /// Stages.
        stages: u32,
    },
    /// A one-dimensional stencil: each point needs itself and its neighbours of the step before.
    Stencil {
        /// Points.
        width: usize,
        /// Steps.
        steps: usize,
    },
}

fn once() -> usize {
    1
}

/// No shape has more tasks than this.
const MOST: usize = 10_000_000;

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        from_spelling(text)
    }
}

/// A graph as it grows.
#[derive(Default)]
struct Sketch {
    count: usize,
    edges: Vec<(usize, usize)>,
}

impl Sketch {
    fn task(&mut self, needs: impl IntoIterator<Item = usize>) -> usize {
        let task = self.count;
        self.count += 1;
        self.edges.extend(needs.into_iter().map(|from| (from, task)));
        task
    }

    /// A task that changes a tile and needs what others were changed to last.
    fn touch(&mut self, last: &mut Tiles, row: usize, column: usize, needs: &[(usize, usize)]) {
        let needs: Vec<usize> = needs.iter().chain([&(row, column)]).filter_map(|tile| last.get(tile).copied()).collect();
        last.insert((row, column), self.task(needs));
    }
}

impl Shape {
    /// How many tasks it has, about.
    fn size(&self) -> f64 {
        let power = |base: usize, exponent: usize| (base as f64).powf(exponent as f64);
        match *self {
            Shape::ForkJoin { width, depth } => (width as f64 + 1.0) * depth as f64,
            Shape::Layered { tasks, .. } => tasks as f64,
            Shape::OutTree { degree, depth } | Shape::InTree { degree, depth } => power(degree.max(1), depth) * 2.0,
            Shape::Lu { tiles } | Shape::Cholesky { tiles } => power(tiles, 3) / 3.0,
            Shape::Fft { stages } => f64::from(stages) * power(2, stages as usize),
            Shape::Stencil { width, steps } => width as f64 * steps as f64,
        }
    }

    /// The graph: `time_s` draws the time of each task, `bytes` what each edge carries.
    ///
    /// # Errors
    /// If a number is 0, out of range, or makes more tasks than memory holds.
    pub fn build(&self, mut time_s: impl FnMut() -> f64, bytes: f64, rng: &mut Rng) -> Result<Dag, DagError> {
        let wrong = |what: &str| Err(DagError::Format(format!("{what} in {self:?}")));
        if self.size().is_nan() || self.size() < 1.0 {
            return wrong("a number is 0");
        }
        if self.size() > MOST as f64 {
            return wrong("more than ten million tasks");
        }
        let mut sketch = Sketch::default();
        match *self {
            Shape::ForkJoin { width, depth } => {
                let mut join = sketch.task([]);
                for _ in 0..depth {
                    let beside: Vec<usize> = (0..width).map(|_| sketch.task([join])).collect();
                    join = sketch.task(beside);
                }
            }
            Shape::Layered { tasks, width, density } => {
                if width == 0 || !(0.0..=1.0).contains(&density) {
                    return wrong("a width of 0 or a density that is no probability");
                }
                let width = width.min(tasks);
                let mut above: Vec<usize> = Vec::new();
                while sketch.count < tasks {
                    let count = (1 + rng.below(2 * width - 1)).min(tasks - sketch.count);
                    let mut layer = Vec::with_capacity(count);
                    for _ in 0..count {
                        let mut needs: Vec<usize> = above.iter().copied().filter(|_| rng.unit() < density).collect();
                        if needs.is_empty() && !above.is_empty() {
                            needs.push(above[rng.below(above.len())]);
                        }
                        layer.push(sketch.task(needs));
                    }
                    above = layer;
                }
            }
            Shape::OutTree { degree, depth } => {
                let mut level = vec![sketch.task([])];
                for _ in 1..depth.max(1) {
                    level = level.iter().flat_map(|&parent| vec![parent; degree]).map(|parent| sketch.task([parent])).collect();
                }
            }
            Shape::InTree { degree, depth } => {
                let mut level: Vec<usize> = (0..degree.pow(depth.max(1) as u32 - 1)).map(|_| sketch.task([])).collect();
                while level.len() > 1 {
                    level = level.chunks(degree.max(2)).map(|children| sketch.task(children.iter().copied())).collect();
                }
            }
            Shape::Lu { tiles } => lu(&mut sketch, tiles),
            Shape::Cholesky { tiles } => cholesky(&mut sketch, tiles),
            Shape::Fft { stages } => {
                let mut level: Vec<usize> = (0..1_usize << stages).map(|_| sketch.task([])).collect();
                for stage in 0..stages {
                    level = (0..level.len()).map(|at| sketch.task([level[at], level[at ^ (1 << stage)]])).collect();
                }
            }
            Shape::Stencil { width, steps } => {
                let mut level: Vec<usize> = (0..width).map(|_| sketch.task([])).collect();
                for _ in 1..steps {
                    let near = |at: usize| at.saturating_sub(1)..(at + 2).min(width);
                    level = (0..width).map(|at| sketch.task(level[near(at)].iter().copied())).collect();
                }
            }
        }
        let tasks = (0..sketch.count).map(|n| (format!("t{n}"), time_s())).collect();
        Dag::new(tasks, sketch.edges.into_iter().map(|(from, to)| Edge { from, to, bytes }))
    }
}

/// The last task that touched each tile, by row and column.
type Tiles = std::collections::HashMap<(usize, usize), usize>;

/// Right-looking, without pivoting: each step factors a tile, solves its row and column, and updates what is behind.
fn lu(sketch: &mut Sketch, tiles: usize) {
    let mut last = Tiles::new();
    for step in 0..tiles {
        sketch.touch(&mut last, step, step, &[]);
        for at in step + 1..tiles {
            sketch.touch(&mut last, step, at, &[(step, step)]);
            sketch.touch(&mut last, at, step, &[(step, step)]);
        }
        for row in step + 1..tiles {
            for column in step + 1..tiles {
                sketch.touch(&mut last, row, column, &[(row, step), (step, column)]);
            }
        }
    }
}

/// The same of a symmetric matrix, lower half.
fn cholesky(sketch: &mut Sketch, tiles: usize) {
    let mut last = Tiles::new();
    for step in 0..tiles {
        sketch.touch(&mut last, step, step, &[]);
        for row in step + 1..tiles {
            sketch.touch(&mut last, row, step, &[(step, step)]);
        }
        for row in step + 1..tiles {
            for column in step + 1..row {
                sketch.touch(&mut last, row, column, &[(row, step), (column, step)]);
            }
            sketch.touch(&mut last, row, row, &[(row, step)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_their_size_depth_and_width() {
        for (text, tasks, depth, width) in [
            ("forkjoin[width=5]", 7, 3, 5),
            ("forkjoin[width=5,depth=2]", 13, 5, 5),
            ("outtree[degree=3,depth=3]", 13, 3, 9),
            ("intree[degree=3,depth=3]", 13, 3, 9),
            ("lu[tiles=3]", 14, 7, 4),
            ("cholesky[tiles=3]", 10, 7, 3),
            ("fft[stages=3]", 32, 4, 8),
            ("stencil[width=4,steps=3]", 12, 3, 4),
        ] {
            let shape: Shape = text.parse().unwrap();
            let dag = shape.build(|| 1.0, 0.0, &mut Rng::new(1)).unwrap();
            assert_eq!((dag.len(), dag.depth_and_width()), (tasks, (depth, width)), "{text}");
        }
        let shape: Shape = "layered[tasks=500,width=10,density=0.3]".parse().unwrap();
        let dag = shape.build(|| 1.0, 0.0, &mut Rng::new(1)).unwrap();
        assert!(dag.len() == 500 && dag.depth_and_width().1 <= 19);
        for (junk, says) in
            [("lu[tiles=0]", "is 0"), ("fft[stages=40]", "ten million"), ("layered[tasks=5,width=0,density=1]", "width of 0")]
        {
            let error = junk.parse::<Shape>().unwrap().build(|| 1.0, 0.0, &mut Rng::new(1)).unwrap_err();
            assert!(error.to_string().contains(says), "{junk}: {error}");
        }
    }
}
