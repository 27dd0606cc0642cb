//! Preprocessed CUDA C++ to C++: what macros cannot do with `__global__` and `__shared__`.

/// Replaces declarations of shared memory by calls of `emulator/device.h`, drops `__global__`, and registers every
/// `extern "C"` kernel at the end. Lines stay where they are, so that messages fit the source.
pub(crate) fn to_cpp(preprocessed: &str) -> String {
    let mut text = String::with_capacity(preprocessed.len());
    let mut kernels = Vec::new();
    let mut rest = preprocessed;
    while let Some((at, word)) = next_marker(rest) {
        text.push_str(&rest[..at]);
        rest = &rest[at + word.len()..];
        if word == GLOBAL {
            if text.trim_end().ends_with("extern \"C\"") {
                let name = rest
                    .find('(')
                    .and_then(|end| rest[..end].split_whitespace().last())
                    .unwrap_or_default();
                kernels.push(name.to_owned());
            }
        } else {
            let end = rest.find(';').unwrap_or(rest.len());
            let dynamic = text.trim_end().ends_with("extern");
            if dynamic {
                text.truncate(text.trim_end().len() - "extern".len());
            }
            text.push_str(&declarations(&rest[..end], dynamic));
            rest = &rest[end..];
        }
    }
    text.push_str(rest);
    kernels.sort();
    kernels.dedup();
    for kernel in kernels {
        text.push_str(&format!(
            "\nstatic const cuda_on_cpu::Registration<{kernel}> cuda_on_cpu_{kernel}{{\"{kernel}\"}};"
        ));
    }
    text.push('\n');
    text
}

const GLOBAL: &str = "__global__";
const SHARED: &str = "__shared__";

/// The first of the two words as a whole word.
fn next_marker(text: &str) -> Option<(usize, &'static str)> {
    let find = |word: &'static str| {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        let whole = |&(at, _): &(usize, &str)| {
            !text[..at].ends_with(inside) && !text[at + word.len()..].starts_with(inside)
        };
        text.match_indices(word).find(whole).map(|(at, _)| (at, word))
    };
    find(GLOBAL).into_iter().chain(find(SHARED)).min()
}

/// `float a[32], b` to references to shared memory, `float a[]` to a pointer to the dynamic kind that each launch sets. Newlines are kept.
fn declarations(declaration: &str, dynamic: bool) -> String {
    let mut kind = "";
    let mut made = Vec::new();
    for declarator in split_at_commas(declaration) {
        let name_end = declarator.find('[').unwrap_or(declarator.len());
        let (before, extents) = declarator.split_at(name_end);
        let name_start = before
            .trim_end()
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |at| at + 1);
        let name = before[name_start..].trim();
        if made.is_empty() {
            kind = &before[..name_start];
        }
        let kind = without_alignment(kind).replace('\n', " ");
        made.push(match dynamic {
            true => {
                format!("static {0} *&{name} = cuda_on_cpu::dynamic_shared<{0}>()", kind.trim())
            }
            false => format!(
                "auto &{name} = cuda_on_cpu::static_shared<{} {extents}>([] {{}})",
                kind.trim()
            ),
        });
    }
    let newlines = declaration.matches('\n').count()
        - made.iter().map(|one| one.matches('\n').count()).sum::<usize>();
    made.join("; ") + &"\n".repeat(newlines)
}

/// Parts of a list between commas outside of brackets.
fn split_at_commas(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let outside = |c: char| {
        depth += i32::from("([{<".contains(c)) - i32::from(")]}>".contains(c));
        c == ',' && depth == 0
    };
    list.split(outside).collect()
}

/// Without `alignas(…)`: shared memory is aligned enough, and a type cannot carry it.
fn without_alignment(kind: &str) -> String {
    match kind.find("alignas(") {
        None => kind.to_owned(),
        Some(at) => {
            let end = kind[at..].find(')').map_or(kind.len(), |end| at + end + 1);
            kind[..at].to_owned() + &kind[end..]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::to_cpp;

    fn check(cuda: &str, expected: &str) {
        assert_eq!(to_cpp(cuda), expected);
    }

    #[test]
    fn a_kernel_is_registered_once() {
        check(
            "extern \"C\" __global__ void f(int n);\nextern \"C\" __global__ void f(int n) {}",
            "extern \"C\"  void f(int n);\nextern \"C\"  void f(int n) {}\n\
             static const cuda_on_cpu::Registration<f> cuda_on_cpu_f{\"f\"};\n",
        );
    }

    #[test]
    fn a_kernel_without_a_plain_name_is_left_alone() {
        check(
            "template <class T> __global__ void f(T n) {}",
            "template <class T>  void f(T n) {}\n",
        );
    }

    #[test]
    fn shared_variables_become_references() {
        check(
            "__shared__ unsigned a[4]\n[8], b;",
            "auto &a = cuda_on_cpu::static_shared<unsigned [4]\n[8]>([] {}); \
             auto &b = cuda_on_cpu::static_shared<unsigned >([] {});\n",
        );
    }

    #[test]
    fn dynamic_shared_memory_becomes_a_pointer() {
        check(
            "extern __shared__ alignas(16) unsigned char bytes[];",
            "static unsigned char *&bytes = cuda_on_cpu::dynamic_shared<unsigned char>();\n",
        );
    }

    #[test]
    fn words_that_contain_the_marker_stay() {
        check("int my__shared__x;", "int my__shared__x;\n");
    }
}
