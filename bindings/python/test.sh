#!/usr/bin/env bash
# Makes virtual environments, builds the wheel, and runs mypy and pytest on what was installed.
# LEPTON_PYTHON chooses the interpreter. LEPTON_PYTHON_EXTRA names sets of more packages, such as
# "onnx pandas; onnx keras torch", an environment and a run each; without their packages tests are skipped.
# The first set runs all tests, the others those of their frameworks; Keras' tests run on each of its back
# ends that a set has. Environments are kept in ${XDG_CACHE_HOME:-~/.cache}/lepton. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
python="${LEPTON_PYTHON:-python3}"
target="${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}/python"
kept="${XDG_CACHE_HOME:-$HOME/.cache}/lepton/python-$("$python" -c 'import sys; print(sys.version.split()[0])')"
mkdir -p "$target" "$kept"

# An environment with the packages that are named, made once.
environment() {
    local folder
    folder="$kept/$(echo "$*" | tr -c 'a-zA-Z0-9\n' -)"
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/pip" install -q --no-cache-dir "$@" 1>&2
        touch "$folder/complete"
    fi
    echo "$folder/bin/python"
}

build="$(environment "maturin>=1.9,<2" mypy numpy)"
rm -rf "$target/wheels"
PATH="$(dirname "$build"):$PATH" maturin build --release -q -o "$target/wheels"

# With nothing but the wheel and NumPy: a model runs.
rm -rf "$target/bare"
"$python" -m venv "$target/bare"
"$target/bare/bin/pip" install -q "$target"/wheels/*.whl
"$target/bare/bin/python" -I tests/bare.py

IFS=';' read -ra sets <<<"${LEPTON_PYTHON_EXTRA:-}"
first=yes
for packages in "${sets[@]:-}"; do
    # shellcheck disable=SC2086 # a list of words
    tested="$(environment pytest hypothesis numpy $packages)"
    "$tested" -m pip install -q --no-deps --force-reinstall "$target"/wheels/*.whl
    backends=""
    for name in tensorflow torch jax; do
        "$tested" -c "import importlib.util as i, sys; sys.exit(not (i.find_spec('keras') and i.find_spec('$name')))" \
            && backends="$backends $name"
    done
    if [ "$first" = yes ]; then
        "$build" -m mypy --config-file pyproject.toml --python-executable "$tested"
        "$tested" -m pytest -p no:cacheprovider tests "$@"
        # Those were Keras' tests on the first of its back ends.
        backends="$(echo "$backends" | cut -d' ' -f3-)"
    else
        "$tested" -m pytest -p no:cacheprovider tests/test_*_torch.py tests/test_libraries.py tests/test_sources.py "$@"
    fi
    for backend in $backends; do
        echo "Keras on $backend"
        KERAS_BACKEND="$backend" "$tested" -m pytest -p no:cacheprovider tests/test_*_keras.py "$@"
    done
    first=no
done
