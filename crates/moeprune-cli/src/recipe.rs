//! `moeprune recipe`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{options::read_recipe, table::table};
use moeprune::{Error, Recipe, Registry, registry::schema};

/// Options of `recipe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  moeprune recipe show arctic > mine.toml
  moeprune recipe stages
  moeprune recipe check mine.toml
  moeprune recipe schema > recipe.schema.json")]
pub(crate) struct RecipeCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a recipe that is built in, with its comments: arctic (the default), reap, hc-smoe,
    /// reference
    Show {
        /// Which
        name: String,
    },
    /// List what may stand for each stage, with parameters and their defaults
    Stages,
    /// Check a recipe file and print it with everything that it leaves out
    Check {
        /// Recipe file (TOML), or one that is built in
        recipe: PathBuf,
    },
    /// Print the JSON schema of recipe files, for editors
    Schema,
}

pub(crate) fn recipe(args: &RecipeCommand, registry: &Registry) -> Result<(), Error> {
    match &args.what {
        What::Show { name } => {
            crate::print::print(Recipe::built_in_text(name)?)?;
        }
        What::Stages => {
            for (part, key, stages) in registry.stages() {
                let section = match part {
                    "ExpertRecipe" => "experts.",
                    "WeightRecipe" => "weights.",
                    _ => "",
                };
                let rows: Vec<Vec<String>> = stages
                    .iter()
                    .map(|stage| {
                        let parameters: Vec<String> =
                            stage.defaults.iter().map(|(k, v)| format!("{k}={v}")).collect();
                        vec![format!("{}  {}", stage.name, stage.about), parameters.join(",")]
                    })
                    .collect();
                line!("{}", table(&[&format!("{section}{key}"), "parameters"], &rows))?;
            }
        }
        What::Check { recipe } => {
            let mut recipe = read_recipe(recipe)?;
            recipe.check()?;
            registry.resolve(&mut recipe)?;
            registry.pipeline(&recipe)?;
            let text = toml::to_string(&recipe)
                .map_err(|e| Error::Recipe(format!("cannot be written as TOML: {e}")))?;
            crate::print::print(&text)?;
        }
        What::Schema => line!("{}", crate::print::json(&schema(registry))?)?,
    }
    Ok(())
}
