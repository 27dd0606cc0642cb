//! Multiple choice: descriptions in files, questions, scores, and what is wrong with them.

use moeprune_eval::{
    CHOICE_TASK_NAMES, ChoiceData, ChoiceTask, Continuation, Error, EvaluateOptions, LogLikelihood,
    Record, choice_task, evaluate_choices, score_each_continuation,
};
use serde_json::{Value, json};

fn record(fields: Value) -> Record {
    Record::new(fields.as_object().expect("an object").clone(), "data.jsonl line 1")
}

fn pairs(name: &str, fields: Value) -> (Vec<(String, String)>, usize) {
    let task = choice_task(name).unwrap().expect(name);
    let mut data = ChoiceData::new(vec![record(fields)], vec![]);
    data.subject = task.subjects().first().map(|&subject| subject.to_owned());
    let question = task.questions(&data, 0).unwrap().remove(0);
    let pair = |pair: Continuation| (pair.context, pair.text);
    (question.pairs.into_iter().map(pair).collect(), question.gold)
}

fn check(name: &str, fields: Value, expected: &[(&str, &str)], gold: usize) {
    let (found, found_gold) = pairs(name, fields);
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!((found.as_slice(), found_gold), (expected, gold), "{name}");
}

#[test]
fn questions_of_built_in_tasks() {
    let choices = json!({"text": ["a", "b  "], "label": ["1", "2"]});
    let science = json!({"question": " Why? ", "choices": choices, "answerKey": "2"});
    let context = "Question:  Why? \nAnswer:";
    check("arc_easy", science.clone(), &[(context, " a"), (context, " b  ")], 1);
    check("arc_challenge", science, &[(context, " a"), (context, " b  ")], 1);
    let stem = json!({"question_stem": "The sun\n", "choices": choices, "answerKey": " 1"});
    check("openbookqa", stem, &[("The sun\n", " a"), ("The sun\n", " b  ")], 0);
    let passage = json!({"passage": "P", "question": "is it", "label": 1});
    let context = "P\nQuestion: is it?\nAnswer:";
    check("boolq", passage, &[(context, " no"), (context, " yes")], 1);
    let sentences = json!({"sentence1": "A.", "sentence2": "B.", "label": 0});
    let context = "A.\nQuestion: B. True or False?\nAnswer:";
    check("rte", sentences, &[(context, " True"), (context, " False")], 0);
    let goal = json!({"goal": "Boil", "sol1": "heat", "sol2": "cool", "label": "0"});
    let context = "Question: Boil\nAnswer:";
    check("piqa", goal, &[(context, " heat"), (context, " cool")], 0);
    let blank = json!({"sentence": "Ann saw Bea so _ left. _", "option1": "Ann", "option2": "Bea", "answer": "2"});
    let expected = [("Ann saw Bea so Ann", " left. _"), ("Ann saw Bea so Bea", " left. _")];
    check("winogrande", blank, &expected, 1);
    let scene = json!({
        "activity_label": "Cleaning", "ctx_a": "[header] How to clean [title] Wipe.  Rub.", "ctx_b": "éIN Mann",
        "endings": [" wet [step] it.", "dry  it [title] now\n"], "label": "1",
    });
    let context = "Cleaning: How to clean. Wipe. Rub. Éin mann";
    check("hellaswag", scene, &[(context, " wet it."), (context, " dry it. now")], 1);
    let exam = json!({"question": "  One? ", "choices": ["w", "x", "y", "z"], "answer": 3});
    let context = "The following are multiple choice questions (with answers) about abstract algebra.\n\n\
                   One?\nA. w\nB. x\nC. y\nD. z\nAnswer:";
    check("mmlu", exam, &[(context, " A"), (context, " B"), (context, " C"), (context, " D")], 3);
}

#[test]
fn built_in_files_are_tasks() {
    for name in CHOICE_TASK_NAMES {
        let task = choice_task(name).unwrap().expect(name);
        assert_eq!(task.name(), name);
        assert!(!task.about().is_empty() && !task.published().is_empty(), "{name}");
        assert!(task.split().is_some() && task.fewshot_split().is_some(), "{name}");
    }
    let mmlu = choice_task("mmlu").unwrap().unwrap();
    let sizes: Vec<_> = mmlu.groups().map(|(name, subjects)| (name, subjects.len())).collect();
    assert_eq!(sizes, [("humanities", 13), ("other", 13), ("social_sciences", 12), ("stem", 19)]);
    assert_eq!(choice_task("mmlu_social_sciences").unwrap().unwrap().subjects().len(), 12);
    assert_eq!(choice_task("mmlu_virology").unwrap().unwrap().subjects(), ["virology"]);
    for unknown in ["mmlu_", "mmlu_cooking", "mmlux", "arc", "arc_easy_", "boolq_x", ""] {
        assert!(choice_task(unknown).unwrap().is_none(), "{unknown}");
    }
}

const MINE: &str = r#"
name = "mine"
prompt = "{{ q }}"
choices = "c"
answer = "a"
"#;

/// A task of `q`, `c` and `a` with further lines.
fn mine(lines: &str) -> ChoiceTask {
    ChoiceTask::from_toml(&format!("{MINE}{lines}"), "mine.toml").unwrap()
}

fn report(task: &ChoiceTask, rows: Vec<Value>, sums: &[f64]) -> moeprune_eval::EvalReport {
    let data = [ChoiceData::new(rows.into_iter().map(record).collect(), vec![])];
    let mut sums = sums.iter();
    let mut scorer =
        score_each_continuation(|_| Ok(LogLikelihood::new(*sums.next().unwrap(), 1, false)));
    evaluate_choices(task, None, &data, &mut scorer, &EvaluateOptions::default()).unwrap()
}

/// Which choice each metric takes.
#[test]
fn choices_by_metric() {
    let task = mine("metrics = ['acc', 'acc_norm', 'acc_bytes']");
    let check = |choices: &[&str], sums: &[f64], expected: [&str; 3]| {
        let report = report(&task, vec![json!({"q": "?", "c": choices, "a": 0})], sums);
        let of = |name: &str| report.answers[0].scores[name].extracted.clone();
        assert_eq!(["acc", "acc_norm", "acc_bytes"].map(of), expected, "{choices:?} {sums:?}");
        assert_eq!(report.answers[0].output, expected[0]);
    };
    check(&["a", "b"], &[-1.0, -2.0], ["a", "a", "a"]);
    check(&["a", "bbbb"], &[-1.0, -2.0], ["a", "bbbb", "bbbb"]);
    // Characters, not bytes, are what acc_norm divides by.
    check(&["aaa", "éé"], &[-3.0, -3.0], ["aaa", "aaa", "éé"]);
    // The first among equals.
    check(&["a", "b", "c"], &[-2.0, -1.0, -1.0], ["b", "b", "b"]);
    check(&["a", "b"], &[f64::NEG_INFINITY, f64::NEG_INFINITY], ["a", "a", "a"]);
    check(&["a", "b"], &[f64::NEG_INFINITY, -1e9], ["b", "b", "b"]);
}

#[test]
fn scores_are_means_with_errors() {
    let row = |gold: u8| json!({"q": "?", "c": ["x", "y"], "a": gold});
    let found =
        report(&mine(""), vec![row(0), row(1), row(0)], &[-1.0, -2.0, -1.0, -2.0, -1.0, -2.0]);
    let acc = found.metrics["acc"];
    assert!((acc.mean - 2.0 / 3.0).abs() < 1e-15);
    assert!((acc.stderr.unwrap() - (2.0 / 9.0 / 2.0_f64).sqrt()).abs() < 1e-15);
    assert_eq!((found.n, found.fewshot, found.task.as_str()), (3, 0, "mine"));
    assert_eq!(found.answers[1].gold, Some(1));
    assert_eq!(found.answers[2].choices[1].log_likelihood, -2.0);
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<moeprune_eval::EvalReport>(&json).unwrap(), found);
}

#[test]
fn right_choices_by_number_text_or_label() {
    let check = |lines: &str, answer: Value, expected: usize| {
        let row = record(json!({"q": "?", "c": ["x", "1"], "l": ["A", 7], "a": answer}));
        let found = mine(lines).questions(&ChoiceData::new(vec![row], vec![]), 0).unwrap();
        assert_eq!(found[0].gold, expected, "{lines} {answer}");
    };
    check("", json!(1), 1);
    check("", json!("0"), 0);
    check("", json!("x"), 0);
    check("", json!("1"), 1); // a choice's text before a number
    check("labels = 'l'", json!("A"), 0);
    check("labels = 'l'", json!(7), 1);
}

/// What a description says that is none.
#[test]
fn files_that_describe_no_task() {
    let check = |text: &str, expected: &str| {
        let error = ChoiceTask::from_toml(text, "mine.toml").unwrap_err().to_string();
        assert!(error.starts_with("mine.toml describes no task: "), "{error}");
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    };
    let with = |lines: &str| format!("{MINE}{lines}");
    check("", "missing field `name`");
    check(&with("promt = 'x'"), "unknown field `promt`");
    check(&with("choice = 3"), "expected a string");
    check(
        &with("metrics = ['f1']"),
        "`metrics`: expected some of acc, acc_norm, acc_bytes, found \"f1\"",
    );
    check(&with("metrics = []"), "found none");
    check(&with("labels = 'a +'"), "`labels`: expected a Jinja expression");
    check(&with("description = \"{% include 'x' %}\""), "unknown statement include");
    check(&with("description = '{{ x '"), "`description`: expected a Jinja template");
    check(&with("continuation = 'x'"), "expected `prompt` and `choices`");
    check("name = 'x'\nanswer = 'a'", "expected `prompt` and `choices`");
    check("name = 'x'\nanswer = 'a'\nprompts = ['x']\ncontinuation = 'y'", "at least two");
    check("name = 'a/b'\nanswer = 'a'\nprompt = ''\nchoices = 'c'", "`name`: expected letters");
    check(&with("[fewshot]\ndraw = 'last'"), "unknown variant `last`");
    check(&with("[groups]\na = ['x', 'x']"), "`x` is named twice");
    check(&with("[groups]\na = []"), "found none");
    check(&MINE.replace("\"c\"", "3"), "an expression in quotes, or a list of templates");
}

/// What a record has that does not fit.
#[test]
fn records_that_do_not_fit() {
    let check = |lines: &str, fields: Value, expected: &str| {
        let data = ChoiceData::new(vec![record(fields)], vec![]);
        let error = mine(lines).questions(&data, 0).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    check(
        "[data]\nhub = 'us/mine'",
        json!({"q": "?", "options": [], "gold": 0}),
        "data.jsonl line 1: `mine` reads the fields `a`, `c`, `q`, and this record has `q`, `options`, `gold`: give \
         the data as it is published (us/mine on the Hugging Face Hub has them), or describe it in a task file of \
         your own",
    );
    let row = |choices: Value, answer: Value| json!({"q": "?", "c": choices, "a": answer});
    let xy = || json!(["x", "y"]);
    let prefix = "data.jsonl line 1: `answer` of the task `mine`: expected";
    let hidden = "; files without answers (often named `test`) cannot be scored";
    let number = format!("{prefix} a number from 0 to 1 or one of the choices, found");
    check("", row(xy(), json!(2)), &format!("{number} 2{hidden}"));
    check("", row(xy(), json!(-1)), &format!("{number} -1{hidden}"));
    check("", row(xy(), json!("")), &format!("{number} ''{hidden}"));
    check("", row(xy(), json!(null)), &format!("{number} None{hidden}"));
    check(
        "labels = '[1]'",
        row(xy(), json!(1)),
        "data.jsonl line 1: `labels` of the task `mine`: expected one for each of the 2 choices, found [1]",
    );
    check("labels = 'c'", row(xy(), json!("z")), &format!("{prefix} one of ['x', 'y'], found 'z'"));
    let prefix = "data.jsonl line 1: `choices` of the task `mine`:";
    check(
        "",
        row(json!(["x"]), json!(0)),
        &format!("{prefix} 1 where at least 2 are to choose from"),
    );
    check(
        "",
        row(json!("xy"), json!(0)),
        &format!("{prefix} expected a list of texts, found 'xy'"),
    );
    check(
        "",
        row(json!(["x", 3]), json!(0)),
        &format!("{prefix} expected a list of texts, found ['x', 3]"),
    );
}

#[test]
fn templates_that_do_not_work_on_a_record() {
    let fails = |prompt: &str, fields: Value| {
        let text =
            format!("name = 'mine'\nchoices = ['x', 'y']\nanswer = '0'\nprompt = '''{prompt}'''");
        let task = ChoiceTask::from_toml(&text, "mine.toml").unwrap();
        let data = ChoiceData::new(vec![record(fields)], vec![]);
        let error = task.questions(&data, 0).unwrap_err();
        assert!(matches!(error, Error::Template { key: "prompt", .. }), "{error}");
        error.to_string()
    };
    assert!(fails("{{ q.text }}", json!({"q": {"x": 1}})).contains("undefined"));
    assert!(fails("{{ q }}", json!({"q": ["x"]})).contains("a sequence cannot stand in a text"));
    assert!(fails("{{ q.index('z') }}", json!({"q": "abc"})).contains("\"z\" is not in \"abc\""));
    assert!(
        fails("{{ q | regex_replace('(', '') }}", json!({"q": "abc"}))
            .contains("regular expression")
    );
    let endless = "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}";
    assert!(fails(endless, json!({})).contains("fuel"));
    assert!(fails("{{ 'long' * 1000000000 }}", json!({})).contains("fuel"));
    fails("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", json!({}));
}

#[test]
fn values_are_written_as_python_writes_them() {
    let check = |prompt: &str, fields: Value, expected: &str| {
        let text =
            format!("name = 'm'\nchoices = ['x', 'y']\nanswer = '0'\nprompt = '''{prompt}'''");
        let task = ChoiceTask::from_toml(&text, "m.toml").unwrap();
        let data = ChoiceData::new(vec![record(fields)], vec![]);
        assert_eq!(task.questions(&data, 0).unwrap()[0].pairs[0].context, expected, "{prompt}");
    };
    check("{{ q }}", json!({"q": true}), "True");
    check("{{ q }}", json!({"q": null}), "None");
    check("{{ q }}", json!({"q": 12}), "12");
    check("{{ q }}\n", json!({"q": "x\n"}), "x\n\n");
    check("{{ q }}", json!({"q": "<b> & {{ x }}"}), "<b> & {{ x }}");
    check(
        "{{ q.strip() }}|{{ q.lstrip() }}|{{ q.rstrip() }}",
        json!({"q": "\u{1c} é\u{a0}"}),
        "é|é\u{a0}|\u{1c} é",
    );
    check("{{ q[:q.index('_')] }}", json!({"q": "éé_a"}), "éé");
    check("{{ l.index('b') }}", json!({"l": ["a", "b"]}), "1");
    check("{{ q | regex_replace('a', 'b', 1) }}", json!({"q": "aaa"}), "baa");
    check("{{ q.capitalize() }}", json!({"q": "éCOLE d'ÉTÉ"}), "École d'été");
}

#[test]
fn examples_before_questions() {
    let examples = |count: u8| -> Vec<Record> {
        (0..count)
            .map(|n| record(json!({"q": format!("q{n}"), "c": ["x", "y"], "a": n % 2})))
            .collect()
    };
    let context = |task: &ChoiceTask, examples: Vec<Record>, shots: usize| {
        let question = record(json!({"q": "q1", "c": ["x", "y"], "a": 1}));
        let found = task.questions(&ChoiceData::new(vec![question], examples), shots);
        found.map(|questions| questions[0].pairs[0].context.clone())
    };
    let first = mine(
        "description = 'D. '\ntarget_delimiter = '='\nfewshot_delimiter = ';'\n[fewshot]\ndraw = 'first'",
    );
    assert_eq!(context(&first, examples(4), 3).unwrap(), "D. q0=x;q1=y;q2=x;q1");
    let others = mine("[fewshot]\ndraw = 'first'\nleave_out_question = true");
    assert_eq!(context(&others, examples(4), 2).unwrap(), "q0 x\n\nq2 x\n\nq1");
    let drawn = mine("[fewshot]\nleave_out_question = true");
    for count in 4..12 {
        let context = context(&drawn, examples(count), 3).unwrap();
        let shown: Vec<&str> = context.split("\n\n").collect();
        assert_eq!(shown.len(), 4, "{context}");
        assert!(!shown[..3].iter().any(|shot| shot.starts_with("q1 ")), "{context}");
    }
    // All that are equal to the question are left out, though more of them are drawn than one.
    let twice = [examples(3), examples(3), examples(2)].concat();
    assert!(!context(&drawn, twice, 3).unwrap().contains("q1 "));
    let error = context(&drawn, examples(3), 3).unwrap_err().to_string();
    assert!(error.contains("needs examples for its shots, 4 at least, and was given 3"), "{error}");
    let error = context(&first, examples(2), 3).unwrap_err().to_string();
    assert!(error.contains("needs examples for its shots, 3 at least, and was given 2"), "{error}");
}

#[test]
fn scorers_that_do_not_keep_their_promise() {
    struct Wrong(usize, f64);
    impl moeprune_eval::ContinuationScorer for Wrong {
        fn score(
            &mut self,
            _: &[Continuation],
        ) -> Result<Vec<LogLikelihood>, moeprune_eval::BoxError> {
            Ok(vec![LogLikelihood::new(self.1, 1, false); self.0])
        }
    }
    let data = [ChoiceData::new(vec![record(json!({"q": "?", "c": ["x", "y"], "a": 0}))], vec![])];
    let run = |mut scorer: Wrong| {
        evaluate_choices(&mine(""), None, &data, &mut scorer, &EvaluateOptions::default())
    };
    assert!(matches!(run(Wrong(1, -1.0)), Err(Error::ScoreCount { pairs: 2, scores: 1 })));
    assert!(matches!(run(Wrong(3, -1.0)), Err(Error::ScoreCount { pairs: 2, scores: 3 })));
    assert!(matches!(run(Wrong(2, f64::NAN)), Err(Error::NoLogLikelihood { .. })));
    assert!(run(Wrong(2, -1.0)).is_ok());
    let nothing =
        evaluate_choices(&mine(""), None, &[], &mut Wrong(0, 0.0), &EvaluateOptions::default());
    assert!(matches!(nothing, Err(Error::NoDocuments)));
}

#[test]
fn subjects_are_weighted_by_their_size() {
    let task = mine("description = '{{ subject }}'\n[groups]\none = ['a']\ntwo = ['b', 'c']");
    let row = |gold: usize| record(json!({"q": "?", "c": ["x", "y"], "a": gold}));
    let of = |subject: &str, golds: &[usize]| {
        ChoiceData::new(golds.iter().map(|&gold| row(gold)).collect(), vec![]).of_subject(subject)
    };
    let data = [of("a", &[0, 0, 1]), of("b", &[0, 1]), of("c", &[0, 0, 0, 0])];
    let mut first = score_each_continuation(|pair| {
        Ok(LogLikelihood::new(if pair.text == " x" { -1.0 } else { -2.0 }, 1, false))
    });
    let report =
        evaluate_choices(&task, None, &data, &mut first, &EvaluateOptions::default()).unwrap();
    assert_eq!(report.n, 9);
    assert!((report.metrics["acc"].mean - 7.0 / 9.0).abs() < 1e-15);
    let names: Vec<_> = report.subjects.iter().map(|part| (part.name.as_str(), part.n)).collect();
    assert_eq!(names, [("a", 3), ("b", 2), ("c", 4)]);
    assert!((report.groups[1].metrics["acc"].mean - 5.0 / 6.0).abs() < 1e-15);
    // The pooled standard error: of b 0.5 over 2, of c 0 over 4.
    let pooled = ((1.0 * 0.25 * 2.0) / (6.0 - 2.0) / 6.0_f64).sqrt();
    assert!((report.groups[1].metrics["acc"].stderr.unwrap() - pooled).abs() < 1e-15);
    assert_eq!(report.answers[3].subject.as_deref(), Some("b"));
}
