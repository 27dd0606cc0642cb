/*!
The Hugging Face cache of this machine: where it is and which models it has.

```
use moeprune_hub::Cache;

let cache = Cache::located_by(&|name| (name == "HF_HOME").then(|| "/data/hf".into())).unwrap();
assert_eq!(cache.place(), std::path::Path::new("/data/hf/hub"));
assert!(cache.models().is_empty());
```

# Why it is so

*It reads, and never writes.* The cache belongs to the tools of Hugging Face, which lock it while they write.
*/

mod cache;

pub use cache::{Cache, CachedModel};
