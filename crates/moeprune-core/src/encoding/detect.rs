//! Which format the tensors of a module are of, and what reads them.

use super::{
    Encoding, SharedEncoding, awq,
    config::QuantConfig,
    form::{Format, Held, Misfit, Recognised, StoredForm, says_nothing, shown},
    fp8, ggml, gptq, int4,
    module::ModuleTensors,
    mxfp4, nvfp4, of, undecoded,
};
use crate::{Dtype, Error};

/// The formats; the first that recognises a module reads it.
const FORMATS: [&Format; 9] = [
    &undecoded::FORMAT,
    &ggml::FORMAT,
    &fp8::FORMAT,
    &int4::FORMAT,
    &nvfp4::FORMAT,
    &mxfp4::FORMAT,
    &gptq::FORMAT,
    &awq::FORMAT, // after GPTQ, which has some tensors of the same names
    &PLAIN,
];

/// One number for each weight.
const PLAIN: Format = Format {
    codes: &[".weight"],
    companions: &[],
    form: plain_form,
    shape: |_| None,
    encoding: |module, _| Some(Ok(of(module.dtype(".weight")?).ok()?.into())),
};

/// The encoding of the weight of a module, by the module's tensors; the config supplies what they
/// cannot say.
///
/// # Errors
/// [`Error::NotDecoded`] for a format that is known and not decoded. [`Error::Encoding`] if a
/// companion is missing, of the wrong type, or there is a tensor that is none of the format's; if the
/// config lacks what is needed, or contradicts the shapes. [`Error::UnknownModule`] of anything else.
pub fn detect(module: &ModuleTensors<'_>, config: &QuantConfig) -> Result<SharedEncoding, Error> {
    let found: Option<Recognised> =
        FORMATS.iter().find_map(|format| (format.encoding)(module, config));
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

/// As [`detect`], of tensors that are to hold a weight of shape `expected`, with the codes in the tensor
/// `codes`. What shapes say is not taken from the config.
///
/// # Errors
/// As [`detect`].
pub fn detect_held(
    module: &ModuleTensors<'_>,
    codes: &str,
    expected: &[usize],
    config: &QuantConfig,
) -> Result<SharedEncoding, Error> {
    let (dtype, shape) = module.get(codes).unwrap_or((Dtype::U8, &[]));
    let held = Held { module, main: (codes, dtype, shape), expected, config };
    let found = FORMATS.iter().find_map(|format| Some((format, (format.form)(&held)?)));
    let Some((format, Ok(form))) = found else { return detect(module, config) };
    let config = QuantConfig { bits: form.bits().or(config.bits), ..config.clone() };
    let encoding = (format.encoding)(module, &config);
    let encoding = encoding.unwrap_or_else(|| Err(Error::NotDecoded(form.to_string())))?;
    check(&*encoding, module)?;
    Ok(encoding)
}

/// What the name of the tensor that holds the codes has after the module's, of a module that has
/// tensors: one that a format names so, else the largest.
///
/// # Errors
/// If there is nothing but what some format has beside codes.
pub fn codes_of<'a>(module: &ModuleTensors<'a>) -> Result<&'a str, Misfit> {
    let codes = || FORMATS.iter().flat_map(|format| format.codes);
    let named = codes().find_map(|name| module.suffixes().find(|suffix| suffix == name));
    if let Some(named) = named {
        return Ok(named);
    }
    let beside = |suffix: &str| {
        let mut companions = FORMATS.iter().flat_map(|format| format.companions);
        says_nothing(suffix) || companions.any(|companion| *companion == suffix)
    };
    if module.suffixes().all(beside) {
        let beside: Vec<&str> = module.suffixes().map(shown).collect();
        let reason = format!("is missing; there is only `{}` of it", beside.join("`, `"));
        return Err(Misfit::new(PLAIN.codes[0], reason));
    }
    let bytes = |suffix: &&str| {
        let (dtype, shape) = module.get(suffix).unwrap_or((Dtype::U8, &[0]));
        dtype.bytes_of_shape(shape).unwrap_or(usize::MAX)
    };
    Ok(module.suffixes().max_by_key(bytes).unwrap_or_default())
}

/// The shape of the weight that tensors hold, as far as they say; that of the codes, which are in the
/// tensor `codes`, if they do not.
#[must_use]
pub fn shape_of(module: &ModuleTensors<'_>, codes: &str) -> Vec<usize> {
    let of_format =
        |format: &&Format| format.codes.contains(&codes).then(|| (format.shape)(module)).flatten();
    let shape = || module.get(codes).map(|(_, shape)| shape.to_vec()).unwrap_or_default();
    FORMATS.iter().find_map(of_format).unwrap_or_else(shape)
}

/// The form in which tensors hold a weight of shape `expected`, in a format that is decoded or not. The
/// codes are in the tensor `codes`; the config supplies what tensors cannot say.
///
/// # Errors
/// Which tensor is missing or does not fit.
pub fn form_of(
    module: &ModuleTensors<'_>,
    codes: &str,
    expected: &[usize],
    config: &QuantConfig,
) -> Result<StoredForm, Misfit> {
    let (dtype, shape) = module.get(codes).unwrap_or((Dtype::U8, &[]));
    let held = Held { module, main: (codes, dtype, shape), expected, config };
    let form = FORMATS.iter().find_map(|format| (format.form)(&held));
    form.unwrap_or_else(|| {
        let shown = module
            .suffixes()
            .filter_map(|suffix| Some(format!("{} {}", shown(suffix), module.dtype(suffix)?)));
        Ok(StoredForm::Unknown(shown.collect::<Vec<_>>().join(", ")))
    })
}

/// Numbers that are weights, if what is beside them is about activations.
fn plain_form(held: &Held<'_>) -> Option<Result<StoredForm, Misfit>> {
    let (main, dtype, _) = held.main;
    let beside = |suffix: &str| suffix == main || says_nothing(suffix);
    let named = main == ".weight" || held.expected.len() != 2;
    let plain = named && dtype.is_weight() && held.module.suffixes().all(beside);
    plain.then(|| held.check(main, held.expected).map(|()| StoredForm::Numbers(dtype)))
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
            || says_nothing(suffix)
            || encoding.companions().iter().any(|companion| companion.suffix == suffix)
    };
    match module.suffixes().find(|suffix| !belongs(suffix)) {
        Some(extra) => bad(format!(
            "`{extra}` is none of its tensors: a dialect that is not known, or a tensor left over"
        )),
        None => Ok(()),
    }
}
