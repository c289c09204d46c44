# Breaking rules on purpose, for scripts/mutate-*: a copy of the sources in which each mutant is a branch that TIDEGATE_BROKEN
# switches on, all built at once. Sourced, at the root of the repository, with `crate` set to a crate's directory.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
copy=$CARGO_TARGET_DIR/mutants
src=$copy/$crate/src

rm -rf "$copy"
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy" --no-dereference
# Another version, so that nothing that cargo builds here is taken for what it builds there.
sed -i 's/^version = "\(.*\)"$/version = "\1-mutants"/' "$copy/Cargo.toml"
cat >> "$src/lib.rs" <<'RUST'

fn broken(mutant: &str) -> bool {
    static BROKEN: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| std::env::var("TIDEGATE_BROKEN").unwrap_or_default());
    *BROKEN == mutant
}
RUST

mutants=()
declare -A tests
# mutant ID < TESTS: begins a mutant, which each of the tests on the input has to notice.
mutant() {
    mutants+=("$1")
    tests[$1]=$(cat)
}
# edit FILE TEXT OTHER: puts OTHER, in which BROKEN is the mutant's switch, in the place of the one TEXT.
edit() {
    local file=$src/$1 was id=${mutants[-1]} rest
    was=$(< "$file")
    rest=${was/"$2"/}
    if [[ $rest == "$was" || ${rest/"$2"/} != "$rest" ]]; then
        echo "mutant $id: $1 does not have exactly once: $2" >&2
        exit 1
    fi
    printf '%s\n' "${was/"$2"/"${3//BROKEN/"crate::broken(\"$id\")"}"}" > "$file"
}

# build ARGUMENT...: builds all mutants by `cargo test` with these.
build() {
    echo "building ${#mutants[@]} mutants" >&2
    cargo test --manifest-path "$copy/Cargo.toml" "$@" --no-run --message-format json > "$copy/built.json"
    cd "$copy/$crate"
}
# program NAME: the tests of that name.
program() {
    sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' "$copy/built.json" | tail -1
}

# passing TEST...: those that pass by `play TEST`, with the switch as it is in the environment. One that hangs does not.
passing() {
    local test output
    for test in "$@"; do
        output=$(play "$test" 2>&1) || { tell "$output" >&2; continue; }
        if [[ $output != *"1 passed"* ]]; then
            echo "there is no test $test" >&2
            exit 1
        fi
        echo "$test"
    done
}
# tell OUTPUT: what a failure says that is worth reading.
tell() { :; }

# judge [MUTANT...]: fails if a test of one of them, or of any, does not notice.
judge() {
    local wrong=0 id of sound survived
    for id in "${@:-${mutants[@]}}"; do
        read -r -d '' -a of <<< "${tests[$id]}" || true
        mapfile -t sound < <(TIDEGATE_BROKEN='' passing "${of[@]}")
        mapfile -t survived < <(TIDEGATE_BROKEN=$id passing "${of[@]}")
        if ((${#of[@]} == 0 || ${#sound[@]} != ${#of[@]})); then
            echo "mutant $id: a test fails although nothing is broken: ${of[*]}"
            wrong=1
        elif ((${#survived[@]} != 0)); then
            echo "mutant $id: not noticed by ${survived[*]}"
            wrong=1
        else
            echo "mutant $id: noticed by ${#of[@]}"
        fi
    done
    return $wrong
}
