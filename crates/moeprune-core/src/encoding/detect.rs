//! Which encoding reads a module.

use super::{
    Encoding, SharedEncoding, awq, config::QuantConfig, fp8, gptq, int4, module::ModuleTensors,
    mxfp4, nvfp4, of, undecoded,
};
use crate::Error;

/// Decides whether the tensors of a module are of a format: `None` if not.
type Recognise = fn(&ModuleTensors<'_>, &QuantConfig) -> Option<Result<SharedEncoding, Error>>;

/// The formats; the first that recognises a module reads it.
const FORMATS: [Recognise; 8] = [
    undecoded::recognise,
    fp8::recognise,
    int4::recognise,
    nvfp4::recognise,
    mxfp4::recognise,
    gptq::recognise,
    awq::recognise, // after GPTQ, which has some tensors of the same names
    plain,
];

/// Tensors beside a module's weight that say nothing about it: biases, and scales of activations.
const BESIDE: [&str; 11] = [
    ".bias",
    "_bias",
    ".input_scale",
    ".activation_scale",
    ".input_global_scale",
    ".input_zero_point",
    ".output_scale",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
];

/// The encoding of the weight of a module, by the module's tensors; the config supplies what they
/// cannot say.
///
/// # Errors
/// [`Error::NotDecoded`] for a format that is known and not decoded. [`Error::Encoding`] if a
/// companion is missing, of the wrong type, or there is a tensor that is none of the format's; if the
/// config lacks what is needed, or contradicts the shapes. [`Error::UnknownModule`] of anything else.
pub fn detect(module: &ModuleTensors<'_>, config: &QuantConfig) -> Result<SharedEncoding, Error> {
    let found = FORMATS.iter().find_map(|recognise| recognise(module, config));
    let encoding = found.unwrap_or_else(|| {
        let shown = module.suffixes().map(|suffix| match module.dtype(suffix) {
            Some(dtype) => format!("`{suffix}` {dtype}"),
            None => format!("`{suffix}`"),
        });
        Err(Error::UnknownModule(shown.collect::<Vec<_>>().join(", ")))
    })?;
    check(&*encoding, module)?;
    Ok(encoding)
}

fn plain(module: &ModuleTensors<'_>, _: &QuantConfig) -> Option<Result<SharedEncoding, Error>> {
    Some(Ok(of(module.dtype(".weight")?).ok()?.into()))
}

/// Checks that the tensors are those of the encoding, and no others.
fn check(encoding: &dyn Encoding, module: &ModuleTensors<'_>) -> Result<(), Error> {
    let bad = |reason| Err(Error::Encoding { encoding: encoding.name(), reason });
    let main = encoding.suffix();
    match module.dtype(main) {
        Some(dtype) if dtype == encoding.dtype() => {}
        Some(got) => return bad(format!("`{main}` is {got}, expected {}", encoding.dtype())),
        None => return bad(format!("it has no tensor `{main}`")),
    }
    for companion in encoding.companions() {
        match module.dtype(companion.suffix) {
            Some(dtype) if companion.dtypes.contains(&dtype) => {}
            Some(got) => {
                let expected = companion.types();
                return bad(format!(
                    "its companion `{}` is {got}, expected {expected}",
                    companion.suffix
                ));
            }
            None => return bad(format!("its companion `{}` is missing", companion.suffix)),
        }
    }
    let belongs = |suffix: &str| {
        suffix == main
            || BESIDE.contains(&suffix)
            || encoding.companions().iter().any(|companion| companion.suffix == suffix)
    };
    match module.suffixes().find(|suffix| !belongs(suffix)) {
        Some(extra) => bad(format!(
            "`{extra}` is none of its tensors: a dialect that is not known, or a tensor left over"
        )),
        None => Ok(()),
    }
}
