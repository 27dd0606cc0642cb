/*!
Prunings of a model side by side, as one HTML page that needs nothing but itself.

# Brief overview

A [`Comparison`] is plain data: what was observed and measured, one [`Cut`] for each pruning, and a
[`LayerPicture`] for each MoE layer. [`render`] makes a page of it:

| part | shows |
|---|---|
| quality against size | accuracy with its standard error, and perplexity, of each criterion |
| all cuts | the figures, with the best criterion at each size |
| sparsity of each decoder layer | where a criterion took most |
| experts of each MoE layer | how alike they are, which get the tokens, and which of them each cut keeps |

# Example

```
use moeprune_page::{Comparison, Cut, Estimate, FORMAT, UNPRUNED, render};

let unpruned = Cut {
    criterion: UNPRUNED.into(),
    expert_share: 0.0,
    total_share: 0.0,
    experts_kept: 512,
    experts: 512,
    parameters: 1_300_000_000,
    bytes: 2_600_000_000,
    accuracy: Some(Estimate { mean: 0.62, stderr: Some(0.013) }),
    perplexity: None,
    divergence: None,
    texts: None,
    seconds: 0.0,
    layer_sparsity: vec![],
    kept: vec![],
};
let pruned = Cut {
    criterion: "routing load".into(),
    expert_share: 0.25,
    experts_kept: 384,
    parameters: 1_000_000_000,
    bytes: 2_000_000_000,
    accuracy: Some(Estimate { mean: 0.57, stderr: Some(0.014) }),
    ..unpruned.clone()
};
let page = render(&Comparison {
    format: FORMAT,
    tool: "moeprune 0.1.0".into(),
    model: "a <small> model".into(),
    family: "mixtral".into(),
    observed: vec!["GSM8K, training".into()],
    task: Some("gsm8k_cot".into()),
    data: None,
    documents: Some(1319),
    metric: Some("strict-match".into()),
    device: "CPU".into(),
    cuts: vec![unpruned, pruned],
    layers: vec![],
})?;
assert!(page.contains("a &lt;small&gt; model"));
assert!(page.contains("57.0 % ± 1.4"));
# Ok::<(), moeprune_page::Error>(())
```

# Why it is so

*Text stays text.* A model's name comes from a file that may hold anything. Markup is made by maud,
which escapes everything put into it, and what plotters draws contains only words of this crate and
numbers. Besides, the page's own policy forbids the browser to run scripts or to fetch anything.

*No script.* A page that is kept for years should not depend on what runs in it. Layers open by
`<details>`, numbers appear by `<title>`, and the dark theme is a matter of style: it names the light
theme's colours and swaps them.

*An image where there are 16,384 cells.* A heat map is a PNG of one pixel per pair of experts, which
the browser enlarges; everything else is SVG, sharp at any size and on paper. A page of 35 layers
with 128 experts and 17 cuts has 2 MB.

*Colour never alone.* Criteria differ in shape as well, the palette is one for the colour-blind, the
heat map's grows lighter steadily, and every chart's figures are in a table or a label.

*Nothing is made up.* What was not measured is said not to have been, and a number that is not
finite is an [`Error`] that names it.
*/

mod axes;
mod canvas;
mod check;
mod error;
mod heat_map;
mod layer;
mod page;
mod quality_chart;
mod routing;
mod series;
mod sparsity_chart;
mod table;
mod ticks;
mod wording;

pub use error::Error;
pub use moeprune_core::comparison::{
    AnswerTexts, Comparison, Cut, Divergence, Estimate, FORMAT, LayerPicture, UNPRUNED,
};
pub use page::render;
