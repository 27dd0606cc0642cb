//! What a recipe file may say, for editors.

use serde_json::{Value, json};

use super::{Registry, StageInfo};
use crate::{Recipe, recipe::Parameter};

/// The JSON schema of a recipe file, with the stages that are registered and their parameters.
///
/// Every key may be left out of a file, and takes its default then.
#[must_use]
pub fn schema(registry: &Registry) -> Value {
    let mut schema = schemars::schema_for!(Recipe).to_value();
    schema["title"] = json!("moeprune recipe");
    optional(&mut schema);
    for (definition, key, stages) in registry.stages() {
        let part = match definition {
            "Recipe" => &mut schema,
            _ => &mut schema["$defs"][definition],
        };
        let about = part["properties"][key]["description"].take();
        let mut stage = stage_schema(&stages);
        stage["description"] = about;
        part["properties"][key] = stage;
    }
    if let Some(definitions) = schema["$defs"].as_object_mut() {
        definitions.remove("StageChoice");
    }
    schema
}

/// Removes what says that keys must be there.
fn optional(schema: &mut Value) {
    if let Some(object) = schema.as_object_mut() {
        if object.contains_key("properties") {
            object.remove("required");
        }
        object.values_mut().for_each(optional);
    }
}

/// A name alone, or a table of a name and parameters.
fn stage_schema(stages: &[StageInfo]) -> Value {
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    let mut forms = vec![json!({ "enum": names })];
    for stage in stages {
        let mut properties = json!({ "name": { "const": stage.name } });
        for (key, default) in &stage.defaults {
            let kind = match default {
                Parameter::Switch(_) => json!("boolean"),
                Parameter::Integer(_) => json!("integer"),
                Parameter::Number(_) => json!("number"),
                // A number that is chosen unless it is given.
                Parameter::Text(word) if word == "auto" => json!(["string", "number"]),
                Parameter::Text(_) => json!("string"),
            };
            properties[key] = json!({ "type": kind, "default": default });
        }
        forms.push(json!({
            "description": stage.about,
            "type": "object",
            "required": ["name"],
            "additionalProperties": false,
            "properties": properties,
        }));
    }
    json!({ "anyOf": forms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::BUILT_IN;

    /// `moeprune recipe schema > docs/recipe.schema.json` writes it.
    #[test]
    fn the_schema_in_docs_is_current() {
        let written: Value =
            serde_json::from_str(include_str!("../../../../docs/recipe.schema.json")).unwrap();
        assert_eq!(written, schema(&Registry::built_in()));
    }

    /// Every key of a recipe that is built in has a place in the schema.
    #[test]
    fn built_in_recipes_fit_the_schema() {
        let schema = schema(&Registry::built_in());
        for (name, text) in BUILT_IN {
            let recipe: toml::Table = toml::from_str(text).unwrap();
            for (key, value) in &recipe {
                let property = &schema["properties"][key];
                assert!(property.is_object(), "{name}: {key}");
                let Some(section) = value.as_table() else { continue };
                let Some(definition) = property["$ref"].as_str() else { continue };
                let definition = definition.rsplit('/').next().unwrap();
                for key in section.keys() {
                    let property = &schema["$defs"][definition]["properties"][key];
                    assert!(property.is_object(), "{name}: {definition}.{key}");
                }
            }
        }
    }
}
