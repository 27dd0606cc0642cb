//! GSM8K, the grade-school word problems of Cobbe et al. (2021), in the harness's forms.

use std::{collections::BTreeMap, mem};

use crate::{
    BoxError, Document, Error, Extraction, PythonRandom, RegexFilter, Request, Task, exact_match,
};

mod chain_of_thought;
mod form;
mod reworded;

use form::Form;

/// A GSM8K task of lm-evaluation-harness 0.4.13: a form of prompt, some shots, and two filters,
/// `strict-match` and `flexible-extract`.
///
/// ```
/// use moeprune_eval::{Document, Gsm8k, Task};
///
/// let task = Gsm8k::zero_shot();
/// let document = Document::new("What is 6 * 3?", "6 * 3 = 18\n#### 18");
/// let requests = task.requests(&[document.clone()])?;
/// assert_eq!(requests[0].prompt, "Question: What is 6 * 3?\nAnswer:");
///
/// let scores = task.score(&document, " Six threes are 18.");
/// assert_eq!(scores["strict-match"].score, 0.0); // no `#### `
/// assert_eq!(scores["flexible-extract"].score, 1.0);
/// # Ok::<(), moeprune_eval::BoxError>(())
/// ```
#[derive(Debug)]
pub struct Gsm8k {
    form: &'static Form,
    shots: Shots,
    filters: [RegexFilter; 2],
}

#[derive(Debug)]
enum Shots {
    /// The same text before every question.
    Fixed { text: String, count: usize },
    /// Training documents drawn again for each question, their solutions in the form's words.
    Drawn { train: Vec<Document>, count: usize },
}

/// The harness's default seed for drawing shots.
const FEWSHOT_SEED: u64 = 1234;

/// The harness's default budget for an answer.
const MAX_NEW_TOKENS: usize = 256;

impl Gsm8k {
    /// How many shots [`Gsm8k::new`] is defined with.
    pub const FEWSHOT: usize = 5;

    /// How many shots [`Gsm8k::chain_of_thought`] and [`Gsm8k::chain_of_thought_llama`] are
    /// defined with, and the most they can have without training documents.
    pub const CHAIN_OF_THOUGHT_FEWSHOT: usize = chain_of_thought::COUNT;

    /// `gsm8k`: shots drawn for each question from GSM8K's training documents, all of them and in
    /// their order, or the draw is not the harness's.
    ///
    /// # Errors
    ///
    /// If there are fewer training documents than shots.
    pub fn new(train: Vec<Document>, fewshot: usize) -> Result<Self, Error> {
        Self::without_shots(&form::GSM8K).with_drawn_shots(train, fewshot)
    }

    /// `gsm8k_zeroshot`: `gsm8k` with nothing before the question.
    pub fn zero_shot() -> Self {
        Self::without_shots(&form::GSM8K_ZEROSHOT)
    }

    /// `gsm8k_cot`: the first `fewshot` of eight fixed chains of thought (Wei et al., 2022).
    ///
    /// # Errors
    ///
    /// If more shots are asked for than there are.
    pub fn chain_of_thought(fewshot: usize) -> Result<Self, Error> {
        Self::with_fixed_shots(&form::COT, fewshot)
    }

    /// `gsm8k_cot_zeroshot`: no shots, but the words that set a model thinking.
    pub fn chain_of_thought_zero_shot() -> Self {
        Self::without_shots(&form::COT_ZEROSHOT)
    }

    /// `gsm8k_cot_llama`: the same chains of thought among the instructions that Llama 3 was
    /// evaluated with.
    ///
    /// # Errors
    ///
    /// If more shots are asked for than there are.
    pub fn chain_of_thought_llama(fewshot: usize) -> Result<Self, Error> {
        Self::with_fixed_shots(&form::COT_LLAMA, fewshot)
    }

    /// The same task with its shots, if any, replaced by `fewshot` drawn for each question from the
    /// training documents, as [`Gsm8k::new`] draws them.
    ///
    /// The forms of `gsm8k` take a solution as it stands. The chain-of-thought forms take it without
    /// the calculator annotations `<<…>>`, and with its last line `#### 18` in the words their
    /// fixed shots end in: `The answer is 18.`, in the Llama form `The final answer is 18`. That
    /// wording is this crate's, not the harness's: with drawn shots, figures of these forms are not
    /// comparable with the harness's.
    ///
    /// ```
    /// use moeprune_eval::{Document, Gsm8k, Task};
    ///
    /// let train = vec![Document::new("What is 2 + 3?", "2 + 3 = <<2+3=5>>5\n#### 5")];
    /// let task = Gsm8k::chain_of_thought(0)?.with_drawn_shots(train, 1)?;
    /// let requests = task.requests(&[Document::new("What is 6 * 3?", "#### 18")])?;
    /// let shot = "Q: What is 2 + 3?\nA: 2 + 3 = 5\nThe answer is 5.\n\n";
    /// assert_eq!(requests[0].prompt, format!("{shot}Q: What is 6 * 3?\nA:"));
    /// # Ok::<(), moeprune_eval::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there are fewer training documents than shots.
    pub fn with_drawn_shots(self, mut train: Vec<Document>, fewshot: usize) -> Result<Self, Error> {
        if train.len() < fewshot {
            return Err(Error::TooFewTrainingDocuments {
                task: self.form.name.to_owned(),
                shots: fewshot,
                given: train.len(),
            });
        }
        for document in &mut train {
            document.answer = self.form.drawn_solution(mem::take(&mut document.answer));
        }
        Ok(Self { shots: Shots::Drawn { train, count: fewshot }, ..self })
    }

    fn with_fixed_shots(form: &'static Form, count: usize) -> Result<Self, Error> {
        let shots = chain_of_thought::shots();
        if count > shots.len() {
            return Err(Error::TooManyShots {
                task: form.name.to_owned(),
                shots: count,
                available: shots.len(),
            });
        }
        let text = shots[..count]
            .iter()
            .map(|shot| form.shot(&shot.question, &shot.solution(form.conclusion)))
            .collect();
        Ok(Self::assemble(form, Shots::Fixed { text, count }))
    }

    fn without_shots(form: &'static Form) -> Self {
        Self::assemble(form, Shots::Fixed { text: String::new(), count: 0 })
    }

    fn assemble(form: &'static Form, shots: Shots) -> Self {
        Self { form, shots, filters: form.filters() }
    }

    /// The shots before the next question: drawing advances the generator.
    fn shots(&self, random: &mut PythonRandom) -> String {
        match &self.shots {
            Shots::Fixed { text, .. } => text.clone(),
            Shots::Drawn { train, count } => random
                .sample(train.len(), *count)
                .expect("`with_drawn_shots` refuses more shots than training documents")
                .into_iter()
                .map(|drawn| self.form.shot(&train[drawn].question, &train[drawn].answer))
                .collect(),
        }
    }
}

impl Task for Gsm8k {
    fn name(&self) -> &str {
        self.form.name
    }

    fn fewshot(&self) -> usize {
        match self.shots {
            Shots::Fixed { count, .. } | Shots::Drawn { count, .. } => count,
        }
    }

    fn requests(&self, documents: &[Document]) -> Result<Vec<Request>, BoxError> {
        // One generator for the whole task: the shots of a question depend on its place.
        let mut random = PythonRandom::new(FEWSHOT_SEED);
        let stop = self.form.stop_strings();
        let ask = |document: &Document| {
            let prompt = self.shots(&mut random) + &self.form.question(&document.question);
            Request::new(prompt, stop.clone(), MAX_NEW_TOKENS)
        };
        Ok(documents.iter().map(ask).collect())
    }

    fn score(&self, document: &Document, output: &str) -> BTreeMap<String, Extraction> {
        let gold = self.form.gold(&document.answer);
        let judge = |filter: &RegexFilter| {
            let extracted = filter.extract(output);
            let score = if exact_match(&extracted, gold) { 1.0 } else { 0.0 };
            (filter.name().to_owned(), Extraction::new(extracted, score))
        };
        self.filters.iter().map(judge).collect()
    }
}
